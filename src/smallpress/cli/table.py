"""Tables as plain text, the same on a terminal and in a file."""

import unicodedata
from collections.abc import Sequence

from smallpress.run.errors import one_line


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart; Chinese characters and the like count as two columns wide.

    >>> print(table([["name", "size"], ["小", "3 MB"], ["tiny", "10 MB"]]))
    name  size
    小    3 MB
    tiny  10 MB
    """
    lines = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)) for row in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _width(text: str) -> int:
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text if not unicodedata.combining(char)
    )
