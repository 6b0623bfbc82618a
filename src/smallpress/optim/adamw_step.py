"""One AdamW step on one tensor in plain torch: what native/optimizer.inl computes, on any device."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smallpress.lowbit.dynamic_map import Codes, dequantize, n_blocks, quantize

State = dict[str, Tensor]
"""step; exp_avg and exp_avg_sq in fp32, bf16 or uint8 codes, the last with exp_avg_scales and exp_avg_sq_scales."""

FIRST, SECOND = "exp_avg", "exp_avg_sq"


@dataclass(frozen=True, slots=True)
class AdamWStep:
    """AdamW (Loshchilov and Hutter 2019) at one step.

    p = shrink * p - stride * m / (sqrt(v) * correction + eps), after m and v have moved towards g and g^2.
    """

    beta1: float
    beta2: float
    eps: float
    shrink: float
    stride: float
    correction: float

    @classmethod
    def at(cls, step: int, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> "AdamWStep":
        """The `step`-th step, from 1.

        >>> first = AdamWStep.at(1, lr=0.5, betas=(0.5, 0.75), eps=1e-8, weight_decay=0.1)
        >>> first.shrink, first.stride, first.correction
        (0.95, 1.0, 2.0)
        """
        beta1, beta2 = betas
        stride, correction = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
        return cls(beta1, beta2, eps, 1 - lr * weight_decay, stride, correction)


def new_state(parameter: Tensor, dtype: torch.dtype) -> State:
    """Moments of zero; `dtype` uint8: in the codes of lowbit/dynamic_map.py."""
    state = {"step": torch.zeros(())}
    for name, signed in ((FIRST, True), (SECOND, False)):
        moment = torch.zeros_like(parameter, dtype=torch.float32)
        if dtype == torch.uint8:
            zeros = quantize(moment, signed)
            state |= {name: zeros.codes, f"{name}_scales": zeros.scales}
        else:
            state[name] = moment.to(dtype)
    return state


def state_shapes(parameter: Tensor, dtype: torch.dtype) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of every tensor of a parameter's state, by name."""
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"step": ((), torch.float32)}
    for name in (FIRST, SECOND):
        shapes[name] = (tuple(parameter.shape), dtype)
        if dtype == torch.uint8:
            shapes[f"{name}_scales"] = ((n_blocks(parameter.numel()),), torch.float32)
    return shapes


@torch.no_grad()
def plain_step(step: AdamWStep, parameter: Tensor, gradient: Tensor, state: State) -> None:
    """Move `parameter` and the moments of `state` in place. The step uses the moments before they are rounded."""
    first, second = (_read(state, name, signed) for name, signed in ((FIRST, True), (SECOND, False)))
    gradient = gradient.float()
    first.add_((gradient - first) * (1 - step.beta1))
    second.mul_(step.beta2).add_(gradient.square() * (1 - step.beta2))
    size = second.sqrt() * step.correction + step.eps
    parameter.mul_(step.shrink).sub_(step.stride * (first / size))
    _write(state, FIRST, first, signed=True)
    _write(state, SECOND, second, signed=False)


def _read(state: State, name: str, signed: bool) -> Tensor:
    if state[name].dtype == torch.uint8:
        return dequantize(Codes(state[name], state[f"{name}_scales"]), signed)
    return state[name].float().clone()


def _write(state: State, name: str, moment: Tensor, signed: bool) -> None:
    if state[name].dtype == torch.uint8:
        found = quantize(moment, signed)
        state[name].copy_(found.codes)
        state[f"{name}_scales"].copy_(found.scales)
    else:
        state[name].copy_(moment)
