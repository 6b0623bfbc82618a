"""Put numbers in order."""

from __future__ import annotations

import re

from smallpress.tasks.answers import clean
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example
from smallpress.tasks.family import Family, Posed

Problem = tuple[list[int], bool]  # the numbers as given, and whether the largest comes first

_SEPARATOR = re.compile(r"\s*(?:,|<|>|\band\b|\s)\s*(?:and\b\s*)?")
_ITEM = re.compile(r"-?[0-9]{1,6}")


class Sorting(Family[Problem]):
    """Sort 5, 2, 9 from smallest to largest."""

    name = "sorting"
    levels = (3, 4, 5, 6, 8)
    level_means = "how many numbers: 3 or 4 one-digit, more with two digits, eight with three"
    step_means = "finding the next number of the rest and writing it"

    def draw(self, level: int, dice: Dice) -> Problem:
        high = 9 if level <= 4 else 999 if level == 8 else 99
        return dice.distinct(1, high, level), bool(dice.below(2))

    def key(self, problem: Problem) -> str:
        numbers, down = problem
        return f"sort {'down' if down else 'up'}:{','.join(map(str, sorted(numbers)))}"

    def pose(self, problem: Problem, dice: Dice) -> Posed:
        numbers, down = problem
        direction = "largest to smallest" if down else "smallest to largest"
        ordered = sorted(numbers, reverse=down)
        left, lines = list(numbers), []
        for number in ordered[:-1]:
            lines.append(f"{number} is the {'largest' if down else 'smallest'} of {_written(left)}.")
            left.remove(number)
        prompt = f"Sort {_written(numbers)} from {direction}."
        return Posed(prompt, _written(ordered), len(ordered) - 1, " ".join(lines))

    def fault(self, example: Example, answer: str) -> str | None:
        """The numbers in order, between them commas, spaces, < or > or "and"; brackets round the whole are dropped."""
        text = clean(answer)
        if text[:1] + text[-1:] in ("[]", "()", "{}"):
            text = text[1:-1].strip()
        items = _SEPARATOR.split(text)
        if not all(_ITEM.fullmatch(item) for item in items):
            return "no list of numbers"
        if [int(item) for item in items] != [int(item) for item in example.reference.split(", ")]:
            return f"not {example.reference}"
        return None

    def read_lenient(self, example: Example, text: str) -> str | None:
        """The last run of numbers in the text."""
        runs = [run.strip(" ,") for run in re.findall(r"[0-9, ]+", text[-2000:])]
        return next((run for run in reversed(runs) if " " in run or "," in run), None)


def _written(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
