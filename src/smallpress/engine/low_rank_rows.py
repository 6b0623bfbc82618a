"""Low-rank adapters beside the weights of the torch runner: rows of one step ask for different ones, or for none."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


class Pairs(Protocol):
    """What is needed of `weights.adapter.Adapter`."""

    @property
    def pairs(self) -> Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]: ...
    @property
    def scales(self) -> Mapping[str, float]: ...


class LowRankRows:
    """`adapters[i]` is the one of number i + 1: a layer's name -> A [rank, in], scale * B [out, rank], both fp32."""

    def __init__(self, device: torch.device):
        self.device = device
        self.adapters: list[dict[str, tuple[Tensor, Tensor]]] = []
        self._asked: list[tuple[dict[str, tuple[Tensor, Tensor]], Tensor]] = []

    def __bool__(self) -> bool:
        """Whether a row of the step under way asks for an adapter."""
        return bool(self._asked)

    def add(self, adapter: Pairs) -> int:
        """Returns its number."""
        found = {}
        for layer, (a, b) in adapter.pairs.items():
            scaled = np.float32(adapter.scales[layer]) * b
            found[layer] = torch.from_numpy(a.copy()).to(self.device), torch.from_numpy(scaled).to(self.device)
        self.adapters.append(found)
        return len(self.adapters)

    def choose(self, adapters_N: NDArray[np.int64]) -> None:
        """The step's rows ask for these numbers, 0 for none."""
        self._asked = [
            (self.adapters[number - 1], torch.from_numpy(np.flatnonzero(adapters_N == number)).to(self.device))
            for number in np.unique(adapters_N)
            if number
        ]

    def change(self, layer: str, x_NM: Tensor, y_NO: Tensor, norm_M: Tensor | None = None) -> Tensor:
        """y, to which B A x has been added in the rows that ask for it; x is times `norm_M` where that is given."""
        for adapter, rows_R in self._asked:
            if layer in adapter:
                a, b = adapter[layer]
                x_RM = x_NM[rows_R].float()
                x_RM = x_RM if norm_M is None else x_RM * norm_M
                y_NO.index_add_(0, rows_R, F.linear(F.linear(x_RM, a), b).to(y_NO.dtype))
        return y_NO


class AdaptedLinear(nn.Module):
    """A linear layer with its parameters' names, and what the rows ask for beside it."""

    def __init__(self, linear: nn.Linear, layer: str, rows: LowRankRows):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._layer, self._rows = layer, rows

    def forward(self, x_NM: Tensor) -> Tensor:
        return self._rows.change(self._layer, x_NM, F.linear(x_NM, self.weight, self.bias))
