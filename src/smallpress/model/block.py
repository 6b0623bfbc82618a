"""One block of the decoder: attention and feed-forward, each normed before it and added to the stream after it."""

from torch import Tensor, nn

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.gqa import Attend, GroupedQueryAttention
from smallpress.model.mla import LatentAttention
from smallpress.model.mlp import GatedMLP
from smallpress.model.moe import SparseMLP
from smallpress.model.norm import RMSNorm
from smallpress.model.rope import Tables


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        ffn, is_gqa = config.ffn_of(layer), isinstance(config.attention, GQA)

        def norm() -> RMSNorm:
            return RMSNorm(config.dim, config.norm_eps)

        self.attn_norm = norm()
        self.attn = GroupedQueryAttention(config, layer) if is_gqa else LatentAttention(config, layer)
        self.attn_post_norm = norm() if config.post_norms else nn.Identity()
        self.mlp_norm = norm()
        self.mlp = GatedMLP(ffn, config.dim) if isinstance(ffn, Dense) else SparseMLP(ffn, config.dim)
        self.mlp_post_norm = norm() if config.post_norms else nn.Identity()

    def forward(self, x_NM: Tensor, rope: Tables, attend: Attend) -> Tensor:
        x_NM = x_NM + self.attn_post_norm(self.attn(self.attn_norm(x_NM), rope, attend))
        return x_NM + self.mlp_post_norm(self.mlp(self.mlp_norm(x_NM)))
