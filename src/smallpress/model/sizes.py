"""How large a model is and what it costs, from its config alone: parameters, cache, arithmetic.

forward FLOPs of a token = 2 (parameters that multiply it + what attention does over the tokens it sees)
training FLOPs = 3 times that: the backward pass makes the gradients of inputs and of weights
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from smallpress.model.config import GQA, MLA, ModelConfig
from smallpress.model.shapes import block_shapes, tensor_shapes

TRAINING = 3


@dataclass(frozen=True, slots=True)
class Parameters:
    """`total` without MTP; `active`: those that one token meets, the head among them, the embedding's rows not; `mtp`:
    the modules' own, without the embedding and head that they share; `embedding`: the embedding's rows."""

    total: int
    active: int
    mtp: int
    embedding: int


@cache
def parameters(config: ModelConfig) -> Parameters:
    sizes = {name: math.prod(shape) for name, shape in tensor_shapes(config).items()}
    mtp = sum(size for name, size in sizes.items() if name.startswith("mtp."))
    total = sum(sizes.values()) - mtp
    idle = sum(_idle(config, layer) for layer in range(config.n_layers))
    embedding = config.vocab_size * config.dim
    # A tied embedding is the head, and active as such.
    active = total - idle - (0 if config.tied_head else embedding)
    return Parameters(total, active, mtp, embedding)


@cache
def mtp_active(config: ModelConfig) -> int:
    """Parameters of one MTP module that a token meets."""
    return parameters(config).mtp // config.mtp.n_modules - _idle(config, config.n_layers) if config.mtp else 0


def cache_bits(config: ModelConfig, format: str) -> float:
    """Of a number of the cache in float32, bfloat16 or int8, where each token of a head has an fp32 scale besides."""
    if format == "int8" and isinstance(config.attention, GQA):
        return 8 + 32 / config.attention.head_dim
    return 32 if format == "float32" else 16


def cache_bytes(config: ModelConfig, n_tokens: int = 1, bits: float = 16) -> int:
    """What the keys and values of `n_tokens` take, all layers together; a window does not make it less here."""
    return math.ceil(config.n_layers * n_tokens * math.prod(config.attention.cache_shape) * bits / 8)


def multiply_adds(config: ModelConfig, n_context: float, absorbed: bool = True) -> float:
    """Of one token that sees `n_context` tokens, itself among them: the matrices it meets, and attention.

    MLA in its `absorbed` form reads the latent as key and as value; in the plain form the keys and values of each head
    (made from the latent by matrices that are counted for their own token). Absorbing costs as much as that does.
    """
    each = _per_key(config, absorbed)
    seen = sum(min(n_context, config.window_of(layer) or n_context) for layer in range(config.n_layers))
    return _all_matrices(config) + each * seen


def forward_flops(config: ModelConfig, n_tokens: int, n_before: int = 0) -> float:
    """Of a prompt's `n_tokens` after `n_before` others, logits of each included; MLA in its plain form.

    >>> from smallpress.model.config import GQA, Dense
    >>> one = {"n_heads": 1, "n_kv_heads": 1, "head_dim": 2}
    >>> sizes = {"vocab_size": 3, "dim": 2, "n_layers": 1, "norm_eps": 1e-5, "rope_theta": 1e4, "max_seq_len": 8}
    >>> config = ModelConfig(family="llama", attention=GQA(**one), ffn=Dense(inter_dim=5), **sizes)
    >>> forward_flops(config, 1)  # 2 (q k v o: 16, feed-forward: 30, head: 6, one key and one value: 4)
    112.0
    """
    window_sums = [_seen(n_before, n_tokens, config.window_of(layer)) for layer in range(config.n_layers)]
    matrices = multiply_adds(config, 0)
    return 2.0 * (n_tokens * matrices + _per_key(config, absorbed=False) * sum(window_sums))


def training_flops(config: ModelConfig, n_tokens: int) -> float:
    """Forward and backward pass of one sequence."""
    return TRAINING * forward_flops(config, n_tokens)


def _seen(n_before: int, n_tokens: int, window: int | None) -> int:
    """How many tokens each of the new ones sees, added up."""
    first, last = n_before + 1, n_before + n_tokens
    if window is None or last <= window:
        return (first + last) * n_tokens // 2
    n_growing = max(0, window - n_before)
    return (first + window) * n_growing // 2 + window * (n_tokens - n_growing)


def _per_key(config: ModelConfig, absorbed: bool) -> int:
    """Multiply-adds of one query token with one token it sees, in one layer."""
    attention = config.attention
    if not isinstance(attention, MLA):
        return 2 * attention.n_heads * attention.head_dim
    latent = attention.kv_lora_rank
    if absorbed:
        return attention.n_heads * (latent + attention.qk_rope_head_dim + latent)
    return attention.n_heads * (attention.qk_head_dim + attention.v_head_dim)


@cache
def _all_matrices(config: ModelConfig) -> int:
    """Those a token meets, the head among them."""
    return sum(_matrices(config, layer) for layer in range(config.n_layers)) + config.vocab_size * config.dim


def _matrices(config: ModelConfig, layer: int) -> int:
    shapes: Iterable[tuple[int, ...]] = block_shapes(config, layer).values()
    return sum(math.prod(shape) for shape in shapes if len(shape) > 1) - _idle(config, layer)


def _idle(config: ModelConfig, layer: int) -> int:
    """Parameters of the layer's experts that a token is not routed to."""
    ffn = config.ffn_of(layer)
    if ffn.kind == "dense":
        return 0
    return 3 * config.dim * ffn.moe_inter_dim * (ffn.n_routed_experts - ffn.n_active_experts)
