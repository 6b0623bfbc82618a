"""The plots of the word problems: which numbers, which steps, in which words.

In a wording, {0} {1} .. are the numbers, {A} {B} {C} different people with {he} {him} {his} for A, {things} what is
counted. Numbers in a wording are 2 or more, so that every noun is a plural.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smallpress.tasks.dice import Dice

Numbers = tuple[int, ...]
Step = tuple[int, str, int]  # left, one of + - * /, right; division without remainder


@dataclass(frozen=True, slots=True)
class Plot:
    """`draw` gives the numbers of a wording, `work` the steps from them to the answer, which is the last step's."""

    name: str
    draw: Callable[[Dice], Numbers]
    work: Callable[[Numbers], Sequence[Step]]
    wordings: tuple[str, ...]


def result(step: Step) -> int:
    """The value of one step.

    >>> result((12, "/", 4))
    3
    """
    left, sign, right = step
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    assert sign == "/" and left % right == 0, step
    return left // right


_NAMES = """Tom Ann Ben Mia Sam Lily Jack Emma Leo Nina Max Sara Omar Ruth Paul Zoe Ivan Rosa Hugo Mei Amir Lucy
    Carlos Grace"""
PEOPLE = tuple(
    (name, "she", "her", "her") if n % 2 else (name, "he", "him", "his") for n, name in enumerate(_NAMES.split())
)

_THINGS = """apples pens marbles stickers coins books shells cards pencils eggs beads stamps cookies flowers stones
    buttons oranges toys balloons candies"""
THINGS = tuple(_THINGS.split())


# One step ------------------------------------------------------------------------------------------------------------


def sums(most: int) -> Plot:
    def draw(dice: Dice) -> Numbers:
        total = dice.between(4, most)
        first = dice.between(2, total - 2)
        return first, total - first

    return Plot("+", draw, lambda n: [(n[0], "+", n[1])], SUM_WORDINGS)


def differences(most: int) -> Plot:
    def draw(dice: Dice) -> Numbers:
        whole = dice.between(4, most)
        return whole, dice.between(2, whole - 1)

    return Plot("-", draw, lambda n: [(n[0], "-", n[1])], DIFFERENCE_WORDINGS)


def products(most: int) -> Plot:
    def draw(dice: Dice) -> Numbers:
        return dice.between(2, 9), dice.between(2, most)

    return Plot("*", draw, lambda n: [(n[0], "*", n[1])], PRODUCT_WORDINGS)


def quotients(most: int) -> Plot:
    def draw(dice: Dice) -> Numbers:
        parts = dice.between(2, 9)
        return parts * dice.between(2, most), parts

    return Plot("/", draw, lambda n: [(n[0], "/", n[1])], QUOTIENT_WORDINGS)


SUM_WORDINGS = (
    "{A} has {0} {things} and buys {1} more. How many {things} does {he} have now?",
    "{A} has {0} {things}. {B} has {1} {things}. How many do they have together?",
    "There are {0} {things} on the table and {1} in the box. How many {things} are there in all?",
    "{A} found {0} {things} in the morning and {1} in the evening. How many {things} did {he} find?",
    "{A} read {0} pages on Monday and {1} pages on Tuesday. How many pages did {he} read?",
    "{A} gave {0} {things} to {B} and kept {1}. How many {things} did {he} have at first?",
)

DIFFERENCE_WORDINGS = (
    "{A} has {0} {things} and gives {1} to {B}. How many {things} does {he} have left?",
    "{A} had {0} {things} but lost {1} of them. How many {things} are left?",
    "{A} has {0} {things}. {B} has {1}. How many more {things} does {A} have than {B}?",
    "There were {0} birds in a tree and {1} flew away. How many birds are still there?",
    "{A} wants {0} {things} and has {1}. How many more does {he} need?",
    "There are {0} {things} in two boxes. One box holds {1}. How many {things} are in the other?",
)

PRODUCT_WORDINGS = (
    "There are {0} bags with {1} {things} in each. How many {things} are there in all?",
    "{A} buys {0} tickets. Each ticket costs {1} dollars. How many dollars does {he} pay?",
    "{A} walks {1} miles every day. How many miles does {he} walk in {0} days?",
    "{A} has {0} boxes. Each box holds {1} {things}. How many {things} does {A} have?",
    "A hall has {0} rows of {1} chairs. How many chairs are in the hall?",
)

QUOTIENT_WORDINGS = (
    "{A} shares {0} {things} equally among {1} friends. How many {things} does each friend get?",
    "{A} puts {0} {things} into bags of {1}. How many bags does {he} fill?",
    "{0} children form {1} equal teams. How many children are in each team?",
    "{A} pays {0} dollars for {1} tickets. How many dollars does one ticket cost?",
    "A book has {0} pages. {A} reads {1} pages a day. How many days does it take?",
)

ONE_STEP: dict[int, tuple[Plot, ...]] = {
    1: (sums(20), differences(20)),
    2: (sums(100), differences(100)),
    3: (products(9), quotients(9)),
    4: (products(25), quotients(25), sums(500), differences(500)),
}
