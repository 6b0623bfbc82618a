"""grpo on one machine: rollouts in the engine, then an update; the memory of the fuller of the two."""

from dataclasses import dataclass, replace

from smallpress.model.sizes import multiply_adds, parameters
from smallpress.planner.lengths import Lengths
from smallpress.planner.memory import (
    ALLOCATOR,
    WORD,
    Parts,
    at_fullest,
    generation_parts,
    in_all,
    stored_bytes,
    training_parts,
)
from smallpress.planner.model import Planned
from smallpress.planner.place import Place
from smallpress.planner.plan import Phase, Plan
from smallpress.planner.rates import Cost, plus, times
from smallpress.planner.remedies import SPARE, largest, three
from smallpress.planner.work import Generating, Learning, prompt_flops

CHECKING = 2e-4
"""Seconds to decode one answer and check it."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A GRPO run as far as its cost goes; the names are those of rl/settings.py.

    `n_prompt`: tokens of a prompt, of which the first `n_shared` are the same for all; `taught`: the share of groups
    that disagree and so are trained on.
    """

    steps: float
    prompts_per_step: int
    group_size: int
    train_on: int
    lengths: Lengths
    n_prompt: int = 160
    n_shared: int = 80
    micro_batch_tokens: int = 2048
    updates_per_rollout: int = 1
    dtype: str = "bfloat16"
    backward: str = "same"
    optimizer: str = "adamw"
    rollout_format: str = "int8"
    with_reference: bool = False
    taught: float = 1.0
    most_running: int = 256
    judge_bytes: float = 0.0  # of reward models that judge, held all the time

    @property
    def n_rollouts(self) -> int:
        return self.prompts_per_step * self.group_size

    @property
    def n_learned(self) -> tuple[float, float]:
        """Tokens of a step's update, and those of them that are predicted: every prompt once, what all share once."""
        n_groups = self.prompts_per_step * self.taught
        predicted = n_groups * self.train_on * self.lengths.mean
        return n_groups * (
            self.n_prompt - self.n_shared
        ) + self.n_shared + predicted - n_groups * self.train_on, predicted


def plan_grpo(planned: Planned, place: Place, asked: Rehearsed) -> Plan:
    config, n = planned.config, asked.n_rollouts
    at_work = Generating(config, place.rates, asked.rollout_format)
    fresh = asked.n_shared + asked.prompts_per_step * (asked.n_prompt - asked.n_shared)
    # Every rollout of a group draws its first token from the prompt's own logits.
    rollout = plus(
        at_work.prompt(fresh, n_ends=asked.prompts_per_step),
        at_work.answers(n, asked.n_prompt, asked.lengths, min(n, asked.most_running)),
    )
    reward: Cost = {"overhead": CHECKING * n}
    update = _update(planned, place, asked)
    new = n * asked.lengths.mean
    n_learned, _ = asked.n_learned
    flops = 2 * new * multiply_adds(config, asked.n_prompt + asked.lengths.mean / 2)
    phases = (
        Phase("rollout", times(asked.steps, rollout), asked.steps * new, asked.steps * flops),
        Phase("reward", times(asked.steps, reward)),
        Phase("update", times(asked.steps, update), 0.0, asked.steps * 3 * prompt_flops(config, n_learned)),
    )
    memory, room = grpo_memory(planned, place, asked), SPARE * place.free
    of_rollout, of_update = sum(rollout.values()) + sum(reward.values()), sum(update.values())
    return Plan(
        activity="grpo",
        model=planned.name,
        machine=place.machine,
        n_chips=1,
        memory=memory,
        room=room,
        phases=phases,
        figures={
            "seconds a step": of_rollout + of_update,
            "seconds of rollout": of_rollout,
            "seconds of update": of_update,
            "rollout tokens a second": new / of_rollout,
            "steps": asked.steps,
        },
        remedies=() if in_all(memory) <= room else _remedies(planned, place, asked, room),
    )


