"""A run from its folder: start or go on, step, measure, write down, until the steps or the minutes are used up."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from smallpress.run.atomic import write_file
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import MetricsLog

Measure = Callable[[], dict[str, float]]
Say = Callable[[str], None]
Told = Callable[[Any], Any]
"""What the first of several processes says where each says something; JSON knows it."""


class Pace(Protocol):
    """How long a run goes on, and after how many steps what is written down."""

    @property
    def steps(self) -> int | None: ...
    @property
    def minutes(self) -> float | None: ...
    @property
    def eval_every(self) -> int: ...
    @property
    def save_every(self) -> int: ...


class Trainer(Protocol):
    """What a run moves: after `load` of what `save` wrote, `step` does what it would have done without a break."""

    n_done: int

    @property
    def settings(self) -> Pace: ...

    def step(self) -> tuple[dict[str, float], Any]:
        """What is logged, and what `Loop.samples` makes rows of."""
        ...

    def save(self, path: Path, more: Mapping[str, Any]) -> None:
        """Write a checkpoint that holds `more` beside the trainer's own state."""
        ...

    def load(self, path: Path, more: Sequence[str]) -> Mapping[str, Any]:
        """Take up a verified checkpoint; its whole state. Raises UserError where it does not fit, or lacks `more`."""
        ...


class Loop:
    """`go` may be killed at any moment: what it did since the last checkpoint the next one does again, bit for bit.

    `seconds` is what the run has taken by the end of its last step or measurement, all of it: writing too, but not
    what a kill made it do twice. A kind of run says in a subclass what it shows and warns of.

    Of many processes with one run each goes its loop, the first in the run's folder, the others in scratch ones: they
    do what the first says of checkpoints and of the time.
    """

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        measure: Measure,
        used: float = 0.0,
        reserve: float = 0.0,
        told: Told = lambda value: value,
    ):
        """`used` seconds went by before the first step, `reserve` are needed after the last; `minutes` holds both."""
        self.folder, self.trainer, self.measure, self.told = folder, trainer, measure, told
        self.seconds, self.reserve = used, reserve
        self._began = time.perf_counter() - used

    def samples(self, step: int, seen: Any) -> list[dict[str, Any]]:
        """The rows written to samples/ for what this step has seen; none: no file is written."""
        return []

    def warnings(self, metrics: dict[str, float]) -> list[str]:
        """Sentences for the person about this step."""
        return []

    def after_step(self, metrics: Mapping[str, float]) -> None:
        """What a step calls for that needs the folder, before anything of it is measured or written."""

    def after_measuring(self) -> None:
        """Undo what a measurement leaves behind that a resumed run would not have."""

    def go(self, on_step: Callable[[int, dict[str, float]], None], say: Say) -> None:
        """Raises UserError where the disk refuses; then the last checkpoint stands."""
        with self.folder.writing(), MetricsLog(self.folder.metrics) as log:
            log.truncate_after(self._restore(say))
            self._forget_samples()
            if self.told(self.trainer.n_done == 0 and not log.read()):
                log.write(0, self._measured() | {"minutes": self.seconds / 60})
            while not self.over:
                on_step(*self._one(log, say))
            if self.told(self.folder.checkpoints.path_of(self.trainer.n_done).is_dir()):
                return
            self._save()

    @property
    def over(self) -> bool:
        settings = self.trainer.settings
        out_of_steps = settings.steps is not None and self.trainer.n_done >= settings.steps
        return out_of_steps or (settings.minutes is not None and self.seconds + self.reserve >= 60 * settings.minutes)

    def _one(self, log: MetricsLog, say: Say) -> tuple[int, dict[str, float]]:
        metrics, seen = self.trainer.step()
        self.after_step(metrics)
        self._look_at_clock()
        step, settings = self.trainer.n_done, self.trainer.settings
        if step % settings.eval_every == 0 or self.over:
            metrics |= self._measured()
        for sentence in self.warnings(metrics):
            say(f"step {step}: {sentence}")
        self._write_samples(step, self.samples(step, seen))
        log.write(step, metrics | {"minutes": self.seconds / 60})
        if step % settings.save_every == 0:
            self._save()
        return step, metrics

    def _measured(self) -> dict[str, float]:
        began = time.perf_counter()
        measured = self.measure()
        self.after_measuring()
        self._look_at_clock()
        return measured | {"seconds/eval": time.perf_counter() - began}

    def _look_at_clock(self) -> None:
        """Only here: `over` must not change between a step's decision to measure and the end of the step."""
        self.seconds = self.told(time.perf_counter() - self._began)

    def _save(self) -> None:
        step = self.trainer.n_done
        self.trainer.save(self.folder.checkpoints.path_of(step), {"seconds": self.seconds})
        self.folder.checkpoints.settle(step)

    def _restore(self, say: Say) -> int:
        """Take up the newest whole checkpoint; its step, or -1 where there is none, so that all is done again."""
        newest = self.folder.checkpoints.newest(on_damage=say)
        path = self.told(None if newest is None else str(newest.path))
        if path is None:
            return -1
        state = self.trainer.load(Path(path), ["seconds"])
        step = self.trainer.n_done
        self.folder.checkpoints.forget_after(step)  # damaged ones, whose names are needed again
        self.seconds = state["seconds"]
        self._began = time.perf_counter() - self.seconds
        say(f"going on from step {step}")
        return step

    def _forget_samples(self) -> None:
        for file in self.folder.samples.iterdir():
            if (name := re.fullmatch(r"step-(\d+)\.jsonl", file.name)) and int(name[1]) > self.trainer.n_done:
                file.unlink()

    def _write_samples(self, step: int, rows: list[dict[str, Any]]) -> None:
        if rows:
            lines = "".join(json.dumps({"step": step} | row, ensure_ascii=False) + "\n" for row in rows)
            write_file(self.folder.samples / f"step-{step:06}.jsonl", lines.encode())
