"""HumanEval and MBPP: their files read into examples whose answer is code, and the checker for those."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from smallpress.run.errors import UserError
from smallpress.tasks.code_check import CodeChecked
from smallpress.tasks.code_tests import CodeVerdict, UnitTests, run_tests
from smallpress.tasks.example import Example
from smallpress.tasks.files import FileTask, file_key
from smallpress.tasks.records import Record, json_lines, string
from smallpress.tasks.sandbox import Limits


def humaneval(path: str | Path) -> list[Example]:
    """HumanEval's JSON lines, packed with gzip or not. Raises UserError naming the file and the line.

    An answer is the whole function, or its indented body. What the prompt defines besides is there for both the
    answer and the tests; the tests get their own, so that an answer that replaces it changes no test.
    """
    return [humaneval_problem(record, where) for where, record in json_lines(Path(path))]


def mbpp(path: str | Path) -> list[Example]:
    """MBPP's JSON lines. As its paper does, the prompt shows the tests, which name the function."""
    return [mbpp_problem(record, where) for where, record in json_lines(Path(path))]


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


def humaneval_problem(record: Record, where: str) -> Example:
    """One record. Raises UserError naming where it stands and what it lacks."""
    opening, entry = string(record, "prompt", where), string(record, "entry_point", where)
    body, source = string(record, "canonical_solution", where), string(record, "test", where)
    statements = _parsed(opening + "    pass\n", where).body
    _parsed(source, where)
    others = [node for node in statements if not (isinstance(node, ast.FunctionDef) and node.name == entry)]
    if len(others) == len(statements):
        raise UserError(f"{where} does not define {entry}", "give HumanEval's file")
    tests = UnitTests(source, (entry,), trusted="\n".join(map(ast.unparse, others)))
    prompt = f"Complete this Python function:\n```python\n{opening.rstrip()}\n```"
    meta = {"opening": opening, "tests": asdict(tests), "steps": 1}
    return Example(prompt, opening + body, "humaneval", 1, file_key(opening), meta)


def mbpp_problem(record: Record, where: str) -> Example:
    """One record. Raises UserError naming where it stands and what it lacks."""
    text, code = string(record, "text", where), string(record, "code", where)
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
