"""Comparing: the largest of some numbers, and people in an order given by pairs."""

from __future__ import annotations

import re
from itertools import pairwise

from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example
from smallpress.tasks.family import Family, Posed
from smallpress.tasks.plots import PEOPLE

Choice = tuple[list[str], bool]  # the numbers as written, and whether the largest is asked for


class Largest(Family[Choice]):
    """Which number is the largest: 34, 78 or 12?"""

    name = "largest"
    levels = (2, 3, 4, 5, 6, 7)
    level_means = (
        "how many numbers: 2 to 6 up to 99 (the smallest too from 3 on); 7: three decimals such as 9.11 and 9.9"
    )
    step_means = "comparing the best so far with the next number"

    def draw(self, level: int, dice: Dice) -> Choice:
        largest = level == 2 or bool(dice.below(2))
        if level < 7:
            return [str(number) for number in dice.distinct(1, 99, level)], largest
        whole = dice.between(1, 19)
        return [f"{whole}.{hundredths:02d}".rstrip("0") for hundredths in dice.distinct(1, 99, 3)], largest

    def key(self, problem: Choice) -> str:
        numbers, largest = problem
        return f"{'largest' if largest else 'smallest'}:{','.join(sorted(numbers))}"

    def pose(self, problem: Choice, dice: Dice) -> Posed:
        numbers, largest = problem
        best, lines = numbers[0], []
        for number in numbers[1:]:
            above = float(number) > float(best)
            lines.append(f"{number} {'>' if above else '<'} {best}.")
            best = number if above == largest else best
        asked = "larger" if len(numbers) == 2 else "the largest" if largest else "the smallest"
        prompt = f"Which number is {asked}: {', '.join(numbers[:-1])} or {numbers[-1]}?"
        return Posed(prompt, best, len(lines), " ".join(lines))


RELATIONS = (
    ("taller", "tallest", "shorter", "shortest"),
    ("older", "oldest", "younger", "youngest"),
    ("faster", "fastest", "slower", "slowest"),
    ("richer", "richest", "poorer", "poorest"),
    ("stronger", "strongest", "weaker", "weakest"),
)
_PLACES = ("", "second ", "third ")


class Ordering(Family[tuple[str, ...]]):
    """Tom is taller than Ann. Ben is shorter than Ann. Who is the tallest?

    The key is the order of the people, whatever is compared and asked.
    """

    name = "ordering"
    levels = (2, 3, 4, 5, 6)
    level_means = "how many people; from 4 on also the second or third is asked for"
    step_means = "putting one statement in its place"

    _NAMES = tuple(person[0] for person in PEOPLE)

    def draw(self, level: int, dice: Dice) -> tuple[str, ...]:
        return tuple(dice.sample(self._NAMES, level))

    def key(self, problem: tuple[str, ...]) -> str:
        return "order:" + ">".join(problem)

    def pose(self, problem: tuple[str, ...], dice: Dice) -> Posed:
        more, most, less, least = dice.pick(RELATIONS)
        statements = [
            f"{a} is {more} than {b}." if dice.below(2) else f"{b} is {less} than {a}."
            for a, b in dice.shuffled(list(pairwise(problem)))
        ]
        place = dice.below(1 if len(problem) < 4 else min(3, len(problem) // 2))
        from_top = bool(dice.below(2))
        answer = problem[place] if from_top else problem[-1 - place]
        if len(problem) == 2:
            question = f"Who is {more if from_top else less}?"
        else:
            question = f"Who is the {_PLACES[place]}{most if from_top else least}?"
        thought = f"From {most if len(problem) > 2 else more} to {least if len(problem) > 2 else less}: "
        thought += ", ".join(problem) + "."
        return Posed(f"{' '.join(statements)} {question}", answer, len(statements), thought, {"people": list(problem)})

    def read_lenient(self, example: Example, text: str) -> str | None:
        """The last person named."""
        named = [word for word in re.findall(r"\w+", text[-2000:]) if word in example.meta["people"]]
        return named[-1] if named else None
