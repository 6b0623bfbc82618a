"""Rotary position embedding (Su et al. 2021), in the two layouts that weights come in."""

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
    cos, sin = tables
    left, right = (x_NHD[..., ::2], x_NHD[..., 1::2]) if interleaved else x_NHD.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
