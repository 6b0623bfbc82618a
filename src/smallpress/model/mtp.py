"""Multi-token prediction (DeepSeek-V3, section 2.2): a chain of small modules that each guess one token further.

    h_i^0 = the decoder's output at i, after its final norm
    h_i^k = norm(block(proj [embed_norm(embed t_{i+k}); hidden_norm(h_i^{k-1})]))

and the logits of t_{i+k+1} are those of the head on h_i^k. Embedding and head are the decoder's own. The paper writes
the projection's input the other way round (`MTP.hidden_first`); the released weights take the embedding first.
"""

import torch
from torch import Tensor, nn

from smallpress.model.block import Block
from smallpress.model.config import MTP, ModelConfig
from smallpress.model.gqa import Attend
from smallpress.model.norm import RMSNorm
from smallpress.model.rope import Tables


class MTPModule(nn.Module):
    """Module k; for `attend` its block is layer `n_layers` + k."""

    def __init__(self, config: ModelConfig, mtp: MTP, k: int):
        super().__init__()
        self.hidden_first = mtp.hidden_first
        self.embed_norm = RMSNorm(config.dim, config.norm_eps)
        self.hidden_norm = RMSNorm(config.dim, config.norm_eps)
        self.proj = nn.Linear(2 * config.dim, config.dim, bias=False)
        self.block = Block(config, config.n_layers + k)
        self.norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, embedded_NM: Tensor, hidden_NM: Tensor, rope: Tables, attend: Attend) -> Tensor:
        """`embedded_NM`: the embeddings of the tokens k + 1 places after those of `hidden_NM`, whose positions are the
        embedded tokens' own (only differences of positions count)."""
        pair = self.embed_norm(embedded_NM), self.hidden_norm(hidden_NM)
        x_NM = self.proj(torch.cat(pair[::-1] if self.hidden_first else pair, -1))
        return self.norm(self.block(x_NM, rope, attend))
