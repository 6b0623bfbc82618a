"""smallpress bench"""

import json as json_format
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from smallpress.run.errors import UserError
from smallpress.run.machine import peak_resident

if TYPE_CHECKING:
    from smallpress.cli.open_engine import Auto, NumberFormat
    from smallpress.engine.native_runner import CacheFormat
    from smallpress.evaluate.peer import LlamaCpp
    from smallpress.evaluate.speed import Trial
    from smallpress.weights.load import ModelFiles

MOST = 1 << 20


def bench(
    model: Annotated[str, Parameter(help="A folder, a .gguf file, a name of the catalogue, or org/name.")],
    /,
    *,
    batch: Annotated[
        tuple[int, ...], Parameter(help="Decode so many sequences at once.", consume_multiple=True, negative="")
    ] = (1, 8, 32, 64),
    prompt: Annotated[
        tuple[int, ...], Parameter(help="Prefill prompts of so many tokens.", consume_multiple=True, negative="")
    ] = (512,),
    context: Annotated[
        tuple[int, ...],
        Parameter(help="Decode one sequence that is so long already.", consume_multiple=True, negative=""),
    ] = (),
    tokens: Annotated[int, Parameter(help="Decoded of each sequence.")] = 64,
    repeats: Annotated[int, Parameter(help="Medians are of so many.")] = 5,
    dtype: Annotated[
        Literal["auto", "int4", "int8", "bfloat16", "float32"],
        Parameter(help="auto: int8, or the file's own 4 bits where few run; float32 needs torch."),
    ] = "auto",
    kv_cache_dtype: Annotated[
        Literal["bfloat16", "int8"],
        Parameter(help="Of keys and values; int8 takes half the memory, for a little of the quality."),
    ] = "bfloat16",
    peer: Annotated[
        Literal["llama.cpp"] | None, Parameter(help="Measure it in turns with us, on the same file.")
    ] = None,
    peer_python: Annotated[str, Parameter(help="A Python that has llama-cpp-python.")] = sys.executable,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Measure how fast a model runs here, beside what the machine allows.

    Tokens a second of decode and prefill, medians; the floor is what reading the weights and caches once, and
    multiplying, take at the bandwidth and arithmetic measured on this machine.
    """
    for name, values in {"batch": batch, "prompt": prompt, "context": context, "tokens": (tokens,)}.items():
        for value in values:
            if not 1 <= value <= MOST:
                raise UserError(f"--{name} is {value}", f"give a number from 1 to {MOST}")
    if repeats < 1:
        raise UserError(f"--repeats is {repeats}", "measure at least once")
    from smallpress.evaluate.speed import decoding, decoding_at, prefilling
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    trials = [decoding(n, tokens) for n in batch] + [decoding_at(n, tokens) for n in context]
    trials += [prefilling(n) for n in prompt]
    files = open_model(resolve(model, offline))
    longest = max(trial.length for trial in trials)
    if longest > files.config.max_seq_len:
        raise UserError(f"{longest} tokens are asked for", f"{model} has a context of {files.config.max_seq_len}")
    with _peer(peer, peer_python, files) as beside:
        sides = _measure(files, dtype, kv_cache_dtype, beside, trials, repeats)
    memory = peak_resident()  # What measures the machine takes more.
    found = _found(files, sides) | {
        "model": model,
        "dtype": dtype,
        "kv_cache_dtype": kv_cache_dtype,
        "repeats": repeats,
        "memory": memory,
    }
    if beside:
        found |= {"peer": f"llama-cpp-python {beside.version}", "peer_memory": beside.memory}
    print(json_format.dumps(found, indent=2) if json else _table(found))


def _peer(peer: str | None, python: str, files: "ModelFiles") -> Any:
    if peer is None:
        return nullcontext()
    from smallpress.engine.native_runner import n_threads
    from smallpress.evaluate.peer import LlamaCpp

    path = files.path
    if path.suffix != ".gguf":
        raise UserError(f"{path} is no GGUF file", "llama.cpp reads nothing else; smallpress convert makes one")
    return LlamaCpp(python, path, n_threads())


@dataclass
class Rates:
    """Of one trial, tokens a second by turn; `kernels` is empty where torch computes."""

    ours: list[float]
    peer: list[float]
    kernels: str
    weight_bytes: int


def _measure(
    files: "ModelFiles",
    dtype: "NumberFormat | Auto",
    cache: "CacheFormat",
    peer: "LlamaCpp | None",
    trials: "list[Trial]",
    repeats: int,
) -> "dict[Trial, Rates]":
    """Sides take turns, and the first turn of each is not counted. Each has room for the trial's sequences, no more."""
    from smallpress.cli.open_engine import open_engine
    from smallpress.evaluate.speed import rate
    from smallpress.run.progress import Progress

    found: dict[Trial, Rates] = {}
    with Progress("measuring", len(trials) * (repeats + 1)) as progress:
        for trial in trials:
            engine = open_engine(files, dtype, trial.n_running, trial.length, cache=cache)
            core = getattr(engine.runner, "core", None)
            rates = found[trial] = Rates([], [], core.kernels if core else "", core.weight_bytes if core else 0)
            for turn in range(repeats + 1):
                measured = rate(engine, trial, turn), peer.rate(trial, turn) if peer else 0.0
                if turn:
                    rates.ours.append(measured[0])
                    rates.peer.append(measured[1])
                progress.advance()
            del engine, core
    return found


def _found(files: "ModelFiles", rates: "dict[Trial, Rates]") -> dict[str, Any]:
    """What --json prints: medians in tokens a second, the floor's share, the ratios to the peer."""
    ours = {trial.name: median(sides.ours) for trial, sides in rates.items()}
    found: dict[str, Any] = {
        "tokens_per_second": {name: round(rate, 1) for name, rate in ours.items()},
        "runs": {trial.name: [round(rate, 1) for rate in sides.ours] for trial, sides in rates.items()},
    }
    peers = {trial.name: median(sides.peer) for trial, sides in rates.items()}
    if any(peers.values()):
        found["peer_tokens_per_second"] = {name: round(rate, 1) for name, rate in peers.items()}
        found["peer_runs"] = {trial.name: [round(rate, 1) for rate in sides.peer] for trial, sides in rates.items()}
        found["ratios"] = {name: round(rate / peers[name], 3) for name, rate in ours.items()}
    return found | _floor(files, rates)


def _floor(files: "ModelFiles", rates: "dict[Trial, Rates]") -> dict[str, Any]:
    """The machine's limits and the share of them reached; nothing where torch computes."""
    kernels = next(iter(rates.values())).kernels
    if not kernels:
        return {}
    from smallpress import _native
    from smallpress.engine.native_runner import n_threads
    from smallpress.evaluate.speed import Machine, most_tokens

    machine = Machine(_native.read_bandwidth(n_threads()), _native.multiply_adds(kernels, n_threads()))
    most = {trial: most_tokens(machine, files.config, sides.weight_bytes, trial) for trial, sides in rates.items()}
    return {
        "kernels": kernels,
        "threads": n_threads(),
        "weight_bytes": {trial.name: sides.weight_bytes for trial, sides in rates.items()},
        "bandwidth": round(machine.bandwidth),
        "multiply_adds": round(machine.multiply_adds),
        "share_of_floor": {trial.name: round(median(sides.ours) / most[trial], 3) for trial, sides in rates.items()},
    }


def _table(found: dict[str, Any]) -> str:
    from smallpress.cli.table import table

    rates, shares = found["tokens_per_second"], found.get("share_of_floor", {})
    peer, ratios = found.get("peer_tokens_per_second", {}), found.get("ratios", {})
    heads = ["", "tokens/s"] + (["of the floor"] if shares else []) + ([found["peer"], "ratio"] if peer else [])
    rows = [heads]
    for name, rate in rates.items():
        row = [name.replace("_", " "), f"{rate:,.0f}"] + ([f"{100 * shares[name]:.0f} %"] if shares else [])
        rows.append(row + ([f"{peer[name]:,.0f}", f"{ratios[name]:.2f}"] if peer else []))
    lines = [table(rows)]
    if shares:
        reads, multiplies = found["bandwidth"] / 1e9, found["multiply_adds"] / 1e9
        sizes = sorted({f"{n_bytes / 1e6:.0f}" for n_bytes in found["weight_bytes"].values()})
        lines.append(f"\n{found['kernels']} kernels, {found['threads']} threads, {' or '.join(sizes)} MB of weights")
        lines.append(f"this machine reads {reads:.1f} GB/s and does {multiplies:,.0f} G 8-bit multiply-adds/s")
    return "\n".join(lines)
