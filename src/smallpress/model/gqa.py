"""Grouped-query attention: the projections and the rotation; where keys live is the caller's business."""

from collections.abc import Callable

from torch import Tensor, nn

from smallpress.model.config import GQA, ModelConfig
from smallpress.model.frequencies import softmax_scale
from smallpress.model.norm import RMSNorm
from smallpress.model.rope import Tables, rotate

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_NHD, k_NKD, v_NKD) -> out_NHD, softmax scale D^-0.5 of the queries given included.

Values may be narrower than keys; the result is as wide as they are. The trainer passes causal attention over packed
sequences; the engine one that writes k and v into its pages. Both know from the config which layers have a window.
"""


class GroupedQueryAttention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        attention, dim = config.attention, config.dim
        assert isinstance(attention, GQA)
        self.head_dim, self.layer, self.interleaved = attention.head_dim, layer, config.rope_interleaved
        # What `attend` has too little; exactly 1 where it is right.
        self.q_gain = 1.0 if attention.scale is None else softmax_scale(config) * self.head_dim**0.5
        self.norm_first = attention.qk_norm == "before_rope"
        q_dim, kv_dim = attention.n_heads * attention.head_dim, attention.n_kv_heads * attention.head_dim
        self.q = nn.Linear(dim, q_dim, bias=attention.q_bias)
        self.k = nn.Linear(dim, kv_dim, bias=attention.k_bias)
        self.v = nn.Linear(dim, kv_dim, bias=attention.v_bias)
        self.o = nn.Linear(q_dim, dim, bias=attention.o_bias)
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps) if attention.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps) if attention.qk_norm else None

    def forward(self, x_NM: Tensor, rope: Tables, attend: Attend) -> Tensor:
        q_NHD, k_NKD, v_NKD = (p(x_NM).unflatten(-1, (-1, self.head_dim)) for p in (self.q, self.k, self.v))
        q_NHD = self._placed(q_NHD, self.q_norm, rope)
        if self.q_gain != 1.0:
            q_NHD = q_NHD * self.q_gain
        out_NHD = attend(self.layer, q_NHD, self._placed(k_NKD, self.k_norm, rope), v_NKD)
        return self.o(out_NHD.flatten(1))

    def _placed(self, x_NHD: Tensor, norm: RMSNorm | None, rope: Tables) -> Tensor:
        """Rotated, and normed before or after that."""
        if norm is None:
            return rotate(x_NHD, rope, self.interleaved)
        if self.norm_first:
            return rotate(norm(x_NHD), rope, self.interleaved)
        return norm(rotate(x_NHD, rope, self.interleaved))
