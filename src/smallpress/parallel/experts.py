"""Expert parallelism: each process keeps a part of the experts, and tokens travel to theirs and back (all-to-all).

Counts go first, so every process knows how many rows it is about to get; the rows follow, sorted by expert. In the
backward pass gradients take the same ways the other way round. Nothing is dropped.
"""

from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from smallpress.model.grouped import grouped
from smallpress.model.moe import Experts, SparseMLP


class _Exchange(torch.autograd.Function):
    """Row blocks to every process of a group, and theirs from them; the gradient goes back the way the rows came."""

    @staticmethod
    def forward(ctx: Any, rows_NM: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.got, ctx.group = sent, got, group
        return _exchanged(rows_NM, sent, got, group)

    @staticmethod
    def backward(ctx: Any, grad_NM: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(grad_NM, ctx.got, ctx.sent, ctx.group), None, None, None


def _exchanged(rows_NM: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup) -> Tensor:
    out_NM = rows_NM.new_empty(sum(got), *rows_NM.shape[1:])
    dist.all_to_all_single(out_NM, rows_NM.contiguous(), got, sent, group=group)
    return out_NM


class SpreadExperts(nn.Module):
    """`Experts` of which this process keeps E / n: those from rank * E / n on. Same inputs, same output."""

    def __init__(self, experts: Experts, group: dist.ProcessGroup):
        super().__init__()
        self.group, self.activation, self.arithmetic = group, experts.activation, experts.arithmetic
        self.n_ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        E = len(experts.gate)
        assert E % self.n_ranks == 0, f"{E} experts on {self.n_ranks} processes"
        kept = slice(rank * E // self.n_ranks, (rank + 1) * E // self.n_ranks)
        for name in ("gate", "up", "down"):
            whole = cast(Tensor, getattr(experts, name))
            setattr(self, name, nn.Parameter(whole.detach()[kept].clone(), whole.requires_grad))

    gate: nn.Parameter
    up: nn.Parameter
    down: nn.Parameter

    def forward(self, x_NM: Tensor, weights_NA: Tensor, experts_NA: Tensor) -> Tensor:
        A, E = experts_NA.shape[1], len(self.gate) * self.n_ranks
        by_expert = experts_NA.flatten().sort(stable=True).indices
        sent_RE = experts_NA.flatten().bincount(minlength=E).view(self.n_ranks, -1)
        got_RE = torch.empty_like(sent_RE)  # rows from each process for each expert kept here
        dist.all_to_all_single(got_RE, sent_RE, group=self.group)
        sent, got = sent_RE.sum(1).tolist(), got_RE.sum(1).tolist()
        rows_PM = _Exchange.apply(x_NM[by_expert // A], sent, got, self.group)
        out_PM = _Exchange.apply(self._computed(rows_PM, got_RE), got, sent, self.group)
        place = torch.empty_like(by_expert)
        place[by_expert] = torch.arange(len(place), device=place.device)
        out_NAM = out_PM[place].unflatten(0, (-1, A))
        return (out_NAM * weights_NA[..., None].to(out_NAM.dtype)).sum(1)

    def _computed(self, rows_PM: Tensor, got_RE: Tensor) -> Tensor:
        """What the experts here make of rows that lie by process, and within that by expert."""
        expert_P = torch.arange(got_RE.shape[1], device=got_RE.device).repeat(self.n_ranks)
        by_expert = expert_P.repeat_interleave(got_RE.flatten()).sort(stable=True).indices
        n_rows = got_RE.sum(0).tolist()
        out_PM = grouped(rows_PM[by_expert], n_rows, self.gate, self.up, self.down, self.activation, self.arithmetic)
        place = torch.empty_like(by_expert)
        place[by_expert] = torch.arange(len(place), device=place.device)
        return out_PM[place]


class _HasExperts(Protocol):
    experts: nn.Module


def spread_experts(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Leave this process its part of the experts of every sparse layer."""
    for module in list(model.modules()):
        if isinstance(module, SparseMLP):
            cast(_HasExperts, module).experts = SpreadExperts(module.experts, group)
