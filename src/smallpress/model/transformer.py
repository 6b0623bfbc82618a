"""The decoder: embedding, blocks, final norm, head. All tokens of all sequences lie in one row of N."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smallpress.model.block import Block
from smallpress.model.config import ModelConfig
from smallpress.model.gqa import Attend
from smallpress.model.mtp import MTPModule
from smallpress.model.norm import RMSNorm
from smallpress.model.rope import Tables, rope_tables


class Transformer(nn.Module):
    """A decoder of any config.

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
        mtp = config.mtp
        self.recompute = False
        """Keep only the stream between blocks, and compute each block once more in the backward pass."""
        self.mtp = nn.ModuleList([] if mtp is None else [MTPModule(config, mtp, k) for k in range(mtp.n_modules)])

    @property
    def head_weight(self) -> Tensor:
        """[V, M]: the output head, or the embedding it is tied to."""
        return self.embed.weight if self.head is None else self.head.weight

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """Hidden states after the final norm, [N, M]; `logits` turns those rows into words that need it."""
        assert ids_N.shape == positions_N.shape and ids_N.ndim == 1, f"{ids_N.shape=} {positions_N.shape=}"
        x_NM = self.embedded(ids_N)
        ropes = self.ropes(positions_N, x_NM.dtype)
        return self.norm(self.through(range(len(self.layers)), x_NM, ropes, attend))

    def through(self, layers: Iterable[int], x_NM: Tensor, ropes: Sequence[Tables], attend: Attend) -> Tensor:
        """The stream after these layers; `ropes` are those of all."""
        for layer in layers:
            if self.recompute and torch.is_grad_enabled():
                x_NM = checkpoint(self.layers[layer], x_NM, ropes[layer], attend, use_reentrant=False)
            else:
                x_NM = self.layers[layer](x_NM, ropes[layer], attend)
        return x_NM

    def predict_further(self, k: int, hidden_NM: Tensor, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """Hidden states of MTP module k, from which `logits` gives the token after next where k is 0.

        `hidden_NM`: those of module k - 1, for k = 0 of `forward`. `ids_N` and `positions_N`: of the tokens k + 1
        places further.
        """
        x_NM = self.embedded(ids_N)
        rope = self.ropes(positions_N, x_NM.dtype)[self.config.n_layers + k]
        return self.mtp[k](x_NM, hidden_NM, rope, attend)

    def logits(self, hidden_NM: Tensor) -> Tensor:
        """[N, V]."""
        return F.linear(hidden_NM, self.head_weight) if self.head is None else self.head(hidden_NM)

    def embedded(self, ids_N: Tensor) -> Tensor:
        """[N, M]: what the first block is given."""
        x_NM = self.embed(ids_N)
        return x_NM if self.config.embed_scale == 1.0 else x_NM * self.config.embed_scale

    def ropes(self, positions_N: Tensor, dtype: torch.dtype) -> list[Tables]:
        """The tables of every layer, MTP's too; layers that rotate alike share them."""
        dim, kinds = self.config.attention.rope_dim, {}
        ropes = [self.config.rope_of(layer) for layer in range(len(self.layers) + len(self.mtp))]
        for theta, scaling in set(ropes):
            kinds[theta, scaling] = rope_tables(positions_N, dim, theta, dtype, scaling)
        return [kinds[rope] for rope in ropes]


@torch.no_grad()
def init_weights(model: Transformer, std: float, seed: int) -> None:
    """Normal(0, std) for every matrix, ones for norms, zeros for biases; the same on every machine for one seed."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            parameter.normal_(0.0, std, generator=generator)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1.0)
