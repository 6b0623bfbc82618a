"""What number comes next: sequences whose rule can be read off the differences or ratios."""

from __future__ import annotations

from itertools import pairwise

from smallpress.tasks.dice import Dice
from smallpress.tasks.family import Family, Posed

Problem = tuple[str, list[int]]  # the rule and the terms, the last of which is the answer


class Sequence(Family[Problem]):
    """What number comes next: 3, 7, 11, 15?"""

    name = "sequence"
    levels = (1, 2, 3, 4, 5, 6)
    level_means = "rule: step up, step down, factor 2-5, growing step, sum of the last two, two steps in turn"
    step_means = "finding one difference or ratio, or using it to go on"

    def draw(self, level: int, dice: Dice) -> Problem:
        if level == 1:
            first, step = dice.between(1, 20), dice.between(1, 9)
            return "step", [first + i * step for i in range(5)]
        if level == 2:
            last, step = dice.between(0, 20), dice.between(1, 12)
            return "step", [last + i * step for i in range(4, -1, -1)]
        if level == 3:
            first, factor = dice.between(1, 20), dice.between(2, 5)
            terms = [first * factor**i for i in range(5)]
            return ("times", terms) if dice.below(2) else ("divide", terms[::-1])
        if level == 4:
            first, step, growth = dice.between(1, 20), dice.between(1, 9), dice.between(1, 5)
            return "growing", [first + i * step + growth * i * (i - 1) // 2 for i in range(6)]
        if level == 5:
            a, b = dice.between(1, 15), dice.between(1, 15)
            return "two before", [a, b, a + b, a + 2 * b, 2 * a + 3 * b, 3 * a + 5 * b]
        odd, even = dice.distinct(1, 12, 2)
        even = -even if dice.below(2) else even
        first = dice.between(36, 60)
        return "in turn", [first + (i + 1) // 2 * odd + i // 2 * even for i in range(7)]

    def key(self, problem: Problem) -> str:
        return "next:" + ",".join(map(str, problem[1]))

    def pose(self, problem: Problem, dice: Dice) -> Posed:
        rule, (*shown, answer) = problem
        before, last = shown[-2:]
        if rule == "step":
            up = f"{last} - {before} = {last - before}."
            lines = [up if last > before else f"{before} - {last} = {before - last}.", _go_on(last, answer)]
        elif rule == "times":
            lines = [f"{last} / {before} = {last // before}.", f"{last} * {last // before} = {answer}."]
        elif rule == "divide":
            lines = [f"{before} / {last} = {before // last}.", f"{last} / {before // last} = {answer}."]
        elif rule == "two before":
            lines = [f"{shown[0]} + {shown[1]} = {shown[2]}.", f"{before} + {last} = {answer}."]
        else:
            lines = [f"{b} - {a} = {b - a}." for a, b in pairwise(shown)] + [_go_on(last, answer)]
        prompt = f"What number comes next: {', '.join(map(str, shown))}?"
        return Posed(prompt, str(answer), len(lines), " ".join(lines))


def _go_on(last: int, answer: int) -> str:
    return f"{last} + {answer - last} = {answer}." if answer > last else f"{last} - {last - answer} = {answer}."
