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
    from smallpress.weights.load import ModelFiles

MOST = 4096


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
    tokens: Annotated[int, Parameter(help="Decoded of each sequence.")] = 64,
    repeats: Annotated[int, Parameter(help="Medians are of so many.")] = 5,
    dtype: Annotated[
        Literal["auto", "int4", "int8", "bfloat16", "float32"],
        Parameter(help="auto: as the file has it, in at most 8 bits; float32 needs torch."),
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
    for name, values in (("batch", batch), ("prompt", prompt), ("tokens", (tokens,)), ("repeats", (repeats,))):
        for value in values:
            if not 1 <= value <= MOST:
                raise UserError(f"--{name} is {value}", f"give a number from 1 to {MOST}")
    from smallpress.cli.open_engine import open_engine
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    files = open_model(resolve(model, offline))
    longest = max(max(prompt) + 1, 2 * tokens, tokens + 32)
    if longest > files.config.max_seq_len:
        raise UserError(f"{longest} tokens are asked for", f"{model} has a context of {files.config.max_seq_len}")
    engine = open_engine(files, dtype, max(batch), longest)
    tests = [("decode", n) for n in batch] + [("prefill", n) for n in prompt]
    with _peer(peer, peer_python, files, max(batch), longest) as beside:
        rates = _measure(engine, beside, tests, tokens, repeats)
    found = _found(engine, files, rates, tokens) | {"model": model, "dtype": dtype, "repeats": repeats}
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
    engine: "Engine", peer: "LlamaCpp | None", tests: list[tuple[str, int]], tokens: int, repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Rates by test and side; sides take turns, and the first turn of each is not counted."""
    from smallpress.evaluate.speed import decode_rate, prefill_rate
    from smallpress.run.progress import Progress

    rates: dict[str, dict[str, list[float]]] = {}
    with Progress("measuring", len(tests) * (repeats + 1)) as progress:
        for kind, n in tests:
            sides: dict[str, list[float]] = {"ours": [], "peer": []} if peer else {"ours": []}
            rates[f"{kind}_{n}"] = sides
            for turn in range(repeats + 1):
                if kind == "decode":
                    ours = decode_rate(engine, n, tokens, turn)
                    theirs = peer.decode_rate(n, tokens, turn) if peer else 0.0
                else:
                    ours = prefill_rate(engine, n, turn)
                    theirs = peer.prefill_rate(n, turn) if peer else 0.0
                if turn:
                    sides["ours"].append(ours)
                if turn and peer:
                    sides["peer"].append(theirs)
                progress.advance()
    return rates


def _found(
    engine: "Engine", files: "ModelFiles", rates: dict[str, dict[str, list[float]]], tokens: int
) -> dict[str, Any]:
    """What --json prints: medians in tokens a second, the floor's share, the ratios to the peer."""
    medians = {name: {side: median(values) for side, values in sides.items()} for name, sides in rates.items()}
    found: dict[str, Any] = {
        "tokens_per_second": {name: round(sides["ours"], 1) for name, sides in medians.items()},
        "runs": {name: [round(rate, 1) for rate in sides["ours"]] for name, sides in rates.items()},
    }
    if any("peer" in sides for sides in medians.values()):
        found["peer_tokens_per_second"] = {name: round(sides["peer"], 1) for name, sides in medians.items()}
        found["ratios"] = {name: round(sides["ours"] / sides["peer"], 3) for name, sides in medians.items()}
    return found | _floor(engine, files, {name: sides["ours"] for name, sides in medians.items()}, tokens)


def _floor(engine: "Engine", files: "ModelFiles", rates: dict[str, float], tokens: int) -> dict[str, Any]:
    """The machine's limits and the share of them reached; nothing where torch computes."""
    core = getattr(engine.runner, "core", None)
    if core is None:
        return {}
    from smallpress import _native
    from smallpress.engine.native_runner import n_threads
    from smallpress.evaluate.speed import SHORT, Machine, most_tokens

    machine = Machine(_native.read_bandwidth(n_threads()), _native.multiply_adds(core.kernels, n_threads()))
    shares = {}
    for name, rate in rates.items():
        kind, _, n = name.partition("_")
        context = SHORT + tokens / 2 if kind == "decode" else int(n) / 2
        # Prefill reads its one sequence's cache once, not once a token.
        most = most_tokens(machine, files.config, core.weight_bytes, int(n), context if kind == "decode" else 0.0)
        shares[name] = round(rate / most, 3)
    return {
        "kernels": core.kernels,
        "threads": n_threads(),
        "weight_bytes": core.weight_bytes,
        "bandwidth": round(machine.bandwidth),
        "multiply_adds": round(machine.multiply_adds),
        "share_of_floor": shares,
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
