"""JSON Lines, and files that are one JSON list or object: a row is a document, its text is under a key."""

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from smallpress.corpus.documents import Document, OnBytes, Readable, Tally, opened

MAX_LINE_BYTES = 1 << 24
MAX_FILE_BYTES = 1 << 28
"""Of one JSON value, which is held in memory whole; a file of lines may be of any length."""


def read_json(path: Path, fields: Sequence[str], tally: Tally, on_bytes: OnBytes) -> Iterator[Document]:
    """The file's documents; `fields` as in `text_under`."""
    for where, row in rows_of_json(path, tally, on_bytes):
        if (document := document_of(row, fields, where, tally)) is not None:
            yield document


def document_of(row: object, fields: Sequence[str], where: str, tally: Tally) -> Document | None:
    """The row as a document, unless it is counted as having none."""
    text = text_under(row, fields) if isinstance(row, Mapping) else row if isinstance(row, str) else None
    if text is None:
        tally.leave_out(f"no {' or '.join(fields)}", where)
        return None
    return tally.document(text, where)


def text_under(row: Mapping[Any, Any], fields: Sequence[str]) -> str | None:
    r"""The text under the first of `fields` that the row has; "a+b" is what is under a, a blank line, what is under b.

    A list is its texts a line each, an object its texts a paragraph each.

    >>> text_under({"question": "2 + 2?", "answer": ["It is", "4."]}, ["text", "question+answer"])
    '2 + 2?\n\nIt is\n4.'
    """
    for field in fields:
        values = [row.get(key) for key in field.split("+")]
        if all(value is not None for value in values):
            return "\n\n".join(("\n" if isinstance(value, list) else "\n\n").join(texts_in(value)) for value in values)
    return None


def texts_in(value: object) -> Iterator[str]:
    """Every text in a JSON value, in order; keys are none.

    >>> list(texts_in({"a": "one", "b": [2, {"c": "two"}]}))
    ['one', 'two']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(item)


def rows_of_json(path: Path, tally: Tally, on_bytes: OnBytes) -> Iterator[tuple[str, object]]:
    """(where, value) of each line, or of each item of the one list the file is. What is not JSON is counted."""
    with opened(path, tally, on_bytes) as file:
        first = file.peek(1).removeprefix(BOM_UTF8).lstrip()[:1]
        if first != b"[" and ".json" not in path.suffixes:
            yield from _lines(path, file, tally)
            return
        data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            tally.leave_out(f"one JSON value of over {MAX_FILE_BYTES >> 20} MB", str(path))
            return
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            yield from _lines(path, BytesIO(data), tally)
            return
        for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
            yield f"{path}: item {number}", item


def _lines(path: Path, file: Readable, tally: Tally) -> Iterator[tuple[str, object]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        where = f"{path}: line {number}"
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            tally.leave_out(f"a line of over {MAX_LINE_BYTES >> 20} MB", where)
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            tally.leave_out("not JSON", where)
            continue
        yield where, value
