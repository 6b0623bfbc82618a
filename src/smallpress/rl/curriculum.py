"""Which problems to ask: those the model solves sometimes. A problem always or never solved teaches nothing."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random

from smallpress.run.seeds import derive_seed

MEMORY = 0.7  # weight of the past in a running accuracy, per group seen
FLOOR = 0.05  # least weight of an open level: mastered ones are still asked now and then
HOPE = 0.3  # assumed accuracy of a level not yet asked


class Curriculum:
    """Chooses (family, level) pairs in proportion to p (1 - p) + FLOOR, p being the running accuracy.

    That product is the variance of a right-or-wrong reward: where it is largest, groups disagree most. The lowest level
    of each family is open; a level opens when the one below it reaches `unlock_at`, and stays open.
    """

    def __init__(self, pairs: Iterable[tuple[str, int]], unlock_at: float, enabled: bool = True):
        self.levels: dict[str, list[int]] = defaultdict(list)
        for family, level in pairs:
            self.levels[family].append(level)
        for levels in self.levels.values():
            levels.sort()
        self.unlock_at, self.enabled = unlock_at, enabled
        self.accuracy: dict[tuple[str, int], float] = {}
        self.n_open = {family: 1 if enabled else len(levels) for family, levels in self.levels.items()}

    def open_pairs(self) -> list[tuple[str, int]]:
        return [(family, level) for family, n in self.n_open.items() for level in self.levels[family][:n]]

    def choose(self, n: int, seed: int, step: int) -> list[tuple[str, int]]:
        """`n` pairs for this step. Families take turns; within one, levels are drawn by their weight."""
        dice = Random(derive_seed(seed, "curriculum", step))
        families = sorted(self.levels)
        dice.shuffle(families)
        return [self._level(families[i % len(families)], dice) for i in range(n)]

    def _level(self, family: str, dice: Random) -> tuple[str, int]:
        pairs = [(family, level) for level in self.levels[family][: self.n_open[family]]]
        if not self.enabled:
            return dice.choice(pairs)
        return dice.choices(pairs, weights=[self._weight(pair) for pair in pairs])[0]

    def _weight(self, pair: tuple[str, int]) -> float:
        p = self.accuracy.get(pair, HOPE)
        return p * (1 - p) + FLOOR

    def observe(self, pair: tuple[str, int], correct: Sequence[bool]) -> None:
        """Take in how one group at this pair went; may open the family's next level."""
        now = sum(correct) / len(correct)
        past = self.accuracy.get(pair)
        self.accuracy[pair] = now if past is None else MEMORY * past + (1 - MEMORY) * now
        family, level = pair
        n = self.n_open[family]
        at_border = self.levels[family][n - 1] == level
        if past is not None and at_border and n < len(self.levels[family]) and self.accuracy[pair] >= self.unlock_at:
            self.n_open[family] += 1

    def state(self) -> dict[str, object]:
        """JSON that `restore` takes back."""
        return {"accuracy": [[*pair, p] for pair, p in self.accuracy.items()], "n_open": dict(self.n_open)}

    def restore(self, state: dict) -> None:
        self.accuracy = {(family, level): p for family, level, p in state["accuracy"]}
        self.n_open = dict(state["n_open"])
