"""How fast a model runs: tokens a second of prefill and decode, and the floor that the machine sets for them."""

import time
from dataclasses import dataclass

import numpy as np

from smallpress.engine.engine import Engine
from smallpress.engine.request import Request, SamplingParams
from smallpress.model.config import ModelConfig
from smallpress.run.seeds import derive_seed
from smallpress.weights.names import tensor_shapes

SHORT = 16  # tokens of the prompts that decoding starts from


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes and 8-bit multiply-adds a second, of all threads together."""

    bandwidth: float
    multiply_adds: float


def decode_rate(engine: Engine, n_running: int, n_tokens: int, seed: int) -> float:
    """New tokens a second of `n_running` sequences that are `SHORT` tokens long at first and never stop.

    Prompts are drawn anew for each seed, so that nothing is shared with what ran before.
    """
    params = SamplingParams(max_tokens=n_tokens + 1, temperature=0.0)
    for i in range(n_running):
        engine.submit(Request(_ids(engine.runner.vocab_size, SHORT, seed, i), params))
    engine.step()  # the prompts, and each one's first token
    began = time.perf_counter()
    while engine.busy:
        engine.step()
    return n_running * n_tokens / (time.perf_counter() - began)


def prefill_rate(engine: Engine, n_prompt: int, seed: int) -> float:
    """Prompt tokens a second, until the first new token is there."""
    ids = _ids(engine.runner.vocab_size, n_prompt, seed, 0)
    engine.submit(Request(ids, SamplingParams(max_tokens=1, temperature=0.0)))
    began = time.perf_counter()
    while engine.busy:
        engine.step()
    return n_prompt / (time.perf_counter() - began)


def _ids(vocab_size: int, n: int, *parts: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(derive_seed("speed", *parts)).integers(0, vocab_size, n).tolist())


def multiply_adds_a_token(config: ModelConfig, n_context: float) -> float:
    """Of one token in all weights but the embedding's row, and in attention over `n_context` tokens on average."""
    matrices = sum(shape[0] * shape[1] for name, shape in tensor_shapes(config).items() if len(shape) == 2)
    if not config.tied_head:
        matrices -= config.vocab_size * config.dim
    heads = config.attention
    return matrices + 2 * n_context * config.n_layers * heads.n_heads * heads.head_dim


def most_tokens(machine: Machine, config: ModelConfig, weight_bytes: int, n_running: int, n_context: float) -> float:
    """Tokens a second no program can exceed here: a step reads every weight and the caches once, and multiplies.

    `n_context`: cached tokens a sequence that each new one attends to, on average; keys and values are bf16.
    """
    cache = n_running * n_context * 2 * 2 * config.n_layers * config.attention.n_kv_heads * config.attention.head_dim
    reading = (weight_bytes + cache) / machine.bandwidth
    multiplying = n_running * multiply_adds_a_token(config, n_context) / machine.multiply_adds
    return n_running / max(reading, multiplying)
