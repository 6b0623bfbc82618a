"""This machine, measured in seconds: what the kernels of generation and of training take here for a unit of work.

A model of some ten million random weights runs in each number format at one row and at many; the fastest of a few turns
counts, so that a busy neighbour is met less. Training is measured in a process of its own (probe_training.py), so that
nothing here needs torch. The result is kept in the store's folder under the processor's name and smallpress's version.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np

import smallpress
from smallpress.lowbit.native_core import native_core
from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.planner.machine import SHARES, Machine
from smallpress.planner.place import PROGRAM, Place
from smallpress.planner.rates import Measured, Roofline
from smallpress.planner.work import n_products, values_between
from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError
from smallpress.run.home import store_dir
from smallpress.run.machine import Machine as Computer
from smallpress.run.machine import this_machine

Packing = Literal["int4", "int8", "bfloat16"]

VERSION = 2
"""Of what is measured and how; a file of another is measured again."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 256)
FORMATS: dict[Packing, int] = {"int4": 4, "int8": 8, "bfloat16": 16}
TURNS = 4
PAGE = 16
WATTS = 30.0
"""Of a processor nobody knows the power of, a core's share included; --watts says better."""
TORCH_LIMIT = 240
"""Seconds the training probe may take."""

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
        "dim": 64,
        "vocab_size": 32,
        "attention": GQA(n_heads=2, n_kv_heads=1, head_dim=32),
        "ffn": Dense(inter_dim=192),
    }
)
"""One whose products are little beside what lies between them."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What stands in the store."""

    version: int
    cpu: str
    cores: int
    seconds: float
    multiply_adds: float
    program: dict[str, float]
    rates: dict[str, Any]


def this_place(again: bool = False) -> Place:
    """This machine with its rates; measured where the store does not hold them or `again`. UserError where no native
    core is here to measure."""
    path = _path()
    probed = None if again else _kept(path)
    if probed is None:
        probed = probe()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(asdict(probed), indent=1).encode())
    return _place(probed)


def known_place() -> Place:
    """This machine by the probe in the store; without one, roughly, by what its kind of processor is capable of."""
    probed = _kept(_path())
    if probed is not None:
        return _place(probed)
    machine, free = nominal(this_machine())
    return Place(machine, Roofline(machine), free, PROGRAM, is_here=True, is_rough=True)


def nominal(here: Computer) -> tuple[Machine, float]:
    """From cores and instructions, at 2.5 GHz and 10 GB/s a core up to four; and its free bytes."""
    lanes = 16 if "avx512f" in here.cpu_features else 8 if "avx2" in here.cpu_features else 4
    wide = here.cores * 2.5e9 * lanes * 4 / 1e12  # two units, two operations to a multiply-add
    has = set(here.cpu_features)
    narrow = 8 if "amx_bf16" in has else 2 if has & {"avx512_bf16", "bf16"} else 1
    bytes_ = 16 if "amx_int8" in has else 4 if has & {"avx512_vnni", "avx_vnni", "asimddp"} else 2
    machine = Machine(
        title=f"this machine ({here.cpu}, {here.cores} cores), not measured yet",
        kind="processor",
        memory=(here.memory or 4 << 30) / 1e9,
        bandwidth=10.0 * min(here.cores, 4) / SHARES["processor"].bandwidth,
        peaks={"float32": wide, "bfloat16": narrow * wide, "int8": bytes_ * wide},
        watts=WATTS * here.cores / 2,
        source="its instructions and cores",
    )
    return machine, float(here.memory_free or 4 << 30)


def _place(probed: Probed) -> Place:
    here, rates = this_machine(), Measured(**probed.rates)
    machine = Machine(
        title=f"this machine ({here.cpu}, {here.cores} cores)",
        kind="processor",
        memory=(here.memory or 4 << 30) / 1e9,
        bandwidth=max(0.1, rates.bandwidth / 1e9),
        peaks={
            "int8": 2 * probed.multiply_adds / 1e12,
            "float32": _training_peak(rates, "float32"),
            "bfloat16": _training_peak(rates, "bfloat16"),
        },
        watts=WATTS * here.cores / 2,
        source="measured here",
    )
    program = {name == "torch": value for name, value in probed.program.items()}
    return Place(machine, rates, float(here.memory_free), program, is_here=True)


def _training_peak(rates: Measured, dtype: str) -> float:
    block = rates.training.get(dtype, {}).get("block", 0.0)
    return 2 / block / 1e12 if block else 0.01


def _path() -> Path:
    return store_dir() / "machine" / f"{_key()}.json"


def _key() -> str:
    here, threads = this_machine(), os.environ.get("OMP_NUM_THREADS", "")
    told = f"{VERSION} {smallpress.__version__} {here.cpu} {here.cores} {threads} {' '.join(here.cpu_features)}"
    return blake2b(told.encode(), digest_size=8).hexdigest()


