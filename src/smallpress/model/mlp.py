"""The dense feed-forward."""

import torch.nn.functional as F
from torch import Tensor, nn

from smallpress.model.config import Dense


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, config: Dense, dim: int):
        super().__init__()
        self.gate = nn.Linear(dim, config.inter_dim, bias=config.bias)
        self.up = nn.Linear(dim, config.inter_dim, bias=config.bias)
        self.down = nn.Linear(config.inter_dim, dim, bias=config.bias)

    def forward(self, x_NM: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_NM)) * self.up(x_NM))
