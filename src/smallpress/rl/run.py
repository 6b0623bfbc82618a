"""A run from its folder: start or go on, step, measure, write down, until the steps or the minutes are used up."""

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from smallpress.rl.rollout import RolloutGroup
from smallpress.rl.trainer import Trainer
from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import MetricsLog
from smallpress.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

N_SAMPLES = 4
"""Rollouts written to samples/ each time, of different prompts where there are as many."""

Measure = Callable[[], dict[str, float]]
Say = Callable[[str], None]


class Run:
    """`go` may be killed at any moment: what it did since the last checkpoint the next one does again, bit for bit.

    `seconds` is what the run has taken by the end of its last step or measurement, all of it: writing too, but not
    what a kill made it do twice.
    """

    def __init__(self, folder: RunFolder, trainer: Trainer, measure: Measure, used: float = 0.0, reserve: float = 0.0):
        """`used` seconds went by before the first step, `reserve` are needed after the last; `minutes` holds both."""
        self.folder, self.trainer, self.measure = folder, trainer, measure
        self.seconds, self.reserve = used, reserve
        self._began = time.perf_counter() - used

    def go(self, on_step: Callable[[int, dict[str, float]], None], say: Say) -> None:
        """Raises UserError where the disk refuses; then the last checkpoint stands."""
        with self.folder.writing(), MetricsLog(self.folder.metrics) as log:
            log.truncate_after(self._restore(say))
            self._forget_samples()
            if self.trainer.n_done == 0 and not log.read():
                log.write(0, self._measured() | {"minutes": self.seconds / 60})
            while not self.over:
                on_step(*self._one(log, say))
            if self.folder.checkpoints.path_of(self.trainer.n_done).is_dir():
                return
            self._save()

    @property
    def over(self) -> bool:
        settings = self.trainer.settings
        out_of_steps = settings.steps is not None and self.trainer.n_done >= settings.steps
        return out_of_steps or (settings.minutes is not None and self.seconds + self.reserve >= 60 * settings.minutes)

    def _one(self, log: MetricsLog, say: Say) -> tuple[int, dict[str, float]]:
        metrics, groups = self.trainer.step()
        self._look_at_clock()
        step, settings = self.trainer.n_done, self.trainer.settings
        if step % settings.eval_every == 0 or self.over:
            metrics |= self._measured()
        for sentence in self.trainer.alarms.check(metrics):
            say(f"step {step}: {sentence}")
        if step % settings.samples_every == 0 or step == 1:
            self._write_samples(step, groups)
        log.write(step, metrics | {"minutes": self.seconds / 60})
        if step % settings.save_every == 0:
            self._save()
        return step, metrics

    def _measured(self) -> dict[str, float]:
        began = time.perf_counter()
        measured = self.measure()
        # Pages the measurement left behind would be shared by the next rollouts; a resumed run would not have them.
        self.trainer.engine.release()
        self._look_at_clock()
        return measured | {"seconds/eval": time.perf_counter() - began}

    def _look_at_clock(self) -> None:
        """Only here: `over` must not change between a step's decision to measure and the end of the step."""
        self.seconds = time.perf_counter() - self._began

    def _save(self) -> None:
        step = self.trainer.n_done
        state = self.trainer.state() | {"seconds": self.seconds}
        save_checkpoint(self.folder.checkpoints.path_of(step), self.trainer.tensors(), json.loads(json.dumps(state)))
        self.folder.checkpoints.settle(step)

    def _restore(self, say: Say) -> int:
        """Take up the newest whole checkpoint; its step, or -1 where there is none, so that all is done again."""
        newest = self.folder.checkpoints.newest(on_damage=say)
        if newest is None:
            return -1
        checkpoint = load_checkpoint(newest.path, verify=False)  # `newest` has just verified it
        tensors = {name: checkpoint.read(name) for name in checkpoint}
        self._check_fit(checkpoint, tensors)
        self.trainer.restore(tensors, checkpoint.state)
        self.folder.checkpoints.forget_after(newest.step)  # damaged ones, whose names are needed again
        self.seconds = checkpoint.state["seconds"]
        self._began = time.perf_counter() - self.seconds
        say(f"going on from step {newest.step}")
        return newest.step

    def _check_fit(self, checkpoint: Checkpoint, tensors: dict[str, torch.Tensor]) -> None:
        """The checkpoint is of this model under these settings, and of a version that wrote down the same state."""
        for key in self.trainer.state() | {"seconds": 0.0}:
            if key not in checkpoint.state:
                raise UserError(f"{checkpoint.path} has no {key}", "go on with the smallpress that wrote it")
        for name, tensor in self.trainer.tensors().items():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise UserError(f"{checkpoint.path} is of another model: {name} differs", "restore the run's model")

    def _forget_samples(self) -> None:
        for file in self.folder.samples.iterdir():
            if (name := re.fullmatch(r"step-(\d+)\.jsonl", file.name)) and int(name[1]) > self.trainer.n_done:
                file.unlink()

    def _write_samples(self, step: int, groups: Sequence[RolloutGroup]) -> None:
        rows: list[dict[str, Any]] = []
        for group in groups[:N_SAMPLES]:
            rollout = max(group.rollouts, key=lambda rollout: rollout.reward)
            rows.append(
                {
                    "step": step,
                    "family": group.example.family,
                    "level": group.example.level,
                    "prompt": group.example.prompt,
                    "reference": group.example.reference,
                    "completion": rollout.text,
                    "reward": rollout.reward,
                    "rewards": dict(rollout.parts),
                    "finish_reason": rollout.completion.finish_reason,
                }
            )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_file(self.folder.samples / f"step-{step:06}.jsonl", lines.encode())


def compute_dtype(choice: str) -> torch.dtype:
    """ "auto" is what this machine multiplies faster, measured on one product of the update's shape."""
    if choice != "auto":
        return torch.bfloat16 if choice == "bfloat16" else torch.float32
    seconds = {dtype: _seconds_of_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(seconds, key=lambda dtype: seconds[dtype])


def _seconds_of_product(dtype: torch.dtype) -> float:
    a, b = torch.ones(512, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    laps = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        laps.append(time.perf_counter() - began)
    return min(laps)
