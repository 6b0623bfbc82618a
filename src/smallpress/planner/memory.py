"""What a run holds in memory at its fullest, part by part, in bytes; from the config and the settings alone.

Generation: packed weights, keys and values, the arrays of one step. Training: weights that compute and the fp32 ones
they are rounded from, gradients, the optimizer's moments, what the backward pass needs of a micro-batch, and the logits
of a few rows at a time. On one machine training's parts are those of optim/master.py, model/ and rl/.
"""

import math
from collections.abc import Mapping

from smallpress.model.config import GQA, Dense, ModelConfig, MoE
from smallpress.model.shapes import tensor_shapes
from smallpress.model.sizes import cache_bits, cache_bytes, parameters
from smallpress.planner.rates import BITS

Parts = dict[str, float]

WIDTH = {"fp8": 1, "bfloat16": 2, "float32": 4}
"""Bytes of a number that is computed with."""

KEPT_HEAD_ROWS, LOGIT_ROWS, KEPT_LOGITS = 512, 128, 1 << 25
"""Rows whose gradients, and whose logits, stand at once in model/token_logprobs.py; and up to how many logits, of all
rows and words, they are all kept there."""

READ_ROWS = 64
"""Rows whose logits, the student's and the teacher's, stand at once in train/divergence.py."""

CACHE = "KV cache"
ALLOCATOR = 0.06
"""Of what comes and goes during training, what the system's allocator holds besides."""

WORD = 600
"""Bytes of a tokenizer for each word it knows."""

PANEL, BLOCK = 16, 64
"""Rows and columns that the native core's packed weights are filled up to."""


