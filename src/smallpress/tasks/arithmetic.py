"""Sums, differences and products of whole numbers.

The keys are the plain arithmetic, the same in every family here: 3 + 4 held out in one is held out in all.
"""

from __future__ import annotations

from smallpress.tasks.dice import Dice
from smallpress.tasks.family import Family, Posed

Terms = list[int]
Pair = tuple[int, int]


class ChainedSum(Family[Terms]):
    """What is 3 + 4 + 5? Two to eight one-digit numbers, then two to five two-digit numbers."""

    name = "chained_sum"
    levels = tuple(range(2, 13))
    level_means = "2-8: that many one-digit numbers; 9-12: two to five two-digit numbers"
    step_means = "adding the next number to the running total"

    def draw(self, level: int, dice: Dice) -> Terms:
        if level <= 8:
            return [dice.between(1, 9) for _ in range(level)]
        return [dice.between(10, 99) for _ in range(level - 7)]

    def key(self, problem: Terms) -> str:
        return "+".join(map(str, sorted(problem)))

    def pose(self, problem: Terms, dice: Dice) -> Posed:
        total, lines = problem[0], []
        for term in problem[1:]:
            lines.append(f"{total} + {term} = {total + term}.")
            total += term
        prompt = f"What is {' + '.join(map(str, problem))}?"
        return Posed(prompt, str(total), len(problem) - 1, " ".join(lines))


class Addition(Family[Pair]):
    """What is 348 + 275? Two numbers of as many digits as the level (one digit: `chained_sum` level 2)."""

    name = "addition"
    levels = (2, 3, 4, 5)
    level_means = "digits of both numbers"
    step_means = "one column of digits, with its carry"

    def draw(self, level: int, dice: Dice) -> Pair:
        low, high = 10 ** (level - 1), 10**level - 1
        return dice.between(low, high), dice.between(low, high)

    def key(self, problem: Pair) -> str:
        return f"{min(problem)}+{max(problem)}"

    def pose(self, problem: Pair, dice: Dice) -> Posed:
        a, b = problem
        lines, carry = [], 0
        for x, y in zip(_digits(a), _digits(b), strict=True):
            lines.append(f"{x} + {y} + {carry} = {x + y + carry}." if carry else f"{x} + {y} = {x + y}.")
            carry = (x + y + carry) // 10
        return Posed(f"What is {a} + {b}?", str(a + b), len(lines), " ".join([*lines, f"So {a + b}."]))


class Subtraction(Family[Pair]):
    """What is 348 - 275? Never below zero. Level 1 turns the sums of one-digit numbers round (up to 18 - 9)."""

    name = "subtraction"
    levels = (1, 2, 3, 4, 5)
    level_means = "digits of both numbers (level 1: up to 18 - 9)"
    step_means = "one column of digits, with its borrow"

    def draw(self, level: int, dice: Dice) -> Pair:
        if level == 1:
            b, difference = dice.between(1, 9), dice.between(1, 9)
            return b + difference, b
        low, high = 10 ** (level - 1), 10**level - 1
        a, b = dice.between(low, high), dice.between(low, high)
        return max(a, b), min(a, b)

    def key(self, problem: Pair) -> str:
        return f"{problem[0]}-{problem[1]}"

    def pose(self, problem: Pair, dice: Dice) -> Posed:
        a, b = problem
        prompt, difference = f"What is {a} - {b}?", str(a - b)
        if b < 10:
            return Posed(prompt, difference, 1, f"{a} - {b} = {difference}.")
        lines, borrowed = [], 0
        for x, y in zip(_digits(a), _digits(b), strict=True):
            left = x - borrowed - y
            top = x + 10 if left < 0 else x
            lines.append(f"{top} - {y} - 1 = {left % 10}." if borrowed else f"{top} - {y} = {left % 10}.")
            borrowed = int(left < 0)
        return Posed(prompt, difference, len(lines), " ".join([*lines, f"So {difference}."]))


class Product(Family[Pair]):
    """What is 34 * 7? The multiplication table first, then longer factors."""

    name = "product"
    levels = (1, 2, 3, 4, 5)
    level_means = "digits of the factors: 1x1, 2x1, 3x1, 2x2, 3x2"
    step_means = "one product of two digits, or adding one of them to the running total"

    _SHAPES = ((1, 1), (2, 1), (3, 1), (2, 2), (3, 2))

    def draw(self, level: int, dice: Dice) -> Pair:
        n, m = self._SHAPES[level - 1]
        a = dice.between(10 ** (n - 1), 10**n - 1)
        b = dice.between(2 if m == 1 and n > 1 else 10 ** (m - 1), 10**m - 1)
        return (a, b) if dice.below(2) else (b, a)

    def key(self, problem: Pair) -> str:
        return f"{min(problem)}*{max(problem)}"

    def pose(self, problem: Pair, dice: Dice) -> Posed:
        a, b = problem
        parts = [(x * 10**i, y * 10**j) for i, x in enumerate(_digits(a)) for j, y in enumerate(_digits(b)) if x and y]
        lines, total = [], 0
        for n, (x, y) in enumerate(reversed(parts)):
            lines.append(f"{x} * {y} = {x * y}.")
            if n:
                lines.append(f"{total} + {x * y} = {total + x * y}.")
            total += x * y
        return Posed(f"What is {a} * {b}?", str(total), len(lines), " ".join(lines))


def _digits(number: int) -> list[int]:
    """The decimal digits, the last first.

    >>> _digits(348)
    [8, 4, 3]
    """
    return [int(digit) for digit in reversed(str(number))]
