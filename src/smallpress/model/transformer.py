"""The decoder: embedding, pre-norm blocks, final norm, head. All tokens of all sequences lie in one row of N."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallpress.model.config import ModelConfig
from smallpress.model.gqa import Attend, GroupedQueryAttention
from smallpress.model.mlp import SwiGLU
from smallpress.model.norm import RMSNorm
from smallpress.model.rope import rope_tables


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.attn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attn = GroupedQueryAttention(config.attention, config.dim, layer)
        self.mlp_norm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = SwiGLU(config.ffn, config.dim)

    def forward(self, x_NM: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x_NM = x_NM + self.attn(self.attn_norm(x_NM), rope, attend)
        return x_NM + self.mlp(self.mlp_norm(x_NM))


class Transformer(nn.Module):
    """A llama-shaped decoder.

    Sequences are not padded: `ids_N` holds the tokens of every sequence one after another and `positions_N` the place
    of each in its own sequence; which token sees which is decided by `attend` alone (see `gqa.Attend`).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = None if config.tied_head else nn.Linear(config.dim, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """[V, M]: the output head, or the embedding it is tied to."""
        return self.embed.weight if self.head is None else self.head.weight

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """Hidden states after the final norm, [N, M]; `logits` turns those rows into words that need it."""
        assert ids_N.shape == positions_N.shape and ids_N.ndim == 1, f"{ids_N.shape=} {positions_N.shape=}"
        x_NM = self.embed(ids_N)
        rope = rope_tables(positions_N, self.config.attention.head_dim, self.config.rope_theta, x_NM.dtype)
        for block in self.layers:
            x_NM = block(x_NM, rope, attend)
        return self.norm(x_NM)

    def logits(self, hidden_NM: Tensor) -> Tensor:
        """[N, V]."""
        return F.linear(hidden_NM, self.head_weight) if self.head is None else self.head(hidden_NM)


@torch.no_grad()
def init_weights(model: Transformer, std: float, seed: int) -> None:
    """Normal(0, std) for every matrix, ones for norms, zeros for biases; the same on every machine for one seed."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            parameter.normal_(0.0, std, generator=generator)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1.0)
