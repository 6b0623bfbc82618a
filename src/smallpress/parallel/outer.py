"""DiLoCo (Douillard et al., arXiv 2311.08105): replicas train on their own for many steps, then take one together.

    delta = anchor - mean over replicas of their weights      what the inner steps did, as a gradient
    momentum = mu momentum + delta
    anchor = anchor - lr (delta + mu momentum)                 Nesterov; every replica goes on from here

The deltas travel as gradients would, in 8 bits where asked for. Each replica keeps the moments of its own optimizer.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from smallpress.parallel.ranks import Ranks
from smallpress.parallel.reduce import Traffic, all_reduce


class Outer:
    """The outer optimizer over `master`. What no gradient moves (`frozen`) becomes the replicas' mean."""

    def __init__(self, master: Mapping[str, nn.Parameter], frozen: Collection[str], ranks: Ranks):
        self.master, self.frozen, self.ranks = master, frozen, ranks
        self.anchor = {name: parameter.detach().clone() for name, parameter in master.items()}
        self.momentum = {name: torch.zeros_like(anchor) for name, anchor in self.anchor.items()}

    @torch.no_grad()
    def sync(self, traffic: Traffic) -> None:
        """One outer step; all replicas call it after the same number of inner ones."""
        settings, group = self.ranks.settings, self.ranks.group("replica")
        assert group is not None
        deltas = {name: anchor - self.master[name] for name, anchor in self.anchor.items()}
        all_reduce(list(deltas.values()), group, settings.reduce, traffic)
        for name, anchor in self.anchor.items():
            delta = deltas[name].div_(self.ranks.n_replicas)
            if name in self.frozen:
                anchor -= delta
            else:
                move_(anchor, self.momentum[name], delta, settings.outer_lr, settings.outer_momentum)
            self.master[name].copy_(anchor)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What a resume needs after a `sync`, where every anchor equals its weight."""
        for name, momentum in self.momentum.items():
            yield f"outer/{name}", momentum

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin at the weights as they are now; at rest where a run that was one model goes on as several."""
        for name, master in self.master.items():
            self.anchor[name].copy_(master)
            self.momentum[name].copy_(tensors.get(f"outer/{name}", torch.zeros_like(master)))


def move_(anchor: Tensor, momentum: Tensor, delta: Tensor, lr: float, mu: float) -> None:
    """Stochastic gradient descent with Nesterov's momentum, in place.

    >>> anchor, momentum = torch.tensor([1.0]), torch.tensor([0.0])
    >>> move_(anchor, momentum, torch.tensor([0.5]), lr=0.5, mu=0.5)
    >>> anchor.item(), momentum.item()  # 1 - 0.5 (0.5 + 0.5 * 0.5)
    (0.625, 0.5)
    """
    momentum.mul_(mu).add_(delta)
    anchor.sub_(delta + mu * momentum, alpha=lr)
