"""An exponential moving average of the weights, kept beside those that are trained."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class Average:
    """a = decay a + (1 - decay) w after each step, in fp32. It begins as the weights themselves.

    >>> weight = {"w": torch.tensor([1.0])}
    >>> average = Average(weight, decay=0.75)
    >>> _ = weight["w"].fill_(5.0)
    >>> average.follow(weight)
    >>> average.weights["w"].item()
    2.0
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float):
        assert 0 <= decay < 1, f"{decay=}"
        self.decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def follow(self, weights: Mapping[str, Tensor]) -> None:
        torch._foreach_lerp_(list(self.weights.values()), [weights[name] for name in self.weights], 1 - self.decay)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        return ((f"average/{name}", weight) for name, weight in self.weights.items())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(tensors[f"average/{name}"])
