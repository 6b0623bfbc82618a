"""Generation on this machine, measured in seconds: what the kernels take here for a unit of each kind of work.

A step of generation is put together from six kinds: a weight multiplied by so many rows in each number format (a model
of a hundred million random weights runs at one row and at many), a number made between the products, a layer's start, a
byte of cache attended to, what is done with it, and the engine's own share of a step and of a sequence. Short laps are
repeated and a fast one counts: a neighbour's burst is not the machine.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Literal

import numpy as np

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.model.sizes import cache_bytes, multiply_adds
from smallpress.planner.work import n_products, values_between

Packing = Literal["int4", "int8", "bfloat16"]

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
MANY = 64
"""Rows at which products wait for arithmetic."""
FORMATS: dict[Packing, int] = {"int4": 4, "int8": 8, "bfloat16": 16}
LAPS, SECONDS = 2, 0.06
"""Of one piece of work: at least so many, and for at least so long."""
PAGE = 16

WIDE = ModelConfig(
    family="llama",
    vocab_size=4096,
    dim=768,
    n_layers=18,
    attention=GQA(n_heads=12, n_kv_heads=4, head_dim=64),
    ffn=Dense(inter_dim=2048),
    norm_eps=1e-5,
    rope_theta=1e4,
    max_seq_len=4096,
    tied_head=True,
)
"""Its layers are more than most processors' caches hold."""
THIN = WIDE.model_copy(
    update={
        "dim": 32,
        "vocab_size": 32,
        "attention": GQA(n_heads=2, n_kv_heads=1, head_dim=16),
        "ffn": Dense(inter_dim=64),
    }
)
"""One whose arithmetic is nothing: what is left is the starting of work."""


NARROW = WIDE.model_copy(
    update={
        "dim": 256,
        "vocab_size": 256,
        "attention": GQA(n_heads=4, n_kv_heads=2, head_dim=64),
        "ffn": Dense(inter_dim=704),
    }
)
"""One with three times as much between its products, for each weight of them."""


ALONE, GROUPED = (
    THIN.model_copy(update={"n_layers": 6, "attention": GQA(n_heads=n, n_kv_heads=4, head_dim=64)}) for n in (4, 12)
)
"""Those that do little but attend, a head to each head of the cache and three."""
SEQUENCES, BEFORE = 8, 512
"""Whose caches attention is measured on, and how much each holds."""
LEAST = 1e-13


def generation_rates(core: Any) -> tuple[dict[str, Any], float]:
    """The numbers of rates.Measured but those of training, and how much longer the middle lap took than a fast one."""
    from smallpress.engine.native_runner import n_threads

    wide, narrow = _model(core, WIDE, 8, max(ROWS)), _model(core, NARROW, 8, MANY)
    layer = typical(_forward(_model(core, THIN, 8, 1), 1, 1)) / THIN.n_layers
    value = _value(wide, narrow, layer)
    by_rows = {"int8": _by_rows(wide, layer, value)}
    del wide
    for format, bits in FORMATS.items():
        if format not in by_rows:
            by_rows[format] = _by_rows(_model(core, WIDE, bits, max(ROWS)), layer, value)
    by_rows["float32"] = [[n, 2 * seconds] for n, seconds in by_rows["bfloat16"]]
    step, row = _engine()
    rates = {
        "threads": n_threads(),
        "bandwidth": core.read_bandwidth(n_threads()),
        "by_rows": by_rows,
        "layer": layer,
        "value": value,
        **_attention(core),
        "logit": _logit(core),
        "step": step,
        "row": row,
        "training": {},
        "optimizers": {},
        "pack": {},
    }
    return rates, _busy(_forward(narrow, 1, 1))


