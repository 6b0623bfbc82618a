"""Prompts in, judged groups of completions out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smallpress.engine.engine import Engine
from smallpress.engine.request import Completion, Request, SamplingParams, Stopper
from smallpress.rl.reward import PARTS, Judged
from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example
from smallpress.tasks.task import Task
from smallpress.tokenizer.prompts import encode_prompt, prompt_form
from smallpress.tokenizer.streaming import StopStrings
from smallpress.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Rollout:
    completion: Completion
    text: str
    reward: float
    parts: Mapping[str, float]
    correct: bool


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The G answers to one prompt."""

    example: Example
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]

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
    return Speech(
        encode=lambda example: encode_prompt(tokenizer, form, example.prompt, shown_or_none(example)),
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
    ):
        self.engine, self.speech, self.rewards = engine, speech, rewards
        self.group_size, self.max_tokens, self.seed = group_size, max_tokens, seed

    def groups(
        self, asked: Sequence[tuple[Task, Example]], step: int, temperature: float, first: int = 0
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
        return [
            RolloutGroup(example, prompt, tuple(self._judge(task, example, completion) for completion in row))
            for (task, example), prompt, row in zip(asked, prompts, rows, strict=True)
        ]

    def _judge(self, task: Task, example: Example, completion: Completion) -> Rollout:
        text = self.speech.decode([id for id in completion.ids if id not in self.speech.stop_ids])
        verdict = task.check(example, text)
        judged = Judged(task, example, text, len(completion.ids), self.max_tokens, verdict)
        parts = {name: PARTS[name](judged) for name in self.rewards}
        reward = sum(self.rewards[name] * value for name, value in parts.items())
        return Rollout(completion, text, reward, parts, verdict.correct)
