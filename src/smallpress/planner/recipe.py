"""From a recipe's settings to what a plan asks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from smallpress.model.config import ModelConfig
from smallpress.planner.grpo import Rehearsed
from smallpress.planner.learning import Adapters, Learned, Reader
from smallpress.planner.lengths import all_of, answer_lengths
from smallpress.planner.serving import Serving
from smallpress.run.errors import UserError

if TYPE_CHECKING:
    from smallpress.rl.settings import GRPOSettings
    from smallpress.train.distill_settings import DistillSettings
    from smallpress.train.settings import TrainSettings

N_PROMPT, N_SHARED = 160, 80
"""Tokens of a prompt in the R1-Zero form with a worked example, and those all have alike, where nothing is known."""

TEACHER_RUNNING = 64
"""Answers that a teacher on this machine writes side by side."""

ALIKE: dict[str, tuple[str, ...]] = {
    "batch_tokens": ("batch_tokens", "tokens_per_step", "tokens_per_batch"),
    "seq_len": ("seq_len", "row_len", "max_seq_len", "context"),
    "micro_tokens": ("micro_batch_tokens", "micro_tokens"),
    "dtype": ("dtype",),
    "backward": ("backward",),
    "optimizer": ("optimizer",),
}
"""Our word -> those that recipes of pretrain, sft and distill use for it."""


@dataclass(frozen=True, slots=True)
class SampleSizes:
    """Of data to train on, in tokens: samples as they lie, `each` of them in an item, `predicted` the share of tokens
    trained on."""

    n_items: int
    mean: float
    longest: int
    predicted: float = 1.0
    held_out_tokens: float = 0.0
    each: int = 1


def rehearsed(settings: "GRPOSettings", n_prompt: float = N_PROMPT, n_shared: float = N_SHARED) -> Rehearsed:
    """A run without a number of steps is planned as one step; "auto" as what this kind of machine usually takes."""
    return Rehearsed(
        steps=settings.steps or 1,
        prompts_per_step=settings.prompts_per_step,
        group_size=settings.group_size,
        train_on=settings.train_on or settings.group_size,
        lengths=answer_lengths(settings.max_tokens),
        n_prompt=round(n_prompt),
        n_shared=round(n_shared),
        micro_batch_tokens=settings.micro_batch_tokens,
        updates_per_rollout=settings.updates_per_rollout,
        dtype="bfloat16" if settings.dtype == "auto" else settings.dtype,
        backward=settings.backward,
        optimizer=settings.optimizer,
        rollout_format="int8" if settings.rollout_dtype == "auto" else settings.rollout_dtype,
        with_reference=settings.beta > 0,
    )


def supervised(settings: "TrainSettings", config: ModelConfig, n_steps: float, sizes: SampleSizes) -> Learned:
    """What `n_steps` of supervised training on samples of such sizes ask for.

    DPO, whose items are pairs, reads every step's samples once more for the values its loss couples, and each pair once
    with the model as it was: a second one, or the one under the adapters.
    """
    batch = settings.samples_per_step * sizes.each
    dtype = "bfloat16" if settings.dtype == "auto" else settings.dtype
    lora = settings.lora
    found = Learned(
        n_tokens=n_steps * batch * sizes.mean,
        batch_tokens=max(1, round(batch * sizes.mean)),
        seq_len=max(1, round(sizes.mean)),
        longest=sizes.longest,
        micro_tokens=settings.micro_batch_tokens,
        dtype=dtype,
        backward=settings.backward,
        optimizer=settings.optimizer,
        predicted=sizes.predicted,
        activity="sft",
        recompute=settings.recompute,
        adapters=None if lora is None else Adapters(lora.rank, lora.targets, lora.base),
        measured_tokens=(1 + n_steps // settings.eval_every) * sizes.held_out_tokens,
    )
    if sizes.each == 1 or getattr(settings, "pairwise", None) is not None:
        return found
    met_first = min(1.0, sizes.n_items / (n_steps * settings.samples_per_step))
    if lora is not None:
        return replace(found, rereads=1.0 + met_first)
    return replace(found, rereads=1.0, reader=Reader("reference model", config, met_first))


def written(n_tokens: float, n_prompt: int = N_PROMPT, n_each: int = 256) -> Serving:
    """So many tokens of a teacher on this machine, in answers of `n_each`."""
    n_answers = math.ceil(n_tokens / n_each)
    return Serving("int8", min(n_answers, TEACHER_RUNNING), n_prompt, all_of(n_each), n_answers)


def distilled(
    settings: "DistillSettings", config: ModelConfig, teacher: ModelConfig | None, n_questions: int, n_prompt: float
) -> Learned:
    """What a distillation asks for before an answer is there: answers of the usual share of the longest allowed, as
    many kept as may be. `teacher`: one that runs on the same machine."""
    n_items = max(1, n_questions * min(settings.keep_each, settings.answers_each))
    lengths = answer_lengths(settings.answer_tokens)
    mean = n_prompt + lengths.mean
    longest = min(settings.max_tokens, round(n_prompt + lengths.longest))
    held_out = min(settings.eval_n, n_items // 10) * mean
    sizes = SampleSizes(n_items, mean, longest, lengths.mean / mean, held_out)
    n_steps = settings.steps or math.ceil(settings.epochs * n_items / settings.samples_per_step)
    asked = replace(supervised(settings, config, n_steps, sizes), activity="distill")
    if teacher is None:
        return asked
    n_answers = n_questions * settings.answers_each
    writing = Serving("int8", min(n_answers, TEACHER_RUNNING), round(n_prompt), lengths, n_answers)
    return replace(taught(settings, asked, teacher, n_prompt), asked=writing)


def taught(settings: "DistillSettings", asked: Learned, teacher: ModelConfig | None, n_prompt: float) -> Learned:
    """With the teacher that reads along, and the answers that the student writes, where the method has them."""
    if settings.method == "answers" or teacher is None:
        return asked
    asked = replace(asked, reader=Reader("teacher", teacher, 1.0, has_logits=True))
    if settings.method == "logits":
        return asked
    n = settings.samples_per_step
    return replace(asked, drawn=Serving("int8", n, round(n_prompt), answer_lengths(settings.answer_tokens), n))


def learned(activity: str, tree: Mapping[str, Any], given: Mapping[str, Any]) -> Learned:
    """From a recipe's table, whatever else it holds, and what the command line gives, which goes before."""
    found: dict[str, Any] = {"activity": activity}
    for ours, words in ALIKE.items():
        value = given.get(ours)
        if value is None:
            value = next((tree[word] for word in words if word in tree), None)
        if value is not None and value != "auto":
            found[ours] = value
    if "dtype" not in found and isinstance(kind := tree.get("arithmetic"), str):
        found["dtype"] = "float32" if kind == "float32" else "bfloat16"  # 8-bit products keep their sums in 16
    tokens = given.get("n_tokens") or tree.get("tokens") or tree.get("n_tokens")
    steps = tree.get("steps")
    if tokens is None and isinstance(steps, int):
        tokens = steps * found.get("batch_tokens", Learned(1).batch_tokens)
    if tokens is None:
        raise UserError(f"how many tokens {activity} sees is not said", "give --tokens 1e9, or a recipe with steps")
    return Learned(n_tokens=float(tokens), **found)
