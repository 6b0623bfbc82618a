"""smallpress bench"""

import json as json_format
import sys
from contextlib import nullcontext
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from smallpress.run.errors import UserError

if TYPE_CHECKING:
    from smallpress.engine.engine import Engine
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
    from smallpress.cli.open_engine import open_engine
    from smallpress.evaluate.speed import decoding, decoding_at, prefilling
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    trials = [decoding(n, tokens) for n in batch] + [decoding_at(n, tokens) for n in context]
    trials += [prefilling(n) for n in prompt]
    files = open_model(resolve(model, offline))
    longest = max(trial.n_prompt + trial.n_new + 1 for trial in trials)
    if longest > files.config.max_seq_len:
        raise UserError(f"{longest} tokens are asked for", f"{model} has a context of {files.config.max_seq_len}")
    n_running = max(trial.n_running for trial in trials)
    engine = open_engine(files, dtype, n_running, longest)
    with _peer(peer, peer_python, files, n_running, longest) as beside:
        rates = _measure(engine, beside, trials, repeats)
    found = _found(engine, files, rates) | {"model": model, "dtype": dtype, "repeats": repeats}
    if beside:
        found |= {"peer": f"llama-cpp-python {beside.version}", "peer_memory": beside.memory}
    print(json_format.dumps(found, indent=2) if json else _table(found))


def _peer(peer: str | None, python: str, files: "ModelFiles", n_sequences: int, context: int) -> Any:
    if peer is None:
        return nullcontext()
    from smallpress.engine.native_runner import n_threads
    from smallpress.evaluate.peer import LlamaCpp

    path = files.path
    if path.suffix != ".gguf":
        raise UserError(f"{path} is no GGUF file", "llama.cpp reads nothing else; smallpress convert makes one")
    return LlamaCpp(python, path, n_threads(), n_sequences, context)


def _measure(
    engine: "Engine", peer: "LlamaCpp | None", trials: "list[Trial]", repeats: int
) -> "dict[Trial, dict[str, list[float]]]":
    """Rates by trial and side; sides take turns, and the first turn of each is not counted."""
    from smallpress.evaluate.speed import rate
    from smallpress.run.progress import Progress

    rates: dict[Trial, dict[str, list[float]]] = {}
    with Progress("measuring", len(trials) * (repeats + 1)) as progress:
        for trial in trials:
            sides: dict[str, list[float]] = {"ours": [], "peer": []} if peer else {"ours": []}
            rates[trial] = sides
            for turn in range(repeats + 1):
                measured = {"ours": rate(engine, trial, turn)} | ({"peer": peer.rate(trial, turn)} if peer else {})
                for side in sides if turn else ():
                    sides[side].append(measured[side])
                progress.advance()
    return rates


def _found(engine: "Engine", files: "ModelFiles", rates: "dict[Trial, dict[str, list[float]]]") -> dict[str, Any]:
    """What --json prints: medians in tokens a second, the floor's share, the ratios to the peer."""
    medians = {trial: {side: median(values) for side, values in sides.items()} for trial, sides in rates.items()}
    found: dict[str, Any] = {
        "tokens_per_second": {trial.name: round(sides["ours"], 1) for trial, sides in medians.items()},
        "runs": {trial.name: [round(rate, 1) for rate in sides["ours"]] for trial, sides in rates.items()},
    }
    if any("peer" in sides for sides in medians.values()):
        found["peer_tokens_per_second"] = {trial.name: round(sides["peer"], 1) for trial, sides in medians.items()}
        found["ratios"] = {trial.name: round(sides["ours"] / sides["peer"], 3) for trial, sides in medians.items()}
    return found | _floor(engine, files, {trial: sides["ours"] for trial, sides in medians.items()})


def _floor(engine: "Engine", files: "ModelFiles", rates: "dict[Trial, float]") -> dict[str, Any]:
    """The machine's limits and the share of them reached; nothing where torch computes."""
    core = getattr(engine.runner, "core", None)
    if core is None:
        return {}
    from smallpress import _native
    from smallpress.engine.native_runner import n_threads
    from smallpress.evaluate.speed import Machine, most_tokens

    machine = Machine(_native.read_bandwidth(n_threads()), _native.multiply_adds(core.kernels, n_threads()))
    most = {trial: most_tokens(machine, files.config, core.weight_bytes, trial) for trial in rates}
    return {
        "kernels": core.kernels,
        "threads": n_threads(),
        "weight_bytes": core.weight_bytes,
        "bandwidth": round(machine.bandwidth),
        "multiply_adds": round(machine.multiply_adds),
        "share_of_floor": {trial.name: round(rate / most[trial], 3) for trial, rate in rates.items()},
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
        core, megabytes = f"{found['kernels']} kernels, {found['threads']} threads", found["weight_bytes"] / 1e6
        lines.append(f"\n{core}, {megabytes:.0f} MB of weights")
        lines.append(f"this machine reads {reads:.1f} GB/s and does {multiplies:,.0f} G 8-bit multiply-adds/s")
    return "\n".join(lines)
