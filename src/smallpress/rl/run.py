"""A run of reinforcement learning: the loop every run shares, and what is peculiar to rollouts."""

from collections.abc import Sequence
from typing import Any

from smallpress.rl.rollout import RolloutGroup
from smallpress.rl.trainer import Trainer
from smallpress.run.folder import RunFolder
from smallpress.run.loop import Loop, Measure

N_SAMPLES = 4
"""Rollouts written to samples/ each time, of different prompts where there are as many."""


class Run(Loop):
    trainer: Trainer

    def __init__(self, folder: RunFolder, trainer: Trainer, measure: Measure, used: float = 0.0, reserve: float = 0.0):
        super().__init__(folder, trainer, measure, used, reserve)

    def samples(self, step: int, seen: Sequence[RolloutGroup]) -> list[dict[str, Any]]:
        """The best rollout of each of a few groups, now and then."""
        rows: list[dict[str, Any]] = []
        if step != 1 and step % self.trainer.settings.samples_every:
            return rows
        for group in seen[:N_SAMPLES]:
            rollout = max(group.rollouts, key=lambda rollout: rollout.reward)
            rows.append(
                {
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
        return rows

    def warnings(self, metrics: dict[str, float]) -> list[str]:
        return self.trainer.alarms.check(metrics)

    def after_measuring(self) -> None:
        """Pages the measurement left behind would be shared by the next rollouts; a resumed run would not have them."""
        self.trainer.engine.release()
