"""A tiny model for the native core, as plain arrays: nothing here needs torch."""

from collections.abc import Callable

import numpy as np
import pytest

from smallpress.engine.native_runner import NativeRunner
from smallpress.model.config import GQA, Dense, ModelConfig

VOCAB, DIM, INTER = 600, 48, 80


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    heads = GQA(n_heads=6, n_kv_heads=2, head_dim=16)
    return ModelConfig(
        family="llama", vocab_size=VOCAB, dim=DIM, n_layers=2, attention=heads, ffn=Dense(inter_dim=INTER),
        norm_eps=1e-5, rope_theta=10_000.0, max_seq_len=256, tied_head=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def named() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return (0.3 * generator.standard_normal(shape)).astype(np.float32)

    weights = {"embed.weight": matrix(VOCAB, DIM), "norm.weight": 1 + matrix(DIM)}
    for i in range(2):
        shapes = {"attn.q": (96, DIM), "attn.k": (32, DIM), "attn.v": (32, DIM), "attn.o": (DIM, 96),
                  "mlp.gate": (INTER, DIM), "mlp.up": (INTER, DIM), "mlp.down": (DIM, INTER)}  # fmt: skip
        weights |= {f"layers.{i}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        weights |= {f"layers.{i}.{name}.weight": 1 + matrix(DIM) for name in ("attn_norm", "mlp_norm")}
    return weights


@pytest.fixture
def runner(config: ModelConfig, named: dict[str, np.ndarray]) -> Callable[..., NativeRunner]:
    return lambda kernels="", **how: NativeRunner(config, named, page_size=4, n_pages=200, kernels=kernels, **how)
