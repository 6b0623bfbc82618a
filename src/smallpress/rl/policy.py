"""The policy under training: passes over micro-batches, log-probabilities, the step."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from smallpress.model.hidden_rows import hidden_rows
from smallpress.model.token_logprobs import token_logprobs
from smallpress.model.transformer import Transformer
from smallpress.optim.master import MasterWeights
from smallpress.rl.algorithm import Terms
from smallpress.rl.packing import MicroBatch

TokenLoss = Callable[[Terms, MicroBatch, Tensor | None], tuple[Tensor, Mapping[str, Tensor]]]
"""(terms, batch, ref_logprobs_P) -> losses_P and arrays for the log; see loss.token_losses."""


def logprobs_of(model: Transformer, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """[P] log-probabilities of the trained tokens under the sampling temperature, and entropies; fp32."""
    hidden_PM = hidden_rows(model, batch.tree, batch.ids_N, batch.rows_P)
    return token_logprobs(hidden_PM, model.head_weight, batch.targets_P, temperature)


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


@torch.no_grad()
def frozen_logprobs(model: Transformer, batches: Sequence[MicroBatch], temperature: float) -> list[Tensor]:
    """[P] for each batch, without a gradient: of the reference model, or of the policy before several updates."""
    return [logprobs_of(model, batch, temperature)[0] for batch in batches]
