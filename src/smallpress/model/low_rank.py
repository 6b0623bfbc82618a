"""Low-rank adapters (Hu et al. 2021, LoRA): y = W x + bias + scale B A x, where only A and B are trained.

W is frozen, as it is or in low-bit codes (Dettmers et al. 2023, QLoRA). B begins at zero, so the adapted model begins
as the model it adapts. scale = alpha / rank, or alpha / sqrt(rank), which keeps large ranks learning (Kalajdzievski
2023, rsLoRA).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallpress.lowbit.frozen import FrozenFormat, FrozenMatrix, FrozenProduct
from smallpress.model.transformer import Transformer

NEVER_QUANTIZED = ("router",)


class FrozenLinear(nn.Module):
    """A linear layer that is not trained; its weight is in low-bit codes where `format` names some."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, format: FrozenFormat | None, what: str):
        super().__init__()
        weight_OM = linear.weight.detach()
        self.codes = None if format is None else FrozenMatrix(weight_OM, format, what)
        self.register_buffer("weight", weight_OM if format is None else None)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x_NM: Tensor) -> Tensor:
        if self.codes is None:
            assert self.weight is not None
            return F.linear(x_NM, self.weight, self.bias)
        y_NO = FrozenProduct.apply(x_NM, self.codes)
        return y_NO if self.bias is None else y_NO + self.bias


class LowRankLinear(FrozenLinear):
    """`a` [rank, M] and `b` [O, rank] are its only parameters."""

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        scale: float,
        format: FrozenFormat | None,
        what: str,
        generator: torch.Generator,
    ):
        super().__init__(linear, format, what)
        bound = linear.in_features**-0.5  # as nn.Linear's own, and PEFT's
        self.a = nn.Parameter(torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.scale = scale

    def forward(self, x_NM: Tensor) -> Tensor:
        narrow_NR = F.linear(x_NM, self.a)
        return super().forward(x_NM) + F.linear(narrow_NR * self.scale, self.b)


def adapter_scale(rank: int, alpha: float, rank_stabilized: bool) -> float:
    """What B A x is multiplied by.

    >>> adapter_scale(16, 32.0, False), adapter_scale(16, 32.0, True)
    (2.0, 8.0)
    """
    return alpha / (math.sqrt(rank) if rank_stabilized else rank)


def adapt(
    model: Transformer,
    targets: tuple[str, ...],
    rank: int,
    scale: float,
    format: FrozenFormat | None = None,
    seed: int = 0,
) -> list[str]:
    """Freeze the model and give each linear layer of its blocks whose last name is in `targets` an adapter.

    Where `format` is given all linear layers of the blocks are kept in it, routers aside. What is frozen is a buffer
    afterwards: the model's parameters are those of the adapters, and a router's selection bias. Returns the names of
    the adapted layers, in the model's order.
    """
    adapted = []
    generator = torch.Generator().manual_seed(seed)
    for name, module in list(model.layers.named_modules(prefix="layers")):
        last = name.rpartition(".")[2]
        if not isinstance(module, nn.Linear):
            continue
        own_format = None if last in NEVER_QUANTIZED else format
        if last in targets:
            model.set_submodule(name, LowRankLinear(module, rank, scale, own_format, name, generator))
            adapted.append(name)
        elif own_format is not None:
            model.set_submodule(name, FrozenLinear(module, own_format, name))
    trained = {f"{name}.{part}" for name in adapted for part in "ab"}
    for name, parameter in list(model.named_parameters()):
        if name not in trained and parameter.requires_grad:
            owner, _, last = name.rpartition(".")
            module = model.get_submodule(owner)
            delattr(module, last)
            module.register_buffer(last, parameter.detach())
    return adapted


@contextmanager
def without_adapters(model: Transformer) -> Iterator[None]:
    """Within, the model is the one that was adapted."""
    layers = [module for module in model.modules() if isinstance(module, LowRankLinear)]
    scales = [layer.scale for layer in layers]
    for layer in layers:
        layer.scale = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scale = scale