def _update(planned: Planned, place: Place, asked: Rehearsed) -> Cost:
    config = planned.config
    n_learned, n_predicted = asked.n_learned
    n_sequences = max(1.0, asked.prompts_per_step * asked.taught * asked.train_on)
    n_groups = max(1.0, asked.prompts_per_step * asked.taught)
    alone = n_predicted / n_sequences  # of one answer, which sees the prompt and itself

    def once(at_work: Learning) -> Cost:
        answers = at_work.tokens(n_predicted, n_predicted, n_predicted / max(1.0, alone), asked.n_prompt)
        return plus(answers, at_work.tokens(max(0.0, n_learned - n_predicted), 0, n_groups))

    at_work = Learning(config, place.rates, asked.dtype, asked.backward)
    frozen = 1.0 * asked.with_reference + 1.0 * (asked.updates_per_rollout > 1)
    return plus(
        once(at_work),
        times(frozen / 3, once(replace(at_work, backward="same"))),  # forward alone
        times(asked.updates_per_rollout, at_work.update(asked.optimizer, parameters(config).total)),
        place.rates.hand_over(parameters(config).total, asked.rollout_format),
    )


def grpo_memory(planned: Planned, place: Place, asked: Rehearsed) -> Parts:
    """Of the update, or of the rollouts where those are fuller: the engine gives its cache back in between."""
    config, n_learned = planned.config, asked.n_learned[0]
    n_at_once = min(float(asked.micro_batch_tokens), n_learned)
    n_micro_batches = n_learned / asked.updates_per_rollout / n_at_once
    parts = at_fullest(training_parts(config, n_at_once, asked.dtype, asked.optimizer), n_micro_batches)
    width = 2 if asked.dtype == "bfloat16" else 4
    held: Parts = {"reference model": float(width * parameters(config).total)} if asked.with_reference else {}
    held |= {"judges": asked.judge_bytes} if asked.judge_bytes else {}
    held |= {"engine's weights": stored_bytes(config, asked.rollout_format, place.is_here)}
    n_running = min(asked.n_rollouts, asked.most_running)
    tokens = asked.prompts_per_step * asked.n_prompt + n_running * asked.lengths.longest
    n_rows = min(2048, asked.prompts_per_step * asked.n_prompt)
    rolling = generation_parts(config, asked.rollout_format, tokens, n_rows, n_running)
    learning = {name: parts.pop(name) for name in ("gradients", "activations", "logits")}
    fuller = rolling if sum(rolling.values()) > sum(learning.values()) else learning
    whole = parts | held | fuller
    slack = ALLOCATOR * sum(whole.values()) if place.is_here else 0.0
    tokenizer = float(WORD * config.vocab_size)
    return {"program": place.program[True], "tokenizer": tokenizer} | whole | {"allocator": slack}


def _remedies(planned: Planned, place: Place, asked: Rehearsed, room: float) -> tuple[str, ...]:
    def fits(change: Rehearsed, of: Planned = planned) -> bool:
        return in_all(grpo_memory(of, place, change)) <= room

    found = []
    if asked.optimizer != "adamw8" and fits(replace(asked, optimizer="adamw8")):
        found.append("--set optimizer=adamw8")
    if n := largest(asked.micro_batch_tokens, lambda n: fits(replace(asked, micro_batch_tokens=n))):
        found.append(f"--set micro_batch_tokens={n}")
    if asked.with_reference and fits(replace(asked, with_reference=False)):
        found.append("--set beta=0")
    lean = replace(asked, optimizer="adamw8", dtype="bfloat16", micro_batch_tokens=256, with_reference=False)
    if not found and fits(lean):
        found.append("--set optimizer=adamw8 --set dtype=bfloat16 --set micro_batch_tokens=256 --set beta=0 together")
    most = in_all(grpo_memory(planned, place, asked))
    return three(found, most, planned.config, place.machine.kind, lambda config: fits(asked, Planned("", config, {})))
