"""Reinforcement learning with checkable rewards: ask, roll out, judge, update; whichever algorithm.

A step in order: the curriculum chooses problems, the engine answers each G times, rewards become advantages, groups
that agree are left out, the rest is packed and trained on, the new weights go to the engine. Randomness is named by
(seed, step), so a run resumed from a checkpoint draws what the unbroken run drew.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch

from smallpress.engine.engine import Engine
from smallpress.model.transformer import Transformer
from smallpress.optim.master import MasterWeights
from smallpress.optim.schedule import schedule
from smallpress.optim.spike_guard import SpikeGuard
from smallpress.rl.alarms import Alarms, repeated_share
from smallpress.rl.algorithm import Clip
from smallpress.rl.algorithms import ALGORITHMS
from smallpress.rl.curriculum import Curriculum
from smallpress.rl.general import drawn
from smallpress.rl.judges import Judges
from smallpress.rl.loss import Leash, token_losses
from smallpress.rl.packing import MicroBatch, Trained, TrainedGroup, pack
from smallpress.rl.policy import accumulate, frozen_logprobs
from smallpress.rl.rollout import Rollout, RolloutGroup, Sampler, Speech
from smallpress.rl.selection import most_varied
from smallpress.rl.settings import GRPOSettings
from smallpress.rl.thermostat import Thermostat
from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example
from smallpress.tasks.task import Task
from smallpress.weights.checkpoint import load_trained, save_trained

MAX_ROUNDS = 4
"""Dynamic sampling asks at most this many times a step before it trains on what it has."""


class Trainer:
    """The state of a run and its `step`. Folders, evaluation and the clock are the caller's."""

    def __init__(
        self,
        settings: GRPOSettings,
        weights: MasterWeights,
        engine: Engine,
        speech: Speech,
        tasks: Mapping[str, Task],
        judges: Judges | None = None,
        general: Sequence[Example] = (),
    ):
        """`general`: prompts without an answer that `tasks` could check; the judges reward what is said to them."""
        self.settings, self.weights, self.engine, self.tasks = settings, weights, engine, tasks
        self.algorithm = ALGORITHMS[settings.algorithm]
        own = self.algorithm.clip
        self.clip = Clip(settings.clip_low or own.low, settings.clip_high or own.high)
        self.leash = Leash(settings.beta, settings.sampler_cap)
        self.sampler = Sampler(
            engine,
            speech,
            settings.rewards,
            settings.group_size,
            settings.max_tokens,
            settings.seed,
            judges,
            settings.judges_from_step,
        )
        self.judges, self.general = judges, general
        self.heat = Thermostat(settings.temperature, settings.max_temperature, settings.target_entropy)
        self.curriculum = Curriculum(settings.pairs, settings.unlock_at, settings.curriculum)
        self.lr_factor = schedule(settings.lr_shape, settings.warmup, settings.steps)
        self.alarms, self.guard = Alarms(), SpikeGuard(settings.max_grad_norm)
        self.reference = self._snapshot() if settings.beta else None
        self.n_done = 0

    def step(self) -> tuple[dict[str, float], list[RolloutGroup]]:
        """One step; what is logged, and every rollout it saw."""
        began = time.perf_counter()
        self.sampler.judging = 0.0
        groups, n_asked = self._roll_out()
        self.engine.release()  # what its cache held is for the update
        rolled = time.perf_counter()
        metrics = self._describe(groups, n_asked)
        metrics |= self._update([self._chosen(group) for group in groups if self._teaches(group)])
        metrics["temperature"] = self.heat.temperature
        self.heat.observe(metrics.get("entropy", 0.0))
        self.engine.update_weights(self.weights.master)
        self.n_done += 1
        if self.reference is not None and self.n_done % self.settings.ref_reset_every == 0:
            self.reference = self._snapshot()
        metrics["seconds/rollout"] = rolled - began - self.sampler.judging
        if self.sampler.judging:
            metrics["seconds/judging"] = self.sampler.judging
        metrics["seconds/update"] = time.perf_counter() - rolled
        return metrics, groups

    def _roll_out(self) -> tuple[list[RolloutGroup], int]:
        """Groups for this step; with dynamic sampling, until enough of them disagree."""
        wanted, n_asked = self.settings.prompts_per_step, 0
        groups: list[RolloutGroup] = []
        for _ in range(MAX_ROUNDS if self.algorithm.dynamic_sampling else 1):
            missing = wanted - sum(group.sound and not group.degenerate for group in groups)
            if missing <= 0:
                break
            general = self._general(missing, n_asked)
            pairs = self.curriculum.choose(
                missing - len(general), derive_seed(self.settings.seed, n_asked), self.n_done
            )
            asked = [self._problem(pair, n_asked + i) for i, pair in enumerate(pairs)]
            new = self.sampler.groups([*asked, *general], self.n_done, self.heat.temperature, first=n_asked)
            for pair, group in zip(pairs, new[: len(pairs)], strict=True):
                self.curriculum.observe(pair, [bool(rollout.correct) for rollout in group.rollouts])
            groups += new
            n_asked += missing
        return groups, n_asked

    def _general(self, n_prompts: int, first: int) -> list[tuple[None, Example]]:
        """Those of so many prompts that nothing can check."""
        settings = self.settings
        n = settings.n_general(n_prompts) if self.n_done >= settings.judges_from_step else 0
        return [(None, example) for example in drawn(self.general, n, settings.seed, self.n_done, first)]

    def _problem(self, pair: tuple[str, int], index: int) -> tuple[Task | None, Example]:
        family, level = pair
        seed = derive_seed(self.settings.seed, "problem", self.n_done, index)
        return self.tasks[family], next(self.tasks[family].examples("train", seed, level))

    def _teaches(self, group: RolloutGroup) -> bool:
        """A group that agrees has no advantage; only the KL term could still use it."""
        return group.sound and (not group.degenerate or self.reference is not None)

    def _chosen(self, group: RolloutGroup) -> RolloutGroup:
        places = most_varied(group.rewards, self.settings.train_on or len(group.rollouts))
        return replace(group, rollouts=tuple(group.rollouts[i] for i in places))

    def _update(self, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        if not groups:
            return {"skipped_empty": 1.0, "grad_norm": 0.0}
        n = min(self.settings.updates_per_rollout, len(groups))
        minibatches = [pack(self._weighted(groups[i::n]), self.settings.micro_batch_tokens) for i in range(n)]
        old = None
        if n > 1:
            old = [frozen_logprobs(self.weights.model, batches, self.heat.temperature) for batches in minibatches]
        logs = [self._one_update(batches, old[i] if old else None) for i, batches in enumerate(minibatches)]
        # One entry an update; a key that only some have (a skipped one) is averaged over those.
        keys = dict.fromkeys(key for log in logs for key in log)
        return {key: fmean([log[key] for log in logs if key in log]) for key in keys}

    def _one_update(self, batches: list[MicroBatch], old: list[torch.Tensor] | None) -> dict[str, float]:
        settings = self.settings
        ref = frozen_logprobs(self.reference, batches, self.heat.temperature) if self.reference is not None else None
        log = accumulate(self.weights, batches, old, ref, self.heat.temperature, self._token_loss)
        log["grad_norm"] = self.weights.grad_norm()
        log["lr"] = settings.lr * self.lr_factor(self.n_done)
        if self.guard.admits(log["grad_norm"]):
            self.weights.step(log["lr"], settings.max_grad_norm)
            log["skipped"] = 0.0
        else:
            self.weights.forget_gradient()
            log["skipped"] = 1.0
        return log

    def _token_loss(self, terms: Any, batch: MicroBatch, ref_P: torch.Tensor | None) -> Any:
        return token_losses(self.algorithm, self.clip, self.leash, terms, batch.sampler_logprobs_P, ref_P)

    def _weighted(self, groups: Sequence[RolloutGroup]) -> list[TrainedGroup]:
        lens = [len(rollout.completion.ids) for group in groups for rollout in group.rollouts]
        weights = iter(self.algorithm.token_weights(lens, self.settings.max_tokens))
        return [
            TrainedGroup(
                group.prompt_ids,
                tuple(
                    Trained(rollout.completion.ids, rollout.completion.logprobs, advantage, next(weights))
                    for rollout, advantage in zip(group.rollouts, self.algorithm.advantages(group.rewards), strict=True)
                ),
            )
            for group in groups
        ]

    def _describe(self, groups: Sequence[RolloutGroup], n_asked: int) -> dict[str, float]:
        """The metrics of the rollouts; names as TRL's where it has one."""
        sound = [group for group in groups if group.sound]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        checked = [rollout.correct for rollout in rollouts if rollout.correct is not None]
        lens = [len(rollout.completion.ids) for rollout in rollouts]
        cut = [rollout.completion.finish_reason == "length" for rollout in rollouts]
        metrics = {
            "reward": fmean(reward for group in sound for reward in group.rewards) if sound else math.nan,
            "reward_std": fmean(pstdev(group.rewards) for group in sound) if sound else math.nan,
            "accuracy": fmean(checked) if checked else math.nan,
            "frac_reward_zero_std": fmean(group.degenerate for group in groups),
            "completions/mean_length": fmean(lens),
            "completions/max_length": max(lens),
            "completions/clipped_ratio": fmean(cut),
            "completions/repeated_share": fmean(repeated_share(rollout.completion.ids) for rollout in rollouts),
            "skipped_groups": len(groups) - len(sound),
            "n_prompts": n_asked,
            "n_levels_open": len(self.curriculum.open_pairs()),
        }
        for name in self.settings.rewards:
            if values := [rollout.parts[name] for rollout in rollouts if name in rollout.parts]:
                metrics[f"rewards/{name}/mean"] = fmean(values)
        return metrics | self._judges_say(rollouts)

    def _judges_say(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Each judge's mean, and the share of answers that it failed to score."""
        said = {}
        for name in self.judges.weights() if self.judges is not None else ():
            values = [rollout.parts[name] for rollout in rollouts if name in rollout.parts]
            scores = [value for value in values if not math.isnan(value)]
            if values:
                said[f"judges/{name}/failed"] = 1 - len(scores) / len(values)
            if scores:
                said[f"rewards/{name}/mean"] = fmean(scores)
        return said

    def _snapshot(self) -> Transformer:
        """A frozen copy of the policy to hold it near."""
        twin = Transformer(self.weights.model.config).to(self.weights.dtype).requires_grad_(False)
        twin.load_state_dict(self.weights.model.state_dict())
        return twin

    def save(self, path: Path, more: Mapping[str, Any]) -> None:
        save_trained(path, self, more)

    def load(self, path: Path, more: Sequence[str]) -> Mapping[str, Any]:
        return load_trained(path, self, more)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All arrays of the run; with `state` everything a bit-identical resume needs."""
        found = dict(self.weights.tensors())
        if self.reference is not None:
            found |= {f"reference/{name}": tensor for name, tensor in self.reference.state_dict().items()}
        return found

    def state(self) -> dict[str, Any]:
        return {
            "n_done": self.n_done,
            "temperature": self.heat.temperature,
            "curriculum": self.curriculum.state(),
            "alarms": self.alarms.state(),
            "grad_norms": self.guard.lengths,
        }

    def restore(self, tensors: dict[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        self.weights.restore(tensors)
        self.engine.update_weights(self.weights.master)
        if self.reference is not None:
            prefix = "reference/"
            self.reference.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        self.n_done = state["n_done"]
        self.heat.temperature = state["temperature"]
        self.curriculum.restore(state["curriculum"])
        self.alarms.restore(state["alarms"])
        self.guard = SpikeGuard(self.settings.max_grad_norm, state["grad_norms"])
