"""The dense feed-forward."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallpress.lowbit.linear8 import PLAIN, Arithmetic
from smallpress.model.config import Activation, Dense

ACTIVATIONS: dict[Activation, tuple[Callable[[Tensor], Tensor], Callable[..., Tensor]]] = {
    "silu": (F.silu, torch.ops.aten.silu_backward),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), partial(torch.ops.aten.gelu_backward, approximate="tanh")),
}
"""The function, and (gradient of its output, its input, grad_input=where it goes) -> gradient of its input."""


class GatedMLP(nn.Module):
    """down(activation(gate x) * up x)."""

    def __init__(self, config: Dense, dim: int):
        super().__init__()
        self.activation = config.activation
        self.gate = nn.Linear(dim, config.inter_dim, bias=config.bias)
        self.up = nn.Linear(dim, config.inter_dim, bias=config.bias)
        self.down = nn.Linear(config.inter_dim, dim, bias=config.bias)
        self.arithmetic = PLAIN

    def forward(self, x_NM: Tensor) -> Tensor:
        down: nn.Module = self.down
        if not isinstance(down, nn.Linear):  # low-rank, or of low-bit codes
            return down(_Gated.apply(self.gate(x_NM), self.up(x_NM), *ACTIVATIONS[self.activation]))
        return gated_down(self.gate(x_NM), self.up(x_NM), down.weight, down.bias, self.activation, self.arithmetic)


def gated_down(
    gate_NF: Tensor,
    up_NF: Tensor,
    down_MF: Tensor,
    bias_M: Tensor | None,
    activation: Activation,
    arithmetic: Arithmetic = PLAIN,
) -> Tensor:
    """[N, M]: down(activation(gate) * up) + bias, its product in `arithmetic`."""
    return _GatedDown.apply(gate_NF, up_NF, down_MF, bias_M, *ACTIVATIONS[activation], arithmetic)


class _Gated(torch.autograd.Function):
    """activation(gate) * up, of which gate and up alone are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        gate_NF: Tensor,
        up_NF: Tensor,
        act: Callable[[Tensor], Tensor],
        act_backward: Callable[..., Tensor],
    ) -> Tensor:
        ctx.save_for_backward(gate_NF, up_NF)
        ctx.act, ctx.act_backward = act, act_backward
        return act(gate_NF).mul_(up_NF)

    @staticmethod
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor | None, ...]:
        gate_NF, up_NF = ctx.saved_tensors
        room_NF = grad_NF * up_NF
        return ctx.act_backward(room_NF, gate_NF, grad_input=room_NF), ctx.act(gate_NF).mul_(grad_NF), None, None


class _GatedDown(torch.autograd.Function):
    """Keeps gate and up for the backward pass, where autograd's own would keep four arrays of their size, the widest of
    a layer."""

    @staticmethod
    def forward(
        ctx: Any,
        gate_NF: Tensor,
        up_NF: Tensor,
        down_MF: Tensor,
        bias_M: Tensor | None,
        act: Callable[[Tensor], Tensor],
        act_backward: Callable[..., Tensor],
        arithmetic: Arithmetic,
    ) -> Tensor:
        ctx.save_for_backward(gate_NF, up_NF, down_MF)
        ctx.has_bias, ctx.act, ctx.act_backward, ctx.arithmetic = bias_M is not None, act, act_backward, arithmetic
        act_NF = act(gate_NF).mul_(up_NF)
        if arithmetic.forward is None:
            return F.linear(act_NF, down_MF, bias_M)
        y_NM = arithmetic.output(act_NF, down_MF)
        return y_NM if bias_M is None else y_NM + bias_M

    @staticmethod
    def backward(ctx: Any, grad_NM: Tensor) -> tuple[Tensor | None, ...]:
        gate_NF, up_NF, down_MF = ctx.saved_tensors
        act_NF = ctx.act(gate_NF)
        room_NF = act_NF * up_NF  # what is done with stays in the cache and in memory that is mapped
        grad_down_MF = ctx.arithmetic.grad_weight(grad_NM, room_NF) if ctx.needs_input_grad[2] else None
        grad_NF = ctx.arithmetic.grad_x(grad_NM, down_MF)
        inner = gradients_inside(grad_NF, gate_NF, up_NF, act_NF, ctx.act_backward, room_NF)
        grad_bias_M = grad_NM.sum(0) if ctx.has_bias else None
        return *inner, grad_down_MF, grad_bias_M, None, None, None


def gradients_inside(
    grad_NF: Tensor,
    gate_NF: Tensor,
    up_NF: Tensor,
    act_NF: Tensor,
    act_backward: Callable[..., Tensor],
    room_NF: Tensor,
) -> tuple[Tensor, Tensor]:
    """Of gate and up, from that of act(gate) * up; the first lies in `room_NF`, the second where `grad_NF` was."""
    torch.mul(grad_NF, up_NF, out=room_NF)
    return act_backward(room_NF, gate_NF, grad_input=room_NF), grad_NF.mul_(act_NF)
