"""Supervised training: items in a shuffled order, one step after another, whatever the objective.

The order is a matter of (seed, epoch) and the place of (step), so a run resumed from a checkpoint meets the items the
unbroken run met, and nothing but the step has to be remembered.
"""

import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import torch

from smallpress.optim.master import MasterWeights
from smallpress.optim.schedule import schedule
from smallpress.optim.spike_guard import SpikeGuard
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.train.objective import Objective
from smallpress.train.settings import TrainSettings
from smallpress.weights.checkpoint import load_trained, save_trained


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


class Trainer:
    """The state of a run and its `step`. Folders and the clock are the caller's."""

    def __init__(
        self,
        settings: TrainSettings,
        weights: MasterWeights,
        objective: Objective,
        items: Sequence[Any],
        held_out: Sequence[Any],
    ):
        self.weights, self.objective, self.items, self.held_out = weights, objective, items, held_out
        self.order = Order(len(items), settings.samples_per_step, settings.seed)
        self.settings = settings.model_copy(update={"steps": settings.steps or self.order.n_steps(settings.epochs)})
        self.lr_factor = schedule(settings.lr_shape, settings.warmup, self.settings.steps)
        self.guard = SpikeGuard(settings.max_grad_norm)
        self.n_done, self.n_skipped = 0, 0
        digest = blake2b(digest_size=16)
        for item in items:
            digest.update(objective.fingerprint(item).encode())
        self.data_digest = digest.hexdigest()

    def step(self) -> tuple[dict[str, float], None]:
        """One step; what is logged."""
        began = time.perf_counter()
        settings = self.settings
        items = [self.items[i] for i in self.order.at(self.n_done)]
        log = self.objective.accumulate(self.weights.model, items, self.n_done)
        log["grad_norm"] = self.weights.grad_norm()
        log["lr"] = settings.lr * self.lr_factor(self.n_done)
        log["skipped"] = 0.0 if self.guard.admits(log["grad_norm"]) else 1.0
        if log["skipped"]:
            self.weights.forget_gradient()
            self.n_skipped += 1
        else:
            self.weights.step(log["lr"], settings.max_grad_norm)
        self.n_done += 1
        log["epoch"] = self.n_done * self.order.per_step / self.order.n_items
        log["seconds/update"] = time.perf_counter() - began
        log["tokens_per_second"] = log["tokens"] / log["seconds/update"]
        return log, None

    def measure(self) -> dict[str, float]:
        """The objective on what is held out, under names that begin with eval/."""
        if not self.held_out:
            return {}
        measured = self.objective.measure(self.weights.model, self.held_out)
        return {f"eval/{name}": value for name, value in measured.items()}

    def save(self, path: Path, more: Mapping[str, Any]) -> None:
        save_trained(path, self, more)

    def load(self, path: Path, more: Sequence[str]) -> Mapping[str, Any]:
        return load_trained(path, self, more)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All arrays of the run; with `state` everything a bit-identical resume needs."""
        return dict(self.weights.tensors())

    def state(self) -> dict[str, Any]:
        return {
            "n_done": self.n_done,
            "n_skipped": self.n_skipped,
            "grad_norms": self.guard.lengths,
            "data": self.data_digest,
        }

    def restore(self, tensors: dict[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        if state["data"] != self.data_digest:
            raise UserError("the data are not those the run was begun with", "restore the files, or start a new run")
        self.weights.restore(tensors)
        self.n_done, self.n_skipped = state["n_done"], state["n_skipped"]
        self.guard = SpikeGuard(self.settings.max_grad_norm, state["grad_norms"])
