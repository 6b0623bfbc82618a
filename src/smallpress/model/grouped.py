"""Feed-forwards of many experts over rows that lie expert by expert, as one step of autograd.

Its own form of it would cut the stacked weights and the rows apart and lay every expert's gradients together again: for
8 experts of 512 a seventh of a training step. Here all that is kept for the backward pass lies in two arrays of all
rows, and gradients are written where they stay.
"""

from typing import Any

import torch
from torch import Tensor

from smallpress.lowbit.linear8 import Arithmetic
from smallpress.model.config import Activation
from smallpress.model.mlp import ACTIVATIONS, gradients_inside


def grouped(
    x_PM: Tensor,
    n_rows: list[int],
    gate_EFM: Tensor,
    up_EFM: Tensor,
    down_EMF: Tensor,
    activation: Activation,
    arithmetic: Arithmetic,
) -> Tensor:
    """[P, M]: down(activation(gate x) * up x) of the expert each row belongs to; the first `n_rows[0]` are the first's.

    Gradients are there for all experts, zero for those of no rows.
    """
    return _Grouped.apply(x_PM, gate_EFM, up_EFM, down_EMF, n_rows, activation, arithmetic)


def _slices(n_rows: list[int]) -> list[tuple[int, slice]]:
    """The experts that have rows, and which."""
    found, begin = [], 0
    for e, n in enumerate(n_rows):
        if n:
            found.append((e, slice(begin, begin + n)))
        begin += n
    return found


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_PM: Tensor,
        gate_EFM: Tensor,
        up_EFM: Tensor,
        down_EMF: Tensor,
        n_rows: list[int],
        activation: Activation,
        arithmetic: Arithmetic,
    ) -> Tensor:
        act, _ = ACTIVATIONS[activation]
        gate_PF, up_PF = (x_PM.new_empty(len(x_PM), gate_EFM.shape[1]) for _ in range(2))
        out_PM = torch.empty_like(x_PM)
        for e, rows in _slices(n_rows):
            arithmetic.output(x_PM[rows], gate_EFM[e], out=gate_PF[rows])
            arithmetic.output(x_PM[rows], up_EFM[e], out=up_PF[rows])
            arithmetic.output(act(gate_PF[rows]).mul_(up_PF[rows]), down_EMF[e], out=out_PM[rows])
        ctx.save_for_backward(x_PM, gate_EFM, up_EFM, down_EMF, gate_PF, up_PF)
        ctx.n_rows, ctx.activation, ctx.arithmetic = n_rows, activation, arithmetic
        return out_PM

    @staticmethod
    def backward(ctx: Any, grad_PM: Tensor) -> tuple[Tensor | None, ...]:
        x_PM, gate_EFM, up_EFM, down_EMF, gate_PF, up_PF = ctx.saved_tensors
        (act, act_backward), arithmetic, grad_PM = ACTIVATIONS[ctx.activation], ctx.arithmetic, grad_PM.contiguous()
        wants_x, *wants = ctx.needs_input_grad[:4]
        grad_x_PM = torch.empty_like(x_PM) if wants_x else None
        weights = (gate_EFM, up_EFM, down_EMF)
        grads = [torch.empty_like(weight) if wanted else None for weight, wanted in zip(weights, wants, strict=True)]
        for e, n in enumerate(ctx.n_rows):
            if n == 0:
                for grad in grads:
                    if grad is not None:
                        grad[e].zero_()
        for e, rows in _slices(ctx.n_rows):
            x, grad, gate, up = x_PM[rows], grad_PM[rows], gate_PF[rows], up_PF[rows]
            act_NF = act(gate)
            room_NF = act_NF * up
            if grads[2] is not None:
                arithmetic.grad_weight(grad, room_NF, out=grads[2][e])
            grad_NF = arithmetic.grad_x(grad, down_EMF[e])
            grad_gate, grad_up = gradients_inside(grad_NF, gate, up, act_NF, act_backward, room_NF)
            if grads[0] is not None:
                arithmetic.grad_weight(grad_gate, x, out=grads[0][e])
            if grads[1] is not None:
                arithmetic.grad_weight(grad_up, x, out=grads[1][e])
            if grad_x_PM is not None:
                arithmetic.grad_x(grad_gate, gate_EFM[e], out=grad_x_PM[rows])
                grad_x_PM[rows] += arithmetic.grad_x(grad_up, up_EFM[e])
        return grad_x_PM, *grads, None, None, None