def _kept(path: Path) -> Probed | None:
    """None where there is nothing, or nothing whole."""
    try:
        return Probed(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def probe() -> Probed:
    """Measure now."""
    core = native_core()
    if core is None:
        raise UserError("this installation has no native core to measure", "name a machine: --machine pi-5")
    from smallpress.engine.native_runner import n_threads

    began, here = time.perf_counter(), this_machine()
    training = _training()
    one, rows = _engine(core)
    layer = _layer(core)
    value = _value(core, layer)
    rates = {
        "bandwidth": core.read_bandwidth(n_threads()),
        "by_rows": {format: _by_rows(core, bits, layer, value) for format, bits in FORMATS.items()},
        "layer": layer,
        "value": value,
        **_attention(core),
        "logit": _logit(core),
        "step": one,
        "row": rows,
        "training": training["rates"],
        "optimizers": training["optimizers"],
        "pack": training["pack"] or {format: _pack(core, bits) for format, bits in FORMATS.items()},
    }
    rates["by_rows"]["float32"] = [[n, 2 * seconds] for n, seconds in rates["by_rows"]["bfloat16"]]
    rates["pack"].setdefault("float32", rates["pack"]["bfloat16"])
    program = {
        "plain": _resident("import smallpress.cli.run, smallpress.engine.native_runner, tokenizers"),
        "torch": 0.0,
    }
    program["torch"] = training["program"] or program["plain"]
    multiply_adds = core.multiply_adds(core.best_kernels(), n_threads())
    seconds = time.perf_counter() - began
    return Probed(VERSION, here.cpu, here.cores, seconds, multiply_adds, program, rates)


def fastest(work: Callable[[], object], turns: int = TURNS) -> float:
    """Seconds, after one turn that is not counted."""
    work()
    laps = []
    for _ in range(turns):
        began = time.perf_counter()
        work()
        laps.append(time.perf_counter() - began)
    return min(laps)


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


def _by_rows(core: Any, bits: int, layer: float, value: float) -> list[list[float]]:
    """[rows, seconds a weight] of the layers' matrices; what starting layers takes, and what lies between the products,
    is left out."""
    model = _model(core, WIDE, bits, max(ROWS))
    found = []
    for n in ROWS:
        seconds = fastest(_forward(model, n, 1), 8 if n < 16 else TURNS)
        between = WIDE.n_layers * layer + n * values_between(WIDE) * value
        found.append([n, max(0.2 * seconds, seconds - between) / model_weights(WIDE)])
    return found


def model_weights(config: ModelConfig) -> float:
    """Numbers of the layers' matrices."""
    return n_products(config)


def _layer(core: Any) -> float:
    """What starting a layer's pieces of work takes."""
    return fastest(_forward(_model(core, THIN, 8, 1), 1, 1), 50) / THIN.n_layers


def _value(core: Any, layer: float) -> float:
    """One number made between the products, by a model whose products are nothing."""
    n = 64
    seconds = fastest(_forward(_model(core, NARROW, 8, n), n, 1), 20)
    return max(1e-12, (seconds - NARROW.n_layers * layer) / (n * values_between(NARROW)))


def _attention(core: Any) -> dict[str, float]:
    """Seconds a byte of cache that decoding reads, and a multiply-add of a prompt's attention."""
    n, before, attention = 256, 1024, WIDE.attention
    model = _model(core, WIDE, 8, 8 * (before + n) // PAGE)
    near, far = fastest(_forward(model, 8, 1)), fastest(_forward(model, 8, 1, before))
    n_bytes = 8 * before * 2 * WIDE.n_layers * attention.cache_shape[0] * attention.cache_shape[1]
    first, later = fastest(_forward(model, 1, n)), fastest(_forward(model, 1, n, before))
    assert isinstance(attention, GQA)
    multiply_adds = n * before * 2 * attention.n_heads * attention.head_dim * WIDE.n_layers
    least = 1e-13
    return {
        "attention_byte": max(least, (far - near) / n_bytes),
        "attention_multiply_add": max(least, (later - first) / multiply_adds),
    }


def _logit(core: Any) -> float:
    """Drawing from one word's logit, all filters off."""
    model, n = _model(core, THIN.model_copy(update={"vocab_size": 32_768}), 8, 32), 32
    _forward(model, n, 1, 0, n)()

    def draw() -> None:
        model.sample(list(range(n)), [1.0] * n, [0] * n, [1.0] * n, [0.0] * n, [0.5] * n)

    return fastest(draw) / n / 32_768


def _engine(core: Any) -> tuple[float, float]:
    """Seconds that the engine spends on a step, and on each sequence of it, beside the core's work on a thin model."""
    from smallpress.engine.engine import Engine
    from smallpress.engine.native_runner import NativeRunner
    from smallpress.engine.request import Request, SamplingParams

    config = THIN.model_copy(update={"n_layers": 1})
    runner = NativeRunner(config, {name: drawn(config, name) for name in tensor_shapes(config)}, PAGE, 1024)
    found = []
    for n in (1, 64):
        engine = Engine(runner, n)
        for i in range(n):
            engine.submit(Request((1 + i % 30,) * 8, SamplingParams(max_tokens=40)))
        while not any(engine.step()):
            pass
        began = time.perf_counter()
        n_steps = 0
        while engine.busy:
            engine.step()
            n_steps += 1
        found.append((time.perf_counter() - began) / n_steps)
    row = max(0.0, (found[1] - found[0]) / 63)
    return max(0.0, found[0] - row), row


def _pack(core: Any, bits: int) -> float:
    name = "layers.0.mlp.gate.weight"
    model, values = _model(core, WIDE, bits, 1), drawn(WIDE, name)
    return fastest(lambda: model.set(name, values, bits)) / values.size


def _training() -> dict[str, Any]:
    """From probe_training.py; rates of nothing where torch is not installed."""
    nothing: dict[str, Any] = {"rates": {}, "optimizers": {}, "pack": {}, "program": 0.0}
    command = [sys.executable, "-m", "smallpress.planner.probe_training"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TORCH_LIMIT)
        return json.loads(done.stdout) if done.returncode == 0 else nothing
    except (OSError, subprocess.SubprocessError, ValueError):
        return nothing


def _resident(code: str) -> float:
    """Bytes that a process holds at most once it has run `code`."""
    measure = f"{code}; from smallpress.run.machine import peak_resident; print(peak_resident())"
    done = subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else 0.0
