"""Root-mean-square layer norm."""

from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, the mean in fp32 (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """`x` may have any number of dimensions before the one that is normed."""
        return _RMSNorm.apply(x.flatten(0, -2), self.weight, self.eps).view(x.shape)


class _RMSNorm(torch.autograd.Function):
    """Keeps x and one number a row for the backward pass, where autograd's own would keep four arrays of x's size."""

    @staticmethod
    def forward(ctx: Any, x_NM: Tensor, weight_M: Tensor, eps: float) -> Tensor:
        wide_NM = x_NM.float()
        inverse_N1 = torch.rsqrt(wide_NM.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x_NM, weight_M, inverse_N1)
        return (wide_NM * inverse_N1).to(x_NM.dtype).mul_(weight_M)

    @staticmethod
    def backward(ctx: Any, grad_NM: Tensor) -> tuple[Tensor, Tensor, None]:
        """With n = x / rms(x): dx = (g w - n mean(g w n)) / rms(x), dw = sum over rows of g n."""
        x_NM, weight_M, inverse_N1 = ctx.saved_tensors
        normed_NM = x_NM * inverse_N1
        room_NM = grad_NM * normed_NM
        grad_weight_M = room_NM.sum(0)
        inner_N = torch.mv(room_NM, weight_M.to(room_NM.dtype)) / room_NM.shape[1]
        weighted_NM = torch.mul(grad_NM, weight_M, out=room_NM)
        grad_x_NM = weighted_NM.addcmul_(normed_NM, inner_N[:, None], value=-1).mul_(inverse_N1)
        return grad_x_NM.to(x_NM.dtype), grad_weight_M.to(weight_M.dtype), None
