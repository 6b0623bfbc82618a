"""The policy under training: passes over micro-batches, log-probabilities, the step."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from smallpress.model.attention import PackedCausal
from smallpress.model.token_logprobs import token_logprobs
from smallpress.model.transformer import Transformer
from smallpress.optim.master import MasterWeights
from smallpress.rl.algorithm import Terms
from smallpress.rl.packing import MicroBatch

TokenLoss = Callable[[Terms, MicroBatch, Tensor | None], tuple[Tensor, Mapping[str, Tensor]]]
"""(terms, batch, ref_logprobs_P) -> losses_P and arrays for the log; see loss.token_losses."""


def logprobs_of(model: Transformer, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """[P] log-probabilities of the trained tokens under the sampling temperature, and entropies; fp32."""
    window = model.config.attention.window
    attend = PackedCausal(batch.tree, model.head_weight.dtype, model.head_weight.device, window)
    hidden_NM = model(batch.ids_N, batch.tree.positions(), attend)
    return token_logprobs(hidden_NM.index_select(0, batch.rows_P), model.head_weight, batch.targets_P, temperature)


def accumulate(
    weights: MasterWeights,
    batches: Sequence[MicroBatch],
    old_logprobs: Sequence[Tensor] | None,
    ref_logprobs: Sequence[Tensor] | None,
    temperature: float,
    token_loss: TokenLoss,
) -> dict[str, float]:
    """Add up the gradient of the batches; token means of what `token_loss` logs, and of loss and entropy.

    `old_logprobs` None: this is the first update after the rollouts, the policy is its own old self.
    """
    sums: dict[str, float] = defaultdict(float)
    n_tokens = sum(len(batch.targets_P) for batch in batches)
    for i, batch in enumerate(batches):
        policy_P, entropy_P = logprobs_of(weights.model, batch, temperature)
        old_P = policy_P.detach() if old_logprobs is None else old_logprobs[i]
        terms = Terms(policy_P, old_P, batch.advantages_P, batch.rollout_P)
        loss_P, log = token_loss(terms, batch, None if ref_logprobs is None else ref_logprobs[i])
        loss = (loss_P * batch.weights_P).sum()
        loss.backward()
        sums["loss"] += float(loss.detach())
        for name, values_P in {**log, "entropy": entropy_P}.items():
            sums[name] += float(values_P.sum()) / n_tokens
    return dict(sums)


class SpikeGuard:
    """Decides whether a step may be taken: not on NaN, nor on a gradient far longer than the recent ones.

    Far longer: FACTOR times their median, or `max_norm`, to which gradients are cut, where the median is below it (a
    group that agrees leaves only the KL term, whose gradient is nearly nothing). Every finite length is remembered, a
    refused one too: a median shrugs off single spikes, and a gradient that has grown for good becomes the rule.
    """

    MEMORY, FACTOR, NEEDED = 50, 20.0, 10

    def __init__(self, max_norm: float, lengths: Sequence[float] = ()):
        self.max_norm, self.lengths = max_norm, list(lengths)

    def admits(self, grad_norm: float) -> bool:
        """Take in one gradient length; False if the step must be skipped."""
        if not math.isfinite(grad_norm):
            return False
        recent = sorted(self.lengths)
        self.lengths = [*self.lengths, grad_norm][-self.MEMORY :]
        return len(recent) < self.NEEDED or grad_norm <= self.FACTOR * max(recent[len(recent) // 2], self.max_norm)


@torch.no_grad()
def frozen_logprobs(model: Transformer, batches: Sequence[MicroBatch], temperature: float) -> list[Tensor]:
    """[P] for each batch, without a gradient: of the reference model, or of the policy before several updates."""
    return [logprobs_of(model, batch, temperature)[0] for batch in batches]
