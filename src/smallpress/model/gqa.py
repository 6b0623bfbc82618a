"""Grouped-query attention: the projections and the rotation; where keys live is the caller's business."""

from collections.abc import Callable

from torch import Tensor, nn

from smallpress.model.config import GQA
from smallpress.model.rope import rotate

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_NHD, k_NKD, v_NKD) -> out_NHD, softmax scale head_dim^-0.5 included.

The trainer passes causal attention over packed sequences; the engine one that writes k and v into its pages.
"""


class GroupedQueryAttention(nn.Module):
    def __init__(self, config: GQA, dim: int, layer: int):
        super().__init__()
        self.head_dim, self.layer = config.head_dim, layer
        q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q = nn.Linear(dim, q_dim, bias=config.q_bias)
        self.k = nn.Linear(dim, kv_dim, bias=config.k_bias)
        self.v = nn.Linear(dim, kv_dim, bias=config.v_bias)
        self.o = nn.Linear(q_dim, dim, bias=config.o_bias)

    def forward(self, x_NM: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        q_NHD, k_NKD, v_NKD = (p(x_NM).unflatten(-1, (-1, self.head_dim)) for p in (self.q, self.k, self.v))
        out_NHD = attend(self.layer, rotate(q_NHD, rope), rotate(k_NKD, rope), v_NKD)
        return self.o(out_NHD.flatten(1))
