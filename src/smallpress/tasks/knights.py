"""Knights and knaves (Raymond Smullyan): knights always tell the truth, knaves always lie.

A world says who is a knight: an integer whose bit p is set where person p is one. A set of worlds is an integer too,
with bit w set for world w. A speaker can say a statement in the worlds where the speaker is a knight and it is true,
or a knave and it is false; a puzzle is good if everyone can speak in exactly one world.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import permutations

from smallpress.tasks.answers import clean
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example
from smallpress.tasks.family import Family, Posed
from smallpress.tasks.plots import PEOPLE

Literal = tuple[int, bool]  # person, whether a knight
# "is" (j, kind); "same" (j, yes or no); "some" and "all" (anyone, kind): these carry their one literal twice;
# "and", "or", "if" carry two.
Statement = tuple[str, Literal, Literal]
Puzzle = tuple[Statement, ...]  # what person 0, 1 .. says

KINDS = ("knave", "knight")


def is_true(statement: Statement, speaker: int, knights: list[bool]) -> bool:
    """Whether a statement holds where `knights[p]` says that person p is a knight."""
    form, (i, a), (j, b) = statement
    if form == "is":
        return knights[i] == a
    if form == "same":
        return (knights[i] == knights[speaker]) == a
    if form == "some":
        return a in knights
    if form == "all":
        return (not a) not in knights
    left, right = knights[i] == a, knights[j] == b
    return (left and right) if form == "and" else (left or right) if form == "or" else (not left or right)


@lru_cache(maxsize=1 << 12)
def worlds_to_say(statement: Statement, speaker: int, n: int) -> int:
    """The set of worlds of n people in which the speaker can say the statement.

    >>> bin(worlds_to_say(("is", (1, False), (1, False)), 0, 2))  # one of the two is a knight: worlds 1 and 2
    '0b110'
    """
    worlds = 0
    for world in range(2**n):
        knights = [bool(world >> p & 1) for p in range(n)]
        worlds |= (is_true(statement, speaker, knights) == knights[speaker]) << world
    return worlds


def solutions(puzzle: Puzzle) -> int:
    """The set of worlds in which everyone can speak."""
    n = len(puzzle)
    worlds = (1 << 2**n) - 1
    for speaker, statement in enumerate(puzzle):
        worlds &= worlds_to_say(statement, speaker, n)
    return worlds


@lru_cache(maxsize=1 << 16)
def _canonical(puzzle: Puzzle) -> str:
    """The same for puzzles that differ only in who is who."""
    n = len(puzzle)
    forms = []
    for place in permutations(range(n)):
        moved: list[str] = [""] * n
        for p, (form, (i, a), (j, b)) in enumerate(puzzle):
            parts = [f"{place[i]}{KINDS[a]}", f"{place[j]}{KINDS[b]}"]
            moved[place[p]] = form + " " + " ".join(sorted(parts) if form in ("and", "or") else parts)
        forms.append("; ".join(moved))
    return min(forms)


class KnightsKnaves(Family[Puzzle]):
    """Ann says: "Ben is a knave." Ben says: "We are of the same kind." Who is what? One solution, by brute force."""

    name = "knights_knaves"
    levels = (1, 2, 3)
    level_means = "two people; three people; three people who also say and, or, if (as the two do)"
    step_means = "trying one way to be knights and knaves (all are tried: 4 for two people, 8 for three)"

    def draw(self, level: int, dice: Dice) -> Puzzle:
        n = 2 if level == 1 else 3
        while True:
            puzzle = tuple(_statement(speaker, n, level != 2, dice) for speaker in range(n))
            if solutions(puzzle).bit_count() == 1:
                return puzzle

    def key(self, problem: Puzzle) -> str:
        return f"knights:{_canonical(problem)}"

    def pose(self, problem: Puzzle, dice: Dice) -> Posed:
        n = len(problem)
        names = [person[0] for person in dice.sample(PEOPLE, n)]
        said = [f'{names[p]} says: "{_spoken(statement, p, names)}"' for p, statement in enumerate(problem)]
        lines = []
        for world in range(2**n):
            wrong = [names[p] for p in range(n) if not worlds_to_say(problem[p], p, n) >> world & 1]
            lines.append(f"{_roles(names, world)}: {wrong[0] + ' could not say that' if wrong else 'it fits'}.")
        solution = _roles(names, solutions(problem).bit_length() - 1)
        prompt = f"Knights tell the truth, knaves lie. {' '.join(said)} Who is a knight and who is a knave?"
        return Posed(prompt, solution, 2**n, " ".join(lines), {"people": names})

    def fault(self, example: Example, answer: str) -> str | None:
        """Each person once, each with one role: "Ann knight, Ben knave" or "Ann is a knight and Ben is a knave"."""
        people = {name.casefold(): name for name in example.meta["people"]}
        words = re.findall(r"[^\W\d_]+|[^\s,.:;=-]", clean(answer).casefold())
        words = [word for word in words if word not in ("is", "a", "and")]
        roles = dict(zip(words[::2], words[1::2], strict=False))
        if len(words) != 2 * len(people) or set(roles) != set(people) or not set(roles.values()) <= set(KINDS):
            return "does not give everyone one role"
        said = ", ".join(f"{name} {roles[folded]}" for folded, name in people.items())
        return None if said == example.reference else f"not {example.reference}"


def _statement(speaker: int, n: int, compound: bool, dice: Dice) -> Statement:
    other = dice.pick([p for p in range(n) if p != speaker])
    kind = bool(dice.below(2))
    if compound and dice.below(4):
        i, j = sorted((other, dice.pick([p for p in range(n) if p != other])))
        first, second = (i, kind), (j, bool(dice.below(2)))
        form = dice.pick(("and", "or", "if"))
        return (form, second, first) if form == "if" and dice.below(2) else (form, first, second)
    form = dice.pick(("is", "is", "same", "some", "all"))
    about = (0, kind) if form in ("some", "all") else (other, kind)
    return form, about, about


def _spoken(statement: Statement, speaker: int, names: list[str]) -> str:
    form, (i, a), (j, b) = statement
    if form == "is":
        return f"{names[i]} is a {KINDS[a]}."
    if form == "same":
        return f"{names[i]} and I are {'of the same kind' if a else 'different'}."
    if form == "some":
        return f"At least one of us is a {KINDS[a]}."
    if form == "all":
        return f"{'Both' if len(names) == 2 else 'All'} of us are {KINDS[a]}s."
    left, right = (f"{'I am' if p == speaker else names[p] + ' is'} a {KINDS[kind]}" for p, kind in ((i, a), (j, b)))
    return f"If {left}, then {right}." if form == "if" else f"{left} {form} {right}."


def _roles(names: list[str], world: int) -> str:
    return ", ".join(f"{name} {KINDS[world >> p & 1]}" for p, name in enumerate(names))
