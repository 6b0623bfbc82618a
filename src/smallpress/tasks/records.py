"""Records of a file of problems: JSON lines, a JSON list, comma- or tab-separated values, packed with gzip or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smallpress.run.errors import UserError, disk_error

MAX_BYTES = 1 << 30  # of a file, unpacked

Record = dict[str, Any]


def read_records(path: str | Path) -> Iterator[tuple[str, Record]]:
    """("path, line 3", record) of every record. A folder gives its files' records in the order of their names.

    .json: a list of objects, alone or under the key "examples"; .csv: columns named in the first line; .tsv: columns
    without names, which become "0", "1" and so on; anything else: one JSON object a line. `.gz` may follow.
    Raises UserError naming the file and the line.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.removesuffix(".gz").endswith(_ENDINGS))
        if not files:
            raise UserError(f"{path} holds no file of problems", f"put in files that end in {', '.join(_ENDINGS)}")
        for file in files:
            yield from read_records(file)
        return
    ending = Path(path.name.removesuffix(".gz")).suffix
    if ending == ".json":
        yield from _json_list(path)
    elif ending in (".csv", ".tsv"):
        yield from _table(path, ending)
    else:
        yield from json_lines(path)


_ENDINGS = (".jsonl", ".json", ".csv", ".tsv")


def json_lines(path: Path) -> Iterator[tuple[str, Record]]:
    """("path, line 3", record) for every line that is not blank."""
    n_records = 0
    for n, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {n}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON: {cause(error)}", "each line holds one JSON object") from None
        if not isinstance(record, dict):
            raise UserError(f"{where} is no JSON object", 'each line looks like {"question": "..", "answer": ".."}')
        n_records += 1
        yield where, record
    if n_records == 0:
        raise UserError(f"{path} holds no problem", "each line holds one JSON object")


def _json_list(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {cause(error)}", "give JSON lines in a .jsonl, or a list") from None
    value = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(value, list) or not value:
        raise UserError(f"{path} is not a list of problems", "give JSON lines in a .jsonl, or a list")
    for n, record in enumerate(value, start=1):
        where = f"{path}, problem {n}"
        if not isinstance(record, dict):
            raise UserError(f"{where} is no object", "give a list of JSON objects")
        yield where, record


def _table(path: Path, ending: str) -> Iterator[tuple[str, Record]]:
    text = io.StringIO(read_text(path), newline="")
    try:
        if ending == ".csv":
            for n, row in enumerate(csv.DictReader(text), start=1):
                yield f"{path}, row {n}", {str(key): value for key, value in row.items()}
        else:
            for n, cells in enumerate(csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
                yield f"{path}, row {n}", {str(i): cell for i, cell in enumerate(cells)}
    except csv.Error as error:
        raise UserError(f"{path} is no table: {error}", "save it as CSV or TSV, in UTF-8") from None


def read_text(path: Path) -> str:
    """A file as text, unpacked where its name ends in .gz. Raises UserError naming it."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                data = file.read(MAX_BYTES + 1)
        else:
            data = path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file: {error}", "fetch it again") from None
    except OSError as error:
        raise disk_error(error, f"reading {path}") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES} bytes", "split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}", "save it as UTF-8") from None


def string(record: Record, key: str, where: str) -> str:
    """The text under a key. Raises UserError where there is none."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        missing = "lacks" if key not in record else "has no text in"
        raise UserError(f"{where} {missing} {key!r}", "every problem needs it")
    return value


def text_or_number(record: Record, key: str, where: str) -> str:
    """The text under a key, or the number there as it would be written: 51.0 is 51. Raises UserError."""
    value = record.get(key)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return string(record, key, where).strip()


def cause(error: ValueError | RecursionError) -> str:
    """Why something is not JSON, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number in it is too long"
