"""Random choices that are the same on every machine and in every Python.

Python promises the sequence of `random.Random(int).random()` and nothing else about the generator (choice and
shuffle have changed between versions), so every choice here is made from `random()`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A seeded source of small choices. The bias of scaling a 53-bit fraction is below n / 2**53."""

    __slots__ = ("_random",)

    def __init__(self, seed: int):
        self._random = random.Random(seed).random

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All the items in random order (Fisher and Yates)."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = int(self._random() * (i + 1))
            out[i], out[j] = out[j], out[i]
        return out

    def sample(self, items: Sequence[T], n: int) -> list[T]:
        """n different items, in random order."""
        return [items[i] for i in self.distinct(0, len(items) - 1, n)]

    def distinct(self, low: int, high: int, n: int) -> list[int]:
        """n different integers from low to high, in random order; for n well below their number."""
        assert n <= high - low + 1, f"{n=} from {low}..{high}"
        out: list[int] = []
        while len(out) < n:
            number = self.between(low, high)
            if number not in out:
                out.append(number)
        return out