def typical(work: Callable[[], object], laps: int = LAPS, seconds: float = SECONDS) -> float:
    """Seconds of a fast lap: the one that a quarter of them beat."""
    found = _laps(work, laps, seconds)
    return found[len(found) // 4]


def _laps(work: Callable[[], object], laps: int, seconds: float) -> list[float]:
    """Ascending, after one that is not counted."""
    work()
    found, now = list[float](), clock()
    while len(found) < laps or sum(found) < seconds:
        began = now()
        work()
        found.append(now() - began)
    return sorted(found)


def clock() -> Callable[[], float]:
    """Where one thread computes, the processor's own seconds, of which other programs take none."""
    from smallpress.engine.native_runner import n_threads

    return time.process_time if n_threads() == 1 else time.perf_counter


def _busy(work: Callable[[], object]) -> float:
    found = _laps(work, LAPS, SECONDS)
    return median(found) / found[len(found) // 10]


def drawn(config: ModelConfig, name: str) -> Any:
    """Random weights of a tensor, cheap to draw."""
    shape = tensor_shapes(config)[name]
    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    return np.resize(np.random.default_rng(0).standard_normal(4099, dtype=np.float32) * np.float32(0.02), shape)


def _model(core: Any, config: ModelConfig, bits: int, n_pages: int) -> Any:
    from smallpress.engine.native_config import native_config
    from smallpress.engine.native_runner import n_threads

    model = core.Model(native_config(config), n_pages=n_pages, page_size=PAGE, n_threads=n_threads())
    for name, shape in tensor_shapes(config).items():
        model.set(name, drawn(config, name), 8 if len(shape) == 1 or name == "embed.weight" else bits)
    return model


def _forward(model: Any, n_sequences: int, n_each: int, first: int = 0, n_logits: int = 1) -> Callable[[], None]:
    """A step of `n_each` tokens of each sequence, from position `first` on."""
    pages = -(-(first + n_each) // PAGE)
    ids, tables = np.zeros(n_sequences * n_each, dtype=np.int64), np.arange(n_sequences * pages)
    positions = np.tile(np.arange(first, first + n_each), n_sequences)
    starts, rows = np.repeat(np.arange(n_sequences) * pages, n_each), np.arange(n_logits)

    def work() -> None:
        model.forward(ids, positions, tables, starts, rows)

    return work


def _by_rows(model: Any, layer: float, value: float) -> list[list[float]]:
    """[rows, seconds a weight] of the matrices of WIDE; what starting layers takes, and what lies between the products,
    is left out. More rows never take less: where fewer seemed to take longer, somebody else was at work."""
    found = []
    for n in ROWS:
        between = WIDE.n_layers * layer + n * values_between(WIDE) * value
        found.append([n, max(LEAST, typical(_forward(model, n, 1)) - between) / n_products(WIDE)])
    for i in reversed(range(len(found) - 1)):
        found[i][1] = min(found[i][1], found[i + 1][1])
    return found


def _value(wide: Any, narrow: Any, layer: float) -> float:
    """Seconds of a number made between the products: of two models that have more and less of them, each step's time is
    weights x a + numbers x b, and b is what is asked."""
    (w, v, t), (w2, v2, t2) = (
        (n_products(config), MANY * values_between(config), typical(_forward(model, MANY, 1)) - WIDE.n_layers * layer)
        for model, config in ((wide, WIDE), (narrow, NARROW))
    )
    return max(LEAST, (t2 * w - t * w2) / (v2 * w - v * w2))


def _attention(core: Any) -> dict[str, float]:
    """Seconds a byte of cache that decoding reads, a multiply-add of what is done with it, and one of a prompt's.

    By steps of models that do little else, with long caches and with none. Two of them have equal caches, and one of
    the two three times the heads that read them: time is bytes x a + multiply-adds x b.
    """
    (one, n_bytes, n_one, _), (three, _, n_three, prompt) = (
        _far_less_near(core, config) for config in (ALONE, GROUPED)
    )
    slope = min(max(0.0, (three - one) / (n_three - n_one)), one / n_one)
    n, attention = MANY * BEFORE * GROUPED.n_layers, GROUPED.attention
    assert isinstance(attention, GQA)
    return {
        "attention_byte": max(LEAST, (one - slope * n_one) / n_bytes),
        "attention_step": max(LEAST, slope),
        "attention_multiply_add": max(LEAST, prompt / (n * 2 * attention.n_heads * attention.head_dim)),
    }


def _far_less_near(core: Any, config: ModelConfig) -> tuple[float, float, float, float]:
    """Of decoding: what caches of BEFORE tokens add to a step, their bytes and multiply-adds; of a prompt: the same."""
    model = _model(core, config, 8, SEQUENCES * (BEFORE // PAGE + 1) + MANY // PAGE)
    _forward(model, SEQUENCES, BEFORE)()  # pages never written to are all one page of zeros
    near, far = (typical(_forward(model, SEQUENCES, 1, first)) for first in (0, BEFORE))
    first, later = (typical(_forward(model, 1, MANY, first)) for first in (0, BEFORE))
    n = SEQUENCES * BEFORE
    seen = multiply_adds(config, BEFORE) - multiply_adds(config, 0)
    return far - near, float(n * cache_bytes(config)), SEQUENCES * seen, later - first


def _logit(core: Any) -> float:
    """Drawing from one word's logit on one thread, all filters off."""
    n_words = 32_768
    model = _model(core, THIN.model_copy(update={"vocab_size": n_words, "n_layers": 1}), 8, 1)
    _forward(model, 1, 1)()
    return typical(lambda: model.sample([0], [1.0], [0], [1.0], [0.0], [0.5]), seconds=0.02) / n_words


def _engine() -> tuple[float, float]:
    """Seconds that the engine spends on a step, and on each sequence of it, beside the core's work on a thin model."""
    from smallpress.engine.engine import Engine
    from smallpress.engine.native_runner import NativeRunner
    from smallpress.engine.request import Request, SamplingParams

    config = THIN.model_copy(update={"n_layers": 1})
    runner = NativeRunner(config, {name: drawn(config, name) for name in tensor_shapes(config)}, PAGE, 1024)
    found = []
    for n in (1, MANY):
        engine = Engine(runner, n)
        for i in range(n):
            engine.submit(Request((1 + i % 30,) * 8, SamplingParams(max_tokens=60)))
        while not any(engine.step()):
            pass
        found.append(typical(engine.step, laps=50, seconds=0.0))
    row = max(0.0, (found[1] - found[0]) / (MANY - 1))
    return max(0.0, found[0] - row), row


def resident(code: str) -> float:
    """Bytes that a process holds at most once it has run `code`."""
    measure = f"{code}; from smallpress.run.machine import peak_resident; print(peak_resident())"
    done = subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else 0.0
