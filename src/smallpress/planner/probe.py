"""This machine as a place to plan for: measured once, and kept in the store under the processor's name and smallpress's
version. Training is measured, in a process of its own (probe_training.py), when a plan of training first asks."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import smallpress
from smallpress.lowbit.native_core import native_core
from smallpress.planner.machine import SHARES, Machine
from smallpress.planner.place import PROGRAM, Place
from smallpress.planner.rates import Measured, Roofline
from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError
from smallpress.run.home import store_dir
from smallpress.run.machine import Machine as Computer
from smallpress.run.machine import this_machine

VERSION = 7
"""Of what is measured and how; a file of another is measured again."""
BUSY = 1.3
"""How much longer the middle lap takes than the fast one where somebody else is at work."""
WATTS = 30.0
"""Of a processor nobody knows the power of, a core's share included; --watts says better."""
TORCH_LIMIT = 240
"""Seconds the training probe may take."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What stands in the store. `busy`: how much longer the middle lap took than the fast one. Of training nothing
    stands in `rates` until it is asked for."""

    version: int
    cpu: str
    cores: int
    seconds: float
    busy: float
    multiply_adds: float
    program: dict[str, float]
    rates: dict[str, Any]


def this_place(again: bool = False, learning: bool = False) -> Place:
    """This machine with its rates, for `learning` those of training too; measured where the store does not hold them or
    `again`. UserError where no native core is here to measure."""
    path = _path()
    kept = None if again else _kept(path)
    probed = probe() if kept is None else kept
    if learning and not probed.rates["training"]:
        probed = with_training(probed)
    if probed is not kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(asdict(probed), indent=1).encode())
    return _place(probed)


def known_place(learning: bool = False) -> Place:
    """This machine by the probe in the store; without one, roughly, by what its kind of processor is capable of."""
    probed = _kept(_path())
    if probed is not None and (probed.rates["training"] or not learning):
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
    program = PROGRAM | {name == "torch": value for name, value in probed.program.items() if value}
    return Place(machine, rates, float(here.memory_free), program, is_here=True, is_busy=probed.busy > BUSY)


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
    """Measure generation now."""
    core = native_core()
    if core is None:
        raise UserError("this installation has no native core to measure", "name a machine: --machine pi-5")
    from smallpress.engine.native_runner import n_threads
    from smallpress.planner.measure import generation_rates, resident

    began, here = time.perf_counter(), this_machine()
    rates, busy = generation_rates(core)
    program = {"plain": resident("import smallpress.cli.run, smallpress.engine.native_runner, tokenizers")}
    peak = core.multiply_adds(core.best_kernels(), n_threads())
    return Probed(VERSION, here.cpu, here.cores, time.perf_counter() - began, busy, peak, program, rates)


def with_training(probed: Probed) -> Probed:
    """With what probe_training.py measures. UserError where torch is not there."""
    command = [sys.executable, "-m", "smallpress.planner.probe_training"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TORCH_LIMIT)
    except subprocess.TimeoutExpired:
        what = f"training could not be measured within {TORCH_LIMIT} seconds"
        raise UserError(what, "try again when the machine is calm") from None
    if done.returncode:
        raise UserError("training could not be measured here", "pip install 'smallpress[train]', or name a --machine")
    found = json.loads(done.stdout)
    rates = probed.rates | {"training": found["rates"], "optimizers": found["optimizers"], "pack": found["pack"]}
    rates["pack"].setdefault("float32", rates["pack"].get("bfloat16", 0.0))
    return replace(probed, rates=rates, program=probed.program | {"torch": found["program"]})
