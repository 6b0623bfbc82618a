"""Prompts in, judged groups of completions out."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from smallpress.engine.engine import Engine
from smallpress.engine.request import Completion, Request, SamplingParams, Stopper
from smallpress.rl.general import messages_of
from smallpress.rl.judges import JudgedGroup, Judges
from smallpress.rl.reward import NEED_REFERENCE, PARTS, Judged
from smallpress.run.seeds import derive_seed
from smallpress.tasks.answers import format_ok
from smallpress.tasks.example import Example, Verdict
from smallpress.tasks.task import Task
from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.prompts import encode_prompt, prompt_form
from smallpress.tokenizer.streaming import StopStrings
from smallpress.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Rollout:
    completion: Completion
    text: str
    reward: float
    parts: Mapping[str, float]
    correct: bool | None  # None: nothing can check it


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The G answers to one prompt."""

    example: Example
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]

    @property
    def general(self) -> bool:
        """Whether nothing can check the answers, so that judges alone reward them."""
        return self.rollouts[0].correct is None

    @property
    def rewards(self) -> list[float]:
        return [rollout.reward for rollout in self.rollouts]

    @property
    def degenerate(self) -> bool:
        """All rewards equal: no advantage, no gradient."""
        return len(set(self.rewards)) == 1

    @property
    def sound(self) -> bool:
        """Every reward is a number. One NaN would make NaN of its siblings' advantages too."""
        return all(math.isfinite(reward) for reward in self.rewards)


@dataclass(frozen=True, slots=True)
class Speech:
    """How questions become ids and ids become text: what a model's tokenizer and the prompt form provide."""

    encode: Callable[[Example], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    stop_ids: frozenset[int]
    stopper: Callable[[], Stopper | None]


def speech(tokenizer: Tokenizer, form: str, shown: Callable[[Example], tuple[str, str]]) -> Speech:
    """The Speech of a prompt form; `shown` gives the worked question and completion of the form "r1_zero_example"."""
    chosen = prompt_form(form)
    shown_or_none = shown if chosen.with_example else lambda _: None

    def encode(example: Example) -> Sequence[int]:
        if form == "chat" and (messages := example.meta.get("messages")):
            return encode_chat(tokenizer, messages)
        return encode_prompt(tokenizer, form, example.prompt, shown_or_none(example))

    return Speech(
        encode=encode,
        decode=lambda ids: chosen.checked_text(tokenizer.decode(ids)),
        stop_ids=tokenizer.eos_ids,
        stopper=lambda: StopStrings(tokenizer, chosen.stops) if chosen.stops else None,
    )


class Sampler:
    """Draws groups from the engine and judges them. The seed of each rollout is its place in the run, nothing else."""

    def __init__(
        self,
        engine: Engine,
        speech: Speech,
        rewards: Mapping[str, float],
        group_size: int,
        max_tokens: int,
        seed: int,
        judges: Judges | None = None,
        judges_from_step: int = 0,
    ):
        self.engine, self.speech, self.rewards = engine, speech, rewards
        self.group_size, self.max_tokens, self.seed = group_size, max_tokens, seed
        self.judges, self.judges_from_step = judges, judges_from_step
        self.judging = 0.0  # seconds since it was last set to 0

    def groups(
        self, asked: Sequence[tuple[Task | None, Example]], step: int, temperature: float, first: int = 0
    ) -> list[RolloutGroup]:
        """One group for each question; `first` is the number of questions this step has asked before."""
        prompts = [tuple(self.speech.encode(example)) for _, example in asked]
        requests = [
            Request(
                prompt_ids=prompt,
                params=SamplingParams(
                    max_tokens=self.max_tokens,
                    temperature=temperature,
                    seed=derive_seed(self.seed, "rollout", step, first + i, g),
                ),
                stop_ids=self.speech.stop_ids,
                stopper=self.speech.stopper(),
                group=i,
            )
            for i, prompt in enumerate(prompts)
            for g in range(self.group_size)
        ]
        completions = self.engine.generate(requests)
        rows = [completions[i : i + self.group_size] for i in range(0, len(completions), self.group_size)]
        groups = [
            RolloutGroup(example, prompt, tuple(self._check(task, example, completion) for completion in row))
            for (task, example), prompt, row in zip(asked, prompts, rows, strict=True)
        ]
        return groups if self.judges is None or step < self.judges_from_step else self._judged(self.judges, groups)

    def _check(self, task: Task | None, example: Example, completion: Completion) -> Rollout:
        text = self.speech.decode([id for id in completion.ids if id not in self.speech.stop_ids])
        if task is None:
            verdict = Verdict(False, None, format_ok(text), "nothing can check it")
        else:
            verdict = task.check(example, text)
        judged = Judged(task, example, text, len(completion.ids), self.max_tokens, verdict)
        names = [name for name in self.rewards if task is not None or name not in NEED_REFERENCE]
        parts = {name: PARTS[name](judged) for name in names}
        reward = sum(self.rewards[name] * value for name, value in parts.items())
        return Rollout(completion, text, reward, parts, None if task is None else verdict.correct)

    def _judged(self, judges: Judges, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        """With the judges' parts of the reward beside the others."""
        began = time.perf_counter()
        shown = [
            JudgedGroup(messages_of(group.example), [rollout.text for rollout in group.rollouts], group.general)
            for group in groups
        ]
        weights, judged = judges.weights(), []
        for group, rows in zip(groups, judges.parts(shown), strict=True):
            rollouts = []
            for rollout, parts in zip(group.rollouts, rows, strict=True):
                reward = rollout.reward + sum(weights[name] * value for name, value in parts.items())
                rollouts.append(replace(rollout, reward=reward, parts={**rollout.parts, **parts}))
            judged.append(replace(group, rollouts=tuple(rollouts)))
        self.judging += time.perf_counter() - began
        return judged
