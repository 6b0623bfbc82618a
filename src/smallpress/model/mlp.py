"""The dense feed-forward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallpress.lowbit.linear8 import Arithmetic
from smallpress.model.config import Dense


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, config: Dense, dim: int):
        super().__init__()
        self.gate = nn.Linear(dim, config.inter_dim, bias=config.bias)
        self.up = nn.Linear(dim, config.inter_dim, bias=config.bias)
        self.down = nn.Linear(config.inter_dim, dim, bias=config.bias)
        self.arithmetic = Arithmetic()

    def forward(self, x_NM: Tensor) -> Tensor:
        return _GatedDown.apply(self.gate(x_NM), self.up(x_NM), self.down.weight, self.down.bias, self.arithmetic)


class _GatedDown(torch.autograd.Function):
    """down(silu(gate) * up) + bias, keeping gate and up for the backward pass, where autograd's own would keep four
    arrays of their size, the widest of a layer."""

    @staticmethod
    def forward(
        ctx: Any, gate_NI: Tensor, up_NI: Tensor, down_MI: Tensor, bias_M: Tensor | None, arithmetic: Arithmetic
    ) -> Tensor:
        ctx.save_for_backward(gate_NI, up_NI, down_MI)
        ctx.has_bias, ctx.arithmetic = bias_M is not None, arithmetic
        act_NI = F.silu(gate_NI).mul_(up_NI)
        if arithmetic.forward is None:
            return F.linear(act_NI, down_MI, bias_M)
        y_NM = arithmetic.output(act_NI, down_MI)
        return y_NM if bias_M is None else y_NM + bias_M

    @staticmethod
    def backward(ctx: Any, grad_NM: Tensor) -> tuple[Tensor | None, ...]:
        gate_NI, up_NI, down_MI = ctx.saved_tensors
        act_NI = F.silu(gate_NI)
        grad_down_MI = ctx.arithmetic.grad_weight(grad_NM, act_NI * up_NI) if ctx.needs_input_grad[2] else None
        grad_NI = ctx.arithmetic.grad_x(grad_NM, down_MI)
        grad_gate_NI = torch.ops.aten.silu_backward(grad_NI * up_NI, gate_NI)
        grad_bias_M = grad_NM.sum(0) if ctx.has_bias else None
        return grad_gate_NI, grad_NI.mul_(act_NI), grad_down_MI, grad_bias_M, None
