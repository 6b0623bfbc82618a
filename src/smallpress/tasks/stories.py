"""Word problems: a plot (see `plots`) with numbers, people and things filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from smallpress.tasks.dice import Dice
from smallpress.tasks.family import Family, Posed
from smallpress.tasks.long_plots import MANY_STEPS
from smallpress.tasks.plots import ONE_STEP, PEOPLE, THINGS, Numbers, Plot, result

Problem = tuple[Plot, Numbers]


class Story(Family[Problem]):
    """The key is the plot and its numbers: other people or things make no other problem."""

    step_means = "one operation on two numbers"
    plots: ClassVar[Mapping[int, tuple[Plot, ...]]]

    def draw(self, level: int, dice: Dice) -> Problem:
        plot = dice.pick(self.plots[level])
        return plot, plot.draw(dice)

    def key(self, problem: Problem) -> str:
        plot, numbers = problem
        if plot.name in "+*":
            numbers = tuple(sorted(numbers))
        return f"story:{plot.name}:{','.join(map(str, numbers))}"

    def pose(self, problem: Problem, dice: Dice) -> Posed:
        plot, numbers = problem
        people = dice.sample(PEOPLE, 3)
        name, he, him, his = people[0]
        prompt = dice.pick(plot.wordings).format(
            *numbers, A=name, B=people[1][0], C=people[2][0], things=dice.pick(THINGS),
            he=he, him=him, his=his, He=he.capitalize(),
        )  # fmt: skip
        steps = plot.work(numbers)
        thought = " ".join(f"{left} {sign} {right} = {result((left, sign, right))}." for left, sign, right in steps)
        return Posed(prompt, str(result(steps[-1])), len(steps), thought)


class OneStepStory(Story):
    name = "word_problem"
    levels = (1, 2, 3, 4)
    level_means = "+ - up to 20; + - up to 100; * / in the table; all four, larger"
    plots = ONE_STEP


class ManyStepStory(Story):
    name = "long_word_problem"
    levels = (2, 3, 4)
    level_means = "number of steps"
    plots = MANY_STEPS
