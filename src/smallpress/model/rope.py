"""Rotary position embedding in the half-split layout: dimension i turns with dimension i + head_dim / 2."""

import torch
from torch import Tensor


def rope_tables(positions_N: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta^(-2i / head_dim), each [N, 1, head_dim / 2]; angles in fp32 (Su et al. 2021)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_N.device) / head_dim
    angles_N1F = (positions_N[:, None].float() * theta**-exponents)[:, None]
    return angles_N1F.cos().to(dtype), angles_N1F.sin().to(dtype)


def rotate(x_NHD: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i + D/2}) by its angle."""
    cos, sin = tables
    left, right = x_NHD.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
