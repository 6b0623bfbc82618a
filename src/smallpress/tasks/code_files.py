"""HumanEval and MBPP: their files read into examples whose answer is code, and the checker for those."""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smallpress.run.errors import UserError, disk_error
from smallpress.tasks.code_check import CodeChecked
from smallpress.tasks.code_tests import CodeVerdict, UnitTests, run_tests
from smallpress.tasks.example import Example
from smallpress.tasks.files import FileTask, file_key
from smallpress.tasks.sandbox import Limits

MAX_FILE_BYTES = 64 << 20


def humaneval(path: str | Path) -> list[Example]:
    """HumanEval's JSON lines, packed with gzip or not. Raises UserError naming the file and the line.

    An answer is the whole function, or its indented body. What the prompt defines besides is there for both the
    answer and the tests; the tests get their own, so that an answer that replaces it changes no test.
    """
    return [humaneval_problem(record, where) for where, record in _records(Path(path))]


def mbpp(path: str | Path) -> list[Example]:
    """MBPP's JSON lines. As its paper does, the prompt shows the tests, which name the function."""
    return [mbpp_problem(record, where) for where, record in _records(Path(path))]


class CodeFile(CodeChecked, FileTask):
    """The problems of HumanEval's or MBPP's file as a task."""

    limits = Limits(cpu_seconds=10, seconds=60)  # The slowest reference, of MBPP, needs four.

    def run(self, example: Example, code: str) -> CodeVerdict:
        return run_tests(program(example, code), UnitTests(**example.meta["tests"]), self.limits)


CODE_READERS: dict[str, Callable[[str | Path], list[Example]]] = {"humaneval": humaneval, "mbpp": mbpp}


def program(example: Example, code: str) -> str:
    """An answer as a program: after what its prompt defines, or, an indented body, after the prompt itself."""
    opening = example.meta["opening"]
    if opening and code[:1] in " \t" and code.strip():
        return opening + code
    return f"{example.meta['tests']['trusted']}\n{code}"


def humaneval_problem(record: dict[str, Any], where: str) -> Example:
    """One record. Raises UserError naming where it stands and what it lacks."""
    opening, entry = _string(record, "prompt", where), _string(record, "entry_point", where)
    body, source = _string(record, "canonical_solution", where), _string(record, "test", where)
    statements = _parsed(opening + "    pass\n", where).body
    _parsed(source, where)
    others = [node for node in statements if not (isinstance(node, ast.FunctionDef) and node.name == entry)]
    if len(others) == len(statements):
        raise UserError(f"{where} does not define {entry}", "give HumanEval's file")
    tests = UnitTests(source, (entry,), trusted="\n".join(map(ast.unparse, others)))
    prompt = f"Complete this Python function:\n```python\n{opening.rstrip()}\n```"
    meta = {"opening": opening, "tests": asdict(tests), "steps": 1}
    return Example(prompt, opening + body, "humaneval", 1, file_key(opening), meta)


def mbpp_problem(record: dict[str, Any], where: str) -> Example:
    """One record. Raises UserError naming where it stands and what it lacks."""
    text, code = _string(record, "text", where), _string(record, "code", where)
    asserts, setup = record.get("test_list"), record.get("test_setup_code") or ""
    if not isinstance(asserts, list) or not asserts or not all(isinstance(line, str) for line in asserts):
        raise UserError(f"{where} has no list of texts in 'test_list'", "give MBPP's file")
    if not isinstance(setup, str):
        raise UserError(f"{where} has no text in 'test_setup_code'", "give MBPP's file")
    source = "\n".join(asserts)
    used = {node.id for node in ast.walk(_parsed(source, where)) if isinstance(node, ast.Name)}
    body = _parsed(code, where).body
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in used]
    imports = [node for node in body if isinstance(node, ast.Import) and {name.name for name in node.names} & used]
    tests = UnitTests(source, defined, setup, "\n".join(map(ast.unparse, imports)))
    prompt = f"{text.strip()} Your code should pass these tests:\n{source}"
    meta = {"opening": "", "tests": asdict(tests), "steps": 1, "task_id": record.get("task_id")}
    return Example(prompt, code.replace("\r\n", "\n"), "mbpp", 1, file_key(text + source), meta)


def _parsed(source: str, where: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{where} has code that is no Python: {error}", "give the file as it was published") from None


def _string(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} has no text in {key!r}", "give HumanEval's or MBPP's file")
    return value


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    n_records = 0
    for n, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {n}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where} is not JSON", "each line holds one JSON object") from None
        if not isinstance(record, dict):
            raise UserError(f"{where} is no JSON object", "each line holds one JSON object")
        n_records += 1
        yield where, record
    if n_records == 0:
        raise UserError(f"{path} holds no problem", "each line holds one JSON object")


def _lines(path: Path) -> list[str]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path} is no whole gzip file", "download it again") from None
    except OSError as error:
        raise disk_error(error, f"reading {path}") from None
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MB", "give HumanEval's or MBPP's file")
    try:
        return data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}", "save it as UTF-8") from None
