"""The registry of tasks and the mixtures drawn from them."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.arithmetic import Addition, ChainedSum, Product, Subtraction
from smallpress.tasks.bases import Bases
from smallpress.tasks.check import Checker
from smallpress.tasks.comparison import Largest, Ordering
from smallpress.tasks.countdown import Countdown
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example, Reading, Split, Verdict, split_of, worked_completion
from smallpress.tasks.family import Family
from smallpress.tasks.knights import KnightsKnaves
from smallpress.tasks.letters import Letters
from smallpress.tasks.sequences import Sequence
from smallpress.tasks.small_functions import SmallFunctions
from smallpress.tasks.sorting import Sorting
from smallpress.tasks.stories import ManyStepStory, OneStepStory

__all__ = [
    "FAMILIES",
    "TASKS",
    "Example",
    "Reading",
    "Split",
    "Task",
    "Verdict",
    "find_task",
    "held_out_set",
    "mixed",
    "split_of",
    "worked_completion",
]


class Task(Checker, Protocol):
    """Questions whose answers a program can check."""

    @property
    def name(self) -> str: ...

    @property
    def levels(self) -> tuple[int, ...]: ...

    def examples(self, split: Split, seed: int, level: int) -> Iterator[Example]:
        """Endless; the two splits have no key in common. Raises UserError for an unknown level."""
        ...


FAMILIES: tuple[Family[Any], ...] = (
    ChainedSum(),
    Addition(),
    Subtraction(),
    Product(),
    OneStepStory(),
    ManyStepStory(),
    Countdown(),
    Sequence(),
    Sorting(),
    Letters(),
    Bases(),
    Largest(),
    Ordering(),
    KnightsKnaves(),
    SmallFunctions(),
)

TASKS: dict[str, Task] = {family.name: family for family in FAMILIES}


def find_task(name: str) -> Task:
    """The task of that name. Raises UserError naming the nearest one."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(TASKS)}"
    raise UserError(f"there is no task {name!r}", remedy)


def held_out_set(families_and_levels: Iterable[tuple[str, int]], n_each: int, seed: int) -> list[Example]:
    """Held-out examples, `n_each` of every (family, level), no key twice in the whole set.

    A level with few problems (the sums of two one-digit numbers are 45, of which 9 are held out) gives all it
    has: count what comes back. Raises UserError for an unknown family or level.
    """
    found: list[Example] = []
    keys: set[str] = set()
    for name, level in families_and_levels:
        n, vain = 0, 0
        for example in find_task(name).examples("held_out", seed, level):
            if n == n_each or vain > 2000:
                break
            if example.key in keys:
                vain += 1
            else:
                keys.add(example.key)
                found.append(example)
                n, vain = n + 1, 0
    return found


def mixed(families_and_levels: Iterable[tuple[str, int]], split: Split, seed: int) -> Iterator[Example]:
    """Endless examples, each from one of the (family, level) pairs with equal chance."""
    streams = [find_task(name).examples(split, seed, level) for name, level in families_and_levels]
    assert streams, "a mixture of nothing"
    dice = Dice(derive_seed("mixed", split, seed))
    return (next(dice.pick(streams)) for _ in itertools.count())
