"""Rotary position embedding (Su et al. 2021), in the two layouts that weights come in."""

from typing import Any

import torch
from torch import Tensor

from smallpress.model.config import DynamicNTK, RopeScaling
from smallpress.model.frequencies import frequencies, ntk_theta, rope_gain

Tables = tuple[Tensor, Tensor]


def rope_tables(
    positions_N: Tensor, head_dim: int, theta: float, dtype: torch.dtype, scaling: RopeScaling | None = None
) -> Tables:
    """cos and sin of position * frequency, each [N, 1, head_dim / 2]; angles in fp32."""
    device = positions_N.device
    if isinstance(scaling, DynamicNTK):
        lengths_N = positions_N.double().cpu().numpy() + 1
        bases_N1 = torch.from_numpy(ntk_theta(lengths_N, head_dim, theta, scaling)).to(device)[:, None]
        speeds = (bases_N1 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)).float()
    else:
        speeds = torch.from_numpy(frequencies(head_dim, theta, scaling)).float().to(device)
    angles_N1F = (positions_N[:, None].float() * speeds)[:, None]
    gain = rope_gain(scaling)
    return (angles_N1F.cos() * gain).to(dtype), (angles_N1F.sin() * gain).to(dtype)


def rotate(x_NHD: Tensor, tables: Tables, interleaved: bool = False) -> Tensor:
    """Turn each pair by its angle: (x_i, x_{i + D/2}), or (x_2i, x_{2i + 1}) where `interleaved`.

    Interleaved pairs come out as halves. Scores do not change by it, as q and k come out in one order.
    """
    return _Rotated.apply(x_NHD, *tables, interleaved)


class _Rotated(torch.autograd.Function):
    """The gradient is turned back, where autograd's own would fill arrays of zeros and add them up."""

    @staticmethod
    def forward(ctx: Any, x_NHD: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved = interleaved
        out_NHD = torch.empty_like(x_NHD)
        _turn(_pairs(x_NHD, interleaved), cos, sin, 1, _pairs(out_NHD, False))
        return out_NHD

    @staticmethod
    def backward(ctx: Any, grad_NHD: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        grad_x_NHD = torch.empty_like(grad_NHD)
        _turn(_pairs(grad_NHD, False), cos, sin, -1, _pairs(grad_x_NHD, ctx.interleaved))
        return grad_x_NHD, None, None, None


def _pairs(x_NHD: Tensor, interleaved: bool) -> tuple[Tensor, Tensor]:
    left, right = (x_NHD[..., ::2], x_NHD[..., 1::2]) if interleaved else x_NHD.chunk(2, dim=-1)
    return left, right


def _turn(x: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor, sign: int, out: tuple[Tensor, Tensor]) -> None:
    """Pairs by their angles, or by the negative ones, into `out`."""
    torch.mul(x[0], cos, out=out[0]).addcmul_(x[1], sin, value=-sign)
    torch.mul(x[1], cos, out=out[1]).addcmul_(x[0], sin, value=sign)