def packed_bytes(config: ModelConfig, format: str) -> int:
    """Weights in the native core: codes with a scale for 64 columns in 8 bits, for 32 in 4, and fp32 vectors.

    In int4 embedding and head keep 8 bits. Where embedding and head are one they lie there once.
    """
    total = 0
    for name, shape in tensor_shapes(config).items():
        if len(shape) == 1:
            total += 4 * shape[0]
            continue
        *stacked, rows, columns = shape
        bits = 8 if format == "int4" and name in ("embed.weight", "head.weight") else FORMAT_BITS[format]
        blocks = math.prod(stacked) * math.ceil(rows / PANEL) * PANEL * math.ceil(columns / BLOCK)
        scales = {16: 0, 8: 2, 4: 4, 32: 0}[bits]
        total += blocks * (BLOCK * bits // 8 + scales)
    return total


FORMAT_BITS = {"int4": 4, "int8": 8, "fp8": 8, "bfloat16": 16, "float32": 32}


def stored_bytes(config: ModelConfig, format: str, is_here: bool) -> float:
    """Weights of generation: packed by our core here, else as many bits as the format has."""
    if is_here and format != "float32":
        return float(packed_bytes(config, format))
    sizes = parameters(config)
    return sizes.total * BITS[format] / 8


def generation_parts(
    config: ModelConfig, format: str, n_tokens: float, n_rows: float, n_logit_rows: float, cache: str = "bfloat16"
) -> Parts:
    """`n_tokens` held in the cache by all sequences together, in the format `cache` unless all is in float32; `n_rows`
    the most rows of a step."""
    bits = cache_bits(config, "float32" if format == "float32" else cache)
    return {
        CACHE: float(cache_bytes(config, math.ceil(n_tokens), bits)),
        "activations": n_rows * step_bytes(config),
        "logits": 4.0 * n_logit_rows * config.vocab_size,
    }


def step_bytes(config: ModelConfig) -> float:
    """Of one row in the native core's forward pass: stream, q k v, attention's output, gate and up in fp32, and the
    widest of them once more as codes."""
    attention, width = config.attention, _ffn_width(config)
    if isinstance(attention, GQA):
        q, kv = attention.n_heads * attention.head_dim, 2 * attention.n_kv_heads * attention.head_dim
    else:
        q, kv = attention.n_heads * attention.qk_head_dim, attention.cache_shape[1]
    return 4.0 * (config.dim + 2 * q + kv + 2 * width) + 4.0 * max(config.dim, width)


def saved_values(config: ModelConfig, layer: int) -> float:
    """Numbers that one token leaves in a layer for its backward pass: the stream before each norm and what the norm
    gives, q, keys and values, attention's output, gate and up of the feed-forward; attention itself is computed again.

    For sparse experts: those a token is routed to, their inputs too; for latent attention queries, latents and what is
    made of them.
    """
    attention, dim = config.attention, config.dim
    if isinstance(attention, GQA):
        q = attention.n_heads * attention.head_dim
        inside = 2 * q + 2 * attention.n_kv_heads * attention.head_dim
    else:
        heads = attention.n_heads
        inside = heads * (attention.qk_head_dim + attention.v_head_dim) + (attention.q_lora_rank or 0)
        inside += 2 * attention.cache_shape[1]  # keys and values of the heads are made again from the latent
    ffn = config.ffn_of(layer)
    if isinstance(ffn, Dense):
        return 4 * dim + inside + 2 * ffn.inter_dim
    width = ffn.moe_inter_dim
    return 4 * dim + inside + ffn.n_active_experts * (2 * width + dim) + 2 * ffn.n_shared_experts * width


def activation_bytes(config: ModelConfig, n_tokens: float, dtype: str) -> float:
    return n_tokens * WIDTH[dtype] * sum(saved_values(config, layer) for layer in range(config.n_layers))


def head_bytes(config: ModelConfig, dtype: str, n_tokens: float = math.inf) -> float:
    """While log-probabilities pass backward: the head's gradient in fp32 and rounded, one product added to it, the
    rows of gradients, all `n_tokens` where they are few, and of logits that stand at once."""
    matrix = config.vocab_size * config.dim
    n_rows = n_tokens if n_tokens * config.vocab_size <= KEPT_LOGITS else KEPT_HEAD_ROWS
    rows = n_rows * WIDTH[dtype] + LOGIT_ROWS * 3 * 4
    return matrix * (4.0 + 2 * WIDTH[dtype]) + rows * config.vocab_size


def optimizer_bytes(config: ModelConfig, optimizer: str) -> float:
    """Both moments; in 8 bits a scale for 256 values, and those of embeddings in fp32."""
    sizes = parameters(config)
    total = sizes.total + sizes.mtp
    if optimizer == "adamw8":
        return (total - sizes.embedding) * 2 * (1 + 4 / 256) + 8.0 * sizes.embedding
    return total * (4.0 if optimizer == "adamw16" else 8.0)


def training_parts(config: ModelConfig, n_tokens: float, dtype: str, optimizer: str, shards: float = 1.0) -> Parts:
    """One chip that holds 1 / `shards` of the states and micro-batches of `n_tokens`."""
    sizes = parameters(config)
    total = (sizes.total + sizes.mtp) / shards
    activations = activation_bytes(config, n_tokens, dtype)
    return {
        "weights": total * (4.0 + WIDTH[dtype] * (dtype != "float32")),  # in fp32 what computes is the master itself
        "gradients": 4.0 * total,
        "optimizer state": optimizer_bytes(config, optimizer) / shards,
        "activations": activations,
        "logits": head_bytes(config, dtype, n_tokens),
    }


def at_fullest(parts: Parts, n_micro_batches: float) -> Parts:
    """Gradients stay from one micro-batch to the next, but a step of one alone has them whole only when its
    activations are gone."""
    if n_micro_batches > 1:
        return parts
    less = min("gradients", "activations", key=lambda name: parts[name])
    return parts | {less: 0.0}


def added(*parts: Mapping[str, float]) -> Parts:
    """
    >>> added({"weights": 1.0}, {"weights": 2.0, "logits": 0.5})
    {'weights': 3.0, 'logits': 0.5}
    """
    total: Parts = {}
    for one in parts:
        for name, value in one.items():
            total[name] = total.get(name, 0.0) + value
    return total


def in_all(parts: Mapping[str, float]) -> float:
    return sum(parts.values())


def _ffn_width(config: ModelConfig) -> int:
    ffn = config.ffn
    if isinstance(ffn, MoE):
        return (ffn.n_active_experts + ffn.n_shared_experts) * ffn.moe_inter_dim
    return ffn.inter_dim
