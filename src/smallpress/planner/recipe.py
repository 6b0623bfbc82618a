"""From a recipe's settings to what a plan asks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smallpress.planner.grpo import Rehearsed, answer_lengths
from smallpress.planner.learning import Learned
from smallpress.run.errors import UserError

if TYPE_CHECKING:
    from smallpress.rl.settings import GRPOSettings

N_PROMPT, N_SHARED = 160, 80
"""Tokens of a prompt in the R1-Zero form with a worked example, and those all have alike, where nothing is known."""

ALIKE: dict[str, tuple[str, ...]] = {
    "batch_tokens": ("batch_tokens", "tokens_per_step", "tokens_per_batch"),
    "seq_len": ("seq_len", "row_len", "max_seq_len", "context"),
    "micro_tokens": ("micro_batch_tokens", "micro_tokens"),
    "dtype": ("dtype",),
    "optimizer": ("optimizer",),
}
"""Our word -> those that recipes of pretrain, sft and distill use for it."""


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
        optimizer=settings.optimizer,
        rollout_format="int8" if settings.rollout_dtype == "auto" else settings.rollout_dtype,
        with_reference=settings.beta > 0,
    )


def learned(activity: str, tree: Mapping[str, Any], given: Mapping[str, Any]) -> Learned:
    """From a recipe's table, whatever else it holds, and what the command line gives, which goes before."""
    found: dict[str, Any] = {"activity": activity}
    for ours, words in ALIKE.items():
        value = given.get(ours)
        if value is None:
            value = next((tree[word] for word in words if word in tree), None)
        if value is not None and value != "auto":
            found[ours] = value
    tokens = given.get("n_tokens") or tree.get("tokens") or tree.get("n_tokens")
    steps = tree.get("steps")
    if tokens is None and isinstance(steps, int):
        tokens = steps * found.get("batch_tokens", Learned(1).batch_tokens)
    if tokens is None:
        raise UserError(f"how many tokens {activity} sees is not said", "give --tokens 1e9, or a recipe with steps")
    return Learned(n_tokens=float(tokens), **found)
