"""What the families of generated problems share: draw a problem, see on which side its key lies, put it in words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.check import Checked
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example, Split, split_of

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Posed:
    """A problem put into words. `steps` as the family counts them; `meta` what its checker needs besides."""

    prompt: str
    reference: str
    steps: int
    thought: str
    meta: dict[str, Any] = field(default_factory=dict)


class Family(Checked, ABC, Generic[P]):
    """A kind of problem with levels of difficulty, the first level the easiest.

    A family draws a problem (numbers, a story), gives its key and puts it in words. The wording may vary from draw
    to draw; the key may not depend on it.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[int, ...]]
    level_means: ClassVar[str]  # for people: what the level sets
    step_means: ClassVar[str]  # for people: what one reasoning step is

    @abstractmethod
    def draw(self, level: int, dice: Dice) -> P: ...

    @abstractmethod
    def key(self, problem: P) -> str: ...

    @abstractmethod
    def pose(self, problem: P, dice: Dice) -> Posed: ...

    def examples(self, split: Split, seed: int, level: int) -> Iterator[Example]:
        """Endless examples of one split and level, the same for the same arguments on every machine.

        Raises UserError for a level that the family does not have.
        """
        if level not in self.levels:
            known = ", ".join(map(str, self.levels))
            raise UserError(f"{self.name} has no level {level}", f"choose one of {known}")
        return self._endless(split, Dice(derive_seed("tasks", self.name, split, level, seed)), level)

    def _endless(self, split: Split, dice: Dice, level: int) -> Iterator[Example]:
        while True:
            problem = self.draw(level, dice)
            key = self.key(problem)
            if split_of(key) == split:
                posed = self.pose(problem, dice)
                meta = {"steps": posed.steps, "thought": posed.thought, **posed.meta}
                yield Example(posed.prompt, posed.reference, self.name, level, key, meta)
