"""Text files: a file is a document, or each of its paragraphs or lines is.

A line `<|endoftext|>` ends a document whatever the way. A file longer than a piece goes on as further documents.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from smallpress.corpus.documents import Document, OnBytes, Readable, Tally, opened

PIECE_BYTES = 1 << 16
SEPARATOR = b"<|endoftext|>"
Split = Literal["file", "blank", "line"]


def read_text(
    path: Path, split: Split, tally: Tally, on_bytes: OnBytes, piece: int = PIECE_BYTES
) -> Iterator[Document]:
    """The file's documents.

    split    "file": all of it, cut at the first blank line after each `piece` bytes, at the latest at the first end of
             a line after twice as many; "blank": what stands between blank lines; "line": each line
    """
    with opened(path, tally, on_bytes) as file:
        lines: list[bytes] = []
        size = first = 0
        for number, line in enumerate(_lines(file, piece), start=1):
            blank, separator = not line.strip(), line.strip() == SEPARATOR
            if lines and (separator or (blank and (split == "blank" or size >= piece)) or size >= 2 * piece):
                yield from _given(tally, lines, f"{path}: line {first}")
                lines, size = [], 0
            if separator or (blank and not lines):
                continue
            first = first if lines else number
            lines.append(line)
            size += len(line)
            if split == "line":
                yield from _given(tally, lines, f"{path}: line {first}")
                lines, size = [], 0
        if lines:
            yield from _given(tally, lines, f"{path}: line {first}")
        elif not first:
            tally.leave_out("empty", str(path))


def _given(tally: Tally, lines: list[bytes], where: str) -> Iterator[Document]:
    data = b"".join(lines)
    kept = data.rstrip(b"\r\n")
    if len(lines) > 1 and len(kept) < len(data):
        kept += b"\n"
    document = tally.document(kept, where)
    if document is not None:
        yield document


def _lines(file: Readable, longest: int) -> Iterator[bytes]:
    """The lines, those over `longest` bytes in several, cut between characters."""
    held = b""
    while line := file.readline(longest):
        line = held + line
        cut = len(line) if line.endswith(b"\n") else _whole_characters(line)
        line, held = line[:cut], line[cut:]
        yield line
    if held:
        yield held


def _whole_characters(line: bytes) -> int:
    """How many of the bytes are sure to end with a whole character: all, or those before a last one of several bytes.

    >>> _whole_characters("a中".encode()[:-1]), _whole_characters(b"ab")
    (1, 2)
    """
    for back in range(1, min(4, len(line) + 1)):
        if line[-back] & 0xC0 != 0x80:
            return len(line) - back if line[-back] >= 0xC0 else len(line)
    return len(line)
