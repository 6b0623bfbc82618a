"""Sparse experts: each token goes to a few of many feed-forwards (DeepSeekMoE 2024; DeepSeek-V3, eq. 12 to 16).

Tokens are laid out expert by expert, so that each expert in use multiplies all its tokens at once. Nothing is dropped,
and sums are taken in the order of the choice, so that the same input gives the same output, bit for bit.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallpress.lowbit.linear8 import PLAIN
from smallpress.model.config import MoE
from smallpress.model.grouped import grouped
from smallpress.model.mlp import GatedMLP

LEAST_SUM = 1e-20  # of weights that are divided by their sum; sigmoids may all be nearly zero


def choose(scores_NE: Tensor, config: MoE) -> Tensor:
    """[N, A]: the experts of each token, by scores with the bias already added; the best first.

    >>> four = MoE(n_routed_experts=4, n_active_experts=2, moe_inter_dim=1, n_groups=2)
    >>> choose(torch.tensor([[0.9, 0.0, 0.5, 0.6]]), four).tolist()  # 0.5 + 0.6 beats 0.9 + 0.0
    [[3, 2]]
    """
    if config.n_active_groups < config.n_groups:
        in_groups_NGX = scores_NE.unflatten(1, (config.n_groups, -1))
        n_counted = min(2, in_groups_NGX.shape[-1]) if config.group_score == "top2_sum" else 1
        group_scores_NG = in_groups_NGX.topk(n_counted, dim=-1).values.sum(-1)
        best = group_scores_NG.topk(config.n_active_groups, dim=-1).indices
        closed_NG = torch.ones_like(group_scores_NG, dtype=torch.bool).scatter_(1, best, False)
        scores_NE = in_groups_NGX.masked_fill(closed_NG[..., None], -torch.inf).flatten(1)
    return scores_NE.topk(config.n_active_experts, dim=-1).indices


class Routing(NamedTuple):
    """Where each token goes, with what weight (fp32), and how it scored every expert before any bias."""

    weights_NA: Tensor
    experts_NA: Tensor
    scores_NE: Tensor


class Router(nn.Module):
    """Scores every expert for every token, in fp32. `expert_bias` takes part in the choice only, and no gradient."""

    def __init__(self, config: MoE, dim: int):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, dim))
        bias = torch.zeros(config.n_routed_experts) if config.expert_bias else None
        self.expert_bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x_NM: Tensor) -> Routing:
        wide = torch.promote_types(x_NM.dtype, torch.float32)
        logits_NE = F.linear(x_NM.to(wide), self.weight.to(wide))
        scores_NE = logits_NE.softmax(-1) if self.config.score == "softmax" else logits_NE.sigmoid()
        with torch.no_grad():
            biased_NE = scores_NE if self.expert_bias is None else scores_NE + self.expert_bias
            experts_NA = choose(biased_NE, self.config)
        weights_NA = scores_NE.gather(1, experts_NA)
        if self.config.normalize:
            weights_NA = weights_NA / (weights_NA.sum(-1, keepdim=True) + LEAST_SUM)
        return Routing(weights_NA * self.config.routed_scale, experts_NA, scores_NE)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves as any module does, but the bias stays fp32: bf16 would round it by more than it is moved in a step."""
        kept = None if self.expert_bias is None else self.expert_bias.detach()
        super()._apply(fn, recurse)
        if kept is not None and self.expert_bias is not None and self.expert_bias.dtype != kept.dtype:
            self.expert_bias.data = kept.to(self.expert_bias.device)
        return self


class Experts(nn.Module):
    """E gated feed-forwards, their weights stacked."""

    def __init__(self, config: MoE, dim: int):
        super().__init__()
        E, width = config.n_routed_experts, config.moe_inter_dim
        self.activation = config.activation
        self.arithmetic = PLAIN
        self.gate = nn.Parameter(torch.empty(E, width, dim))
        self.up = nn.Parameter(torch.empty(E, width, dim))
        self.down = nn.Parameter(torch.empty(E, dim, width))

    def forward(self, x_NM: Tensor, weights_NA: Tensor, experts_NA: Tensor) -> Tensor:
        A = experts_NA.shape[1]
        by_expert = experts_NA.flatten().sort(stable=True).indices
        n_tokens = experts_NA.flatten().bincount(minlength=len(self.gate)).tolist()
        x_PM = x_NM[by_expert // A]
        out_PM = grouped(x_PM, n_tokens, self.gate, self.up, self.down, self.activation, self.arithmetic)
        place = torch.empty_like(by_expert)
        place[by_expert] = torch.arange(len(place), device=place.device)
        out_NAM = out_PM[place].unflatten(0, (-1, A))
        return (out_NAM * weights_NA[..., None].to(out_NAM.dtype)).sum(1)


class SparseMLP(nn.Module):
    """The experts a token is routed to, and those it shares with all."""

    def __init__(self, config: MoE, dim: int):
        super().__init__()
        self.router = Router(config, dim)
        self.experts = Experts(config, dim)
        self.shared = None if config.shared is None else GatedMLP(config.shared, dim)

    def forward(self, x_NM: Tensor) -> Tensor:
        routing = self.router(x_NM)
        routed_NM = self.experts(x_NM, routing.weights_NA, routing.experts_NA)
        return routed_NM if self.shared is None else routed_NM + self.shared(x_NM)
