"""Countdown: reach a target from given numbers, each used once, with + - * / and parentheses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from smallpress.tasks.answers import clean
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example
from smallpress.tasks.expression import ExpressionError, parse_expression
from smallpress.tasks.family import Family, Posed

MAX_TARGET = 200


@dataclass(frozen=True, slots=True)
class Term:
    value: int
    text: str
    rank: int  # 0 a number, 1 a product or quotient, 2 a sum or difference

    def inside(self, rank: int) -> str:
        return f"({self.text})" if self.rank > rank else self.text


@dataclass(frozen=True, slots=True)
class Solved:
    """Numbers, target and the moves to it: take out the terms at two places, put their result at the end."""

    numbers: list[int]
    target: int
    moves: list[tuple[int, int, str]]


class Countdown(Family[Solved]):
    """Make 16 from 3, 5 and 2. Solvable by construction; any right expression is accepted."""

    name = "countdown"
    levels = (2, 3, 4)
    level_means = "how many numbers: 2 (to 12, + - *), 3 or 4 (to 20, all four operations)"
    step_means = "one operation of a solution (the search for it is not counted)"

    def draw(self, level: int, dice: Dice) -> Solved:
        n_signs, high = (3, 12) if level == 2 else (4, 20)
        while True:
            numbers = [dice.between(1, high) for _ in range(level)]
            values, moves = numbers.copy(), []
            for n in range(level, 1, -1):
                i = dice.below(n)
                j = (i + 1 + dice.below(n - 1)) % n
                a, b = values[i], values[j]
                fitting = "+*" + "-" * (a >= b) + "/" * (n_signs == 4 and b != 0 and a % b == 0)
                sign = dice.pick(fitting)
                moves.append((i, j, sign))
                values = [value for k, value in enumerate(values) if k not in (i, j)]
                values.append(a + b if sign == "+" else a * b if sign == "*" else a - b if sign == "-" else a // b)
            if 0 < values[0] <= MAX_TARGET and values[0] not in numbers:
                return Solved(numbers, values[0], moves)

    def key(self, problem: Solved) -> str:
        return f"countdown:{','.join(map(str, sorted(problem.numbers)))}={problem.target}"

    def pose(self, problem: Solved, dice: Dice) -> Posed:
        terms, lines = [Term(number, str(number), 0) for number in problem.numbers], []
        for i, j, sign in problem.moves:
            a, b = terms[i], terms[j]
            joined = join(a, b, sign)
            lines.append(f"{a.value} {sign} {b.value} = {joined.value}.")
            terms = [term for term in terms if term is not a and term is not b] + [joined]
        signs = "+ - *" if len(problem.numbers) == 2 else "+ - * /"
        *first, last = map(str, problem.numbers)
        prompt = f"Make {problem.target} from {', '.join(first)} and {last} with {signs}, using each number once."
        meta = {"numbers": problem.numbers, "target": problem.target}
        return Posed(prompt, terms[0].text, len(lines), " ".join(lines), meta)

    def fault(self, example: Example, answer: str) -> str | None:
        """The answer is an expression, or an expression "= target"."""
        numbers, target = example.meta["numbers"], example.meta["target"]
        written, equals, claimed = clean(answer).partition("=")
        if equals and claimed.strip() != str(target):
            return f"says that it makes {claimed.strip()[:20]}"
        try:
            expression = parse_expression(written)
        except ExpressionError as error:
            return f"no expression: it {error}"
        if sorted(expression.numbers) != sorted(numbers):
            return f"uses {', '.join(map(str, expression.numbers))}"
        return None if expression.value == target else f"makes {expression.value}"

    def read_lenient(self, example: Example, text: str) -> str | None:
        """The last stretch of text that could be an expression."""
        stretches = (stretch.strip(" +*/") for stretch in re.findall(r"[-+*/()0-9 ]+", text[-2000:]))
        return next((s for s in reversed(list(stretches)) if re.search(r"[0-9)] ?[-+*/]", s)), None)


def join(a: Term, b: Term, sign: str) -> Term:
    """a sign b, with no more parentheses than it needs.

    >>> join(Term(3, "3", 0), join(Term(5, "5", 0), Term(2, "2", 0), "-"), "*")
    Term(value=9, text='3 * (5 - 2)', rank=1)
    """
    if sign == "+":
        return Term(a.value + b.value, f"{a.text} + {b.text}", 2)
    if sign == "-":
        return Term(a.value - b.value, f"{a.text} - {b.inside(1)}", 2)
    if sign == "*":
        return Term(a.value * b.value, f"{a.inside(1)} * {b.inside(1)}", 1)
    return Term(a.value // b.value, f"{a.inside(1)} / {b.inside(0)}", 1)
