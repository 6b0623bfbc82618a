"""How fast a model runs: tokens a second of prefill and decode, and the floor that the machine sets for them."""

import time
from dataclasses import dataclass

import numpy as np

from smallpress.engine.engine import Engine
from smallpress.engine.request import Request, SamplingParams
from smallpress.model.config import ModelConfig
from smallpress.model.sizes import cache_bytes, multiply_adds
from smallpress.run.seeds import derive_seed

SHORT = 16  # tokens of the prompts that decoding starts from


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes and 8-bit multiply-adds a second, of all threads together."""

    bandwidth: float
    multiply_adds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """`n_running` sequences of `n_prompt` tokens; `n_new` tokens are decoded of each, 0: only the prompt is timed."""

    name: str
    n_running: int
    n_prompt: int
    n_new: int

    @property
    def length(self) -> int:
        """Of a sequence at its end, with the token that the prompt gives."""
        return self.n_prompt + self.n_new + 1


def decoding(n_running: int, n_new: int) -> Trial:
    return Trial(f"decode_{n_running}", n_running, SHORT, n_new)


def decoding_at(n_context: int, n_new: int) -> Trial:
    """One sequence that has come so far."""
    return Trial(f"decode_1_at_{n_context}", 1, n_context, n_new)


def prefilling(n_prompt: int) -> Trial:
    return Trial(f"prefill_{n_prompt}", 1, n_prompt, 0)


def rate(engine: Engine, trial: Trial, seed: int) -> float:
    """Tokens a second, of the prompt until the first new one is there, or of those after it.

    Prompts are drawn anew for each seed, so that nothing is shared with what ran before.
    """
    params = SamplingParams(max_tokens=trial.n_new + 1, temperature=0.0)
    for i in range(trial.n_running):
        ids = _ids(engine.runner.vocab_size, trial.n_prompt, seed, i)
        engine.submit(Request(ids, params))
    began = time.perf_counter()
    if trial.n_new:
        while not any(engine.step()):  # the prompts, and each one's first token
            pass
        began = time.perf_counter()
    while engine.busy:
        engine.step()
    n_tokens = trial.n_running * (trial.n_new or trial.n_prompt)
    return n_tokens / (time.perf_counter() - began)


def _ids(vocab_size: int, n: int, *parts: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(derive_seed("speed", *parts)).integers(0, vocab_size, n).tolist())


def most_tokens(machine: Machine, config: ModelConfig, weight_bytes: int, trial: Trial) -> float:
    """Tokens a second no program can exceed here: a step reads every weight and the caches once, and multiplies.

    Keys and values are bf16; a prompt reads its own cache once, not once a token, which counts as nothing.
    """
    n_rows = trial.n_running if trial.n_new else trial.n_prompt
    n_context = trial.n_prompt + trial.n_new / 2 if trial.n_new else trial.n_prompt / 2
    cache = trial.n_running * n_context * cache_bytes(config) if trial.n_new else 0.0
    reading = (weight_bytes + cache) / machine.bandwidth
    multiplying = n_rows * multiply_adds(config, n_context) / machine.multiply_adds
    return n_rows / max(reading, multiplying)
