"""Root-mean-square layer norm."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, the mean in fp32 (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_NM: Tensor) -> Tensor:
        wide_NM = x_NM.float()
        inverse_N1 = torch.rsqrt(wide_NM.square().mean(-1, keepdim=True) + self.eps)
        return (wide_NM * inverse_N1).to(x_NM.dtype) * self.weight
