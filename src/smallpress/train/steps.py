"""One optimizer step after another: what every run that learns from given text has in common."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from smallpress.optim.master import MasterWeights
from smallpress.optim.spike_guard import SpikeGuard
from smallpress.run.errors import UserError
from smallpress.run.loop import Pace
from smallpress.train.objective import Objective
from smallpress.weights.checkpoint import load_trained, save_trained


class StepSettings(Pace, Protocol):
    @property
    def max_grad_norm(self) -> float: ...


class Steps(ABC):
    """The state of a run and its `step`. Folders and the clock are the caller's.

    A kind of training says in a subclass which items a step takes (`batch`), how fast it learns (`lr`), and what else
    belongs to a step (`admits`, `after`).
    """

    def __init__(
        self,
        settings: StepSettings,
        weights: MasterWeights,
        objective: Objective,
        held_out: Sequence[Any],
        data_digest: str,
    ):
        """`data_digest` differs where the data do: a run goes on with its own only."""
        self.settings, self.weights, self.objective = settings, weights, objective
        self.held_out, self.data_digest = held_out, data_digest
        self.guard = SpikeGuard(settings.max_grad_norm)
        self.n_done, self.n_skipped = 0, 0

    @abstractmethod
    def batch(self, step: int) -> Sequence[Any]:
        """The items of a step, counted from 0."""

    @abstractmethod
    def lr(self, step: int) -> float: ...

    def admits(self, log: Mapping[str, float]) -> bool:
        """Whether the gradient that was made may be used."""
        return self.guard.admits(log["grad_norm"])

    @abstractmethod
    def after(self, log: dict[str, float]) -> None:
        """What follows a step, taken or skipped; `log` may be added to."""

    def step(self) -> tuple[dict[str, float], None]:
        """One step; what is logged."""
        began = time.perf_counter()
        log = self.objective.accumulate(self.weights.model, self.batch(self.n_done), self.n_done)
        log["grad_norm"] = self.weights.grad_norm()
        log["lr"] = self.lr(self.n_done)
        log["skipped"] = 0.0 if self.admits(log) else 1.0
        if log["skipped"]:
            self.weights.forget_gradient()
            self.n_skipped += 1
        else:
            self.weights.step(log["lr"], self.settings.max_grad_norm)
        self.n_done += 1
        self.weights.end_step(self.n_done)
        self.after(log)
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
