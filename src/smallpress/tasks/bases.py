"""Whole numbers written in another base."""

from __future__ import annotations

import re

from smallpress.tasks.answers import clean
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example
from smallpress.tasks.family import Family, Posed

Problem = tuple[int, int, bool]  # number, base, whether the answer is the decimal

_DIGITS = "0123456789abcdef"
_PREFIX = {2: "0b", 8: "0o", 16: "0x"}


class Bases(Family[Problem]):
    """Write the binary number 1101 in decimal. The key is number and base: both directions are one problem."""

    name = "bases"
    levels = (1, 2, 3, 4, 5)
    level_means = "from binary (to 63), to binary (to 63), both (to 255), bases 8 and 16 (to 255), bases 3-9 (to 999)"
    step_means = "one digit: times base plus digit, or division by the base with rest"

    def draw(self, level: int, dice: Dice) -> Problem:
        if level <= 2:
            return dice.between(2, 63), 2, level == 1
        to_decimal = bool(dice.below(2))
        if level == 3:
            return dice.between(16, 255), 2, to_decimal
        if level == 4:
            return dice.between(17, 255), dice.pick((8, 16)), to_decimal
        return dice.between(10, 999), dice.between(3, 9), to_decimal

    def key(self, problem: Problem) -> str:
        return f"base {problem[1]}:{problem[0]}"

    def pose(self, problem: Problem, dice: Dice) -> Posed:
        number, base, to_decimal = problem
        written = in_base(number, base)
        if to_decimal:
            value = _DIGITS.index(written[0])
            lines = [f"{written[0]} is {value}."] if value > 9 else []
            for digit in map(_DIGITS.index, written[1:]):
                lines.append(f"{value} * {base} + {digit} = {value * base + digit}.")
                value = value * base + digit
            prompt = f"Write the {_name(base)} number {written} in decimal."
            return Posed(prompt, str(number), len(written) - 1, " ".join(lines), {"base": 10})
        left, lines = number, []
        while left:
            above, rest = divmod(left, base)
            shown = f" ({_DIGITS[rest]})" if rest > 9 else ""
            lines.append(f"{left} / {base} = {above} rest {rest}{shown}.")
            left = above
        prompt = f"Write the decimal number {number} in {_name(base)}."
        return Posed(prompt, written, len(lines), " ".join(lines), {"base": base})

    def fault(self, example: Example, answer: str) -> str | None:
        """Digits compared as text; leading zeros, the base's own prefix (0b, 0x) or index (_2) may stand."""
        base = example.meta["base"]
        if base == 10:
            return super().fault(example, answer)
        digits = clean(answer).casefold()
        digits = re.sub(rf"_(?:{base}|\{{{base}\}})$", "", digits).removeprefix(_PREFIX.get(base, "none"))
        return None if digits.lstrip("0") == example.reference else f"not {example.reference}"

    def read_lenient(self, example: Example, text: str) -> str | None:
        """The last word made of the base's digits."""
        base = example.meta["base"]
        digits = _DIGITS[:base]
        words = re.findall(rf"(?<![\w.])(?:0[bxo])?[{digits}]+(?!\w)", text[-2000:].casefold())
        return words[-1] if words else None


def in_base(number: int, base: int) -> str:
    """The digits of a number above 0.

    >>> in_base(13, 2), in_base(255, 16)
    ('1101', 'ff')
    """
    written = ""
    while number:
        number, digit = divmod(number, base)
        written = _DIGITS[digit] + written
    return written


def _name(base: int) -> str:
    return {2: "binary", 16: "hexadecimal"}.get(base, f"base {base}")
