"""Supervised training: items in a shuffled order, one step after another, whatever the objective.

The order is a matter of (seed, epoch) and the place of (step), so a run resumed from a checkpoint meets the items the
unbroken run met, and nothing but the step has to be remembered.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any

from smallpress.optim.master import MasterWeights
from smallpress.optim.schedule import schedule
from smallpress.run.seeds import derive_seed
from smallpress.train.objective import Objective
from smallpress.train.settings import TrainSettings
from smallpress.train.steps import Steps


class Order:
    """Which items each step takes: all of them once an epoch, in an order of its own."""

    def __init__(self, n_items: int, per_step: int, seed: int):
        assert n_items > 0, "an order of nothing"
        self.n_items, self.per_step, self.seed = n_items, per_step, seed
        self._shuffled = lru_cache(maxsize=2)(self._shuffle)

    def n_steps(self, epochs: float) -> int:
        """Steps that meet every item `epochs` times; the last may go on into the next epoch."""
        return max(1, math.ceil(epochs * self.n_items / self.per_step))

    def at(self, step: int) -> list[int]:
        """Places of the items of a step, counted from 0."""
        first = step * self.per_step
        return [self._shuffled(k // self.n_items)[k % self.n_items] for k in range(first, first + self.per_step)]

    def _shuffle(self, epoch: int) -> list[int]:
        places = list(range(self.n_items))
        Random(derive_seed(self.seed, "epoch", epoch)).shuffle(places)
        return places


class Trainer(Steps):
    """Items in a shuffled order, every one once an epoch."""

    settings: TrainSettings

    def __init__(
        self,
        settings: TrainSettings,
        weights: MasterWeights,
        objective: Objective,
        items: Sequence[Any],
        held_out: Sequence[Any],
    ):
        self.order = Order(len(items), settings.samples_per_step, settings.seed)
        settings = settings.model_copy(update={"steps": settings.steps or self.order.n_steps(settings.epochs)})
        digest = blake2b(digest_size=16)
        for item in items:
            digest.update(objective.fingerprint(item).encode())
        super().__init__(settings, weights, objective, held_out, digest.hexdigest())
        self.items = items
        self.lr_factor = schedule(settings.lr_shape, settings.warmup, settings.steps)

    def batch(self, step: int) -> list[Any]:
        return [self.items[i] for i in self.order.at(step)]

    def lr(self, step: int) -> float:
        return self.settings.lr * self.lr_factor(step)

    def after(self, log: dict[str, float]) -> None:
        log["epoch"] = self.n_done * self.order.per_step / self.order.n_items
