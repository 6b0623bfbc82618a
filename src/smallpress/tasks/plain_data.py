"""Values of Python as JSON and back, without running anything: what may cross the border of a sandbox.

Scalars stand as they are; everything else is a list that begins with one letter for its type. A value of another type
becomes `Opaque`, which equals nothing. Both sides of a sandbox use this file; it imports nothing of ours.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_DEPTH = 200
MAX_ITEMS = 200_000
MAX_KEYED = 10_000  # in sets and dictionaries: keys chosen to collide take quadratic time
_PLAIN_BITS = 60  # Longer integers go as hexadecimal text: JSON's decimal text has a limit in Python.


class Opaque:
    """A value that is no plain data; `name` is its type's. It equals nothing, itself neither."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.name}>"


_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"l": list, "t": tuple, "s": set, "z": frozenset}
_TEXTS: dict[str, Callable[[str], Any]] = {
    "i": lambda text: int(text, 16),
    "f": float,
    "b": bytes.fromhex,
    "B": bytearray.fromhex,
    "D": Decimal,
    "F": lambda text: Fraction(*map(int, text.split("/"))),  # Fraction("1e999999999") would never end.
    "T": datetime.datetime.fromisoformat,
    "Y": datetime.date.fromisoformat,
    "o": Opaque,
}


def encode(value: Any) -> Any:
    """What `json.dumps` can write. Subclasses of the plain types go as those.

    Raises ValueError for a value too deep or too large.

    >>> encode((1, "a", {2.5: None}))
    ['t', 1, 'a', ['d', [2.5, None]]]
    """
    budget = [MAX_ITEMS]

    def walk(value: Any, depth: int) -> Any:
        budget[0] -= 1
        if depth > MAX_DEPTH or budget[0] < 0:
            raise ValueError("a value too deep or too large")
        kinds: Any  # One of four types, whose own iterator is taken: a subclass may have another.
        for kinds, letter in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z")):
            if isinstance(value, kinds):
                return [letter, *(walk(item, depth + 1) for item in kinds.__iter__(value))]
        if isinstance(value, dict):
            return ["d", *([walk(key, depth + 1), walk(item, depth + 1)] for key, item in dict.items(value))]
        if isinstance(value, range):
            return ["r", *(walk(n, depth + 1) for n in (value.start, value.stop, value.step))]
        return _scalar(value)

    return walk(value, 0)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        value = int.__index__(value)
        return value if int.bit_length(value) <= _PLAIN_BITS else ["i", format(value, "x")]
    if isinstance(value, float):
        value = float.__add__(value, 0.0) if value else float.__pos__(value)
        return value if value - value == 0 else ["f", repr(value)]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return ["c", *(_scalar(part) for part in (value.real, value.imag))]
    if isinstance(value, bytes | bytearray):
        return ["B" if isinstance(value, bytearray) else "b", bytes(value).hex()]
    if isinstance(value, datetime.datetime | datetime.date):
        return ["T" if isinstance(value, datetime.datetime) else "Y", value.isoformat()]
    if isinstance(value, Decimal | Fraction):
        return ["D" if isinstance(value, Decimal) else "F", str(value)]
    return ["o", type(value).__name__]


def decode(data: Any) -> Any:
    """The value of what `encode` gave. Raises ValueError for anything else.

    >>> decode(encode({(1, 2): {3, 4}, "x": 1 << 100})) == {(1, 2): {3, 4}, "x": 1 << 100}
    True
    """
    try:
        return _decoded(data, 0, [MAX_KEYED])
    except (TypeError, ArithmeticError, LookupError, RecursionError, MemoryError) as error:
        raise ValueError(f"no plain data: {type(error).__name__}") from None


def _decoded(data: Any, depth: int, keyed: list[int]) -> Any:
    if depth > MAX_DEPTH + 1:
        raise ValueError("a value too deep")
    if data is None or isinstance(data, bool | int | float | str):
        return data
    letter, *items = data
    if letter in ("s", "z", "d"):
        keyed[0] -= len(items)
        if keyed[0] < 0:
            raise ValueError("too many keys")
    if letter in _SEQUENCES:
        return _SEQUENCES[letter]([_decoded(item, depth + 1, keyed) for item in items])
    if letter == "d":
        return {_decoded(key, depth + 1, keyed): _decoded(item, depth + 1, keyed) for key, item in items}
    if letter == "r":
        return range(*(_decoded(item, depth + 1, keyed) for item in items))
    if letter == "c":
        return complex(*(_decoded(item, depth + 1, keyed) for item in items))
    (text,) = items
    return _TEXTS[letter](text)
