"""Experts used evenly: what the routers chose, how even it was, and the two ways of DeepSeek-V3 to make it more so.

    bias       b_i += gamma sign(mean load - load_i)     after each step, by all its tokens; no gradient
    sequence   alpha sum_i f_i P_i                       a loss, for the extremes within single sequences

f_i is E / (A T) times how many of a sequence's T tokens chose expert i among their A, P_i the mean share of i in a
token's scores. Both are 1 where all E experts are used alike, and so is the sum.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from smallpress.model.moe import Router, Routing


class RouterWatch:
    """Sees every choice a model's routers make within `with watch:`, and adds up the loads.

    seen    by router, what the last pass chose; with its graph, so that the sequence loss can be taken of it
    loads   by router, tokens sent to each expert [E] since `forget`
    """

    def __init__(self, model: nn.Module):
        self.routers = {name: module for name, module in model.named_modules() if isinstance(module, Router)}
        self.seen: dict[str, Routing] = {}
        self.loads: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        self.seen = {}
        for name, router in self.routers.items():
            self._hooks.append(router.register_forward_hook(lambda _, __, routing, name=name: self._see(name, routing)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _see(self, name: str, routing: Routing) -> None:
        self.seen[name] = routing
        load_E = routing.experts_NA.flatten().bincount(minlength=routing.scores_NE.shape[1])
        self.loads[name] = self.loads[name] + load_E if name in self.loads else load_E

    def forget(self) -> None:
        self.seen, self.loads = {}, {}


def sequence_loss(routing: Routing, n_rows: int) -> Tensor:
    """sum_i f_i P_i of each of the `n_rows` sequences of equal length that lie one after another, added up.

    Sent always to the same one of two experts, a token that scores 0.9 and 0.1:

    >>> even, uneven = torch.tensor([[0.5, 0.5]] * 2), torch.tensor([[0.9, 0.1]] * 2)
    >>> first = torch.zeros(2, 1, dtype=torch.long)
    >>> round(sequence_loss(Routing(uneven[:, :1], first, uneven), 1).item(), 4)
    1.8
    >>> round(sequence_loss(Routing(even[:, :1], torch.tensor([[0], [1]]), even), 1).item(), 4)
    1.0
    """
    E = routing.scores_NE.shape[1]
    shares_NE = routing.scores_NE / routing.scores_NE.sum(-1, keepdim=True)
    mean_share_BE = shares_NE.unflatten(0, (n_rows, -1)).mean(1)
    chosen_BX = routing.experts_NA.reshape(n_rows, -1)  # X = T A
    ones_BX = torch.ones(chosen_BX.shape, dtype=shares_NE.dtype, device=shares_NE.device)
    counts_BE = torch.zeros_like(mean_share_BE).scatter_add_(1, chosen_BX, ones_BX)
    frequency_BE = counts_BE * (E / chosen_BX.shape[1])
    return (frequency_BE * mean_share_BE).sum()


@torch.no_grad()
def move_bias(bias_E: Tensor, load_E: Tensor, gamma: float) -> None:
    """Towards the experts that get less than the mean.

    >>> bias = torch.zeros(3)
    >>> move_bias(bias, torch.tensor([6, 2, 1]), gamma=0.5)
    >>> bias.tolist()
    [-0.5, 0.5, 0.5]
    """
    load_E = load_E.to(bias_E.dtype)
    bias_E += gamma * torch.sign(load_E.mean() - load_E)


def evenness(loads: Mapping[str, Tensor]) -> dict[str, float]:
    """Of each router's loads: their entropy as a share of log E, the mean over routers; and the largest load over the
    mean one, the worst router's.

    >>> evenness({"layer": torch.tensor([4, 4, 4, 4])})
    {'load/entropy': 1.0, 'load/max_over_mean': 1.0}
    >>> evenness({"layer": torch.tensor([8, 8, 0, 0])})
    {'load/entropy': 0.5, 'load/max_over_mean': 2.0}
    """
    entropies, peaks = [], []
    for load_E in loads.values():
        share_E = load_E.double() / load_E.sum()
        log_E = torch.log(torch.tensor(float(len(load_E)), dtype=torch.float64))
        entropies.append(float(torch.special.entr(share_E).sum() / log_E) if len(load_E) > 1 else 1.0)
        peaks.append(float(share_E.max()) * len(load_E))
    return {"load/entropy": sum(entropies) / len(entropies), "load/max_over_mean": max(peaks)}
