"""`model.Transformer` itself as the torch runner's forward pass, for the models that have no packed form."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from smallpress.engine.low_rank_rows import AdaptedLinear, LowRankRows, Pairs
from smallpress.model.config import ModelConfig
from smallpress.model.gqa import Attend
from smallpress.model.mla import LatentAttention
from smallpress.model.transformer import Transformer


class PlainTransformer:
    """The same interface as `PackedTransformer`. Latent attention runs in its absorbed form, which reads latents."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, named: Mapping[str, Tensor]):
        self.config, self.dtype = config, dtype
        with torch.device("meta"):
            self.model = Transformer(config).to(dtype)
        self.model.to_empty(device=named["embed.weight"].device).requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, LatentAttention):
                module.absorbs = True
        self.low_rank = LowRankRows(named["embed.weight"].device)
        self.load(named)

    def add_adapter(self, adapter: Pairs) -> int:
        for layer in adapter.pairs:
            module = self.model.get_submodule(layer)
            if isinstance(module, nn.Linear):
                self.model.set_submodule(layer, AdaptedLinear(module, layer, self.low_rank))
        return self.low_rank.add(adapter)

    @property
    def embed_VM(self) -> Tensor:
        return self.model.embed.weight

    @torch.no_grad()
    def load(self, named: Mapping[str, Tensor]) -> None:
        """Take all weights, by the names of `Transformer.named_parameters()`."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(named[name])

    def __call__(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """Hidden states after the final norm, [N, M]."""
        return self.model(ids_N, positions_N, attend)

    def logits(self, hidden_NM: Tensor) -> Tensor:
        return self.model.logits(hidden_NM)
