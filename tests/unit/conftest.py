"""The smallest decoder that has everything: grouped heads, two layers, a choice of biases and of the head."""

from collections.abc import Callable

import pytest
import torch

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.transformer import Transformer, init_weights


def _tiny_model(vocab_size: int = 32, tied_head: bool = True, biases: str = "", seed: int = 0) -> Transformer:
    """`biases` names the projections that have one, such as "qkv"; norms and biases are away from ones and zeros."""
    config = ModelConfig(
        family="llama",
        vocab_size=vocab_size,
        dim=32,
        n_layers=2,
        attention=GQA(n_heads=4, n_kv_heads=2, head_dim=8, **{f"{name}_bias": name in biases for name in "qkvo"}),
        ffn=Dense(inter_dim=48),
        norm_eps=1e-5,
        rope_theta=10_000.0,
        max_seq_len=128,
        tied_head=tied_head,
    )
    model = Transformer(config)
    init_weights(model, std=0.15, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Transformer]:
    """Builds a fresh one at each call."""
    return _tiny_model
