"""smallpress convert"""

import json as json_format
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from smallpress.cli.table import table
from smallpress.run.errors import UserError
from smallpress.run.progress import Progress

if TYPE_CHECKING:
    from smallpress.weights.load import ModelFiles

Form = Literal["hf", "gguf", "f32", "f16", "bf16", "q8_0", "q8", "q6_k", "q4_k", "q4_1", "q4_0", "q4"]
SHORT_FOR = {"q8": "q8_0", "q4": "q4_0"}

OnBytes = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written. `tensors`: (our name, format, number of weights, bytes) of each; `nbytes`: of the whole
    file, or of a folder's weights.
    """

    form: str
    tensors: list[tuple[str, str, int, int]]
    nbytes: int
    write: Callable[[OnBytes], None]


def convert(
    model: Annotated[str, Parameter(help="A folder, a .gguf file, a name of the catalogue, or org/name.")],
    out: Annotated[Path, Parameter(help="The .gguf file, or for hf the folder, to be made.")],
    /,
    *,
    to: Annotated[
        Form,
        Parameter(
            help="hf: a Hugging Face folder. The others: a GGUF file in that format, where gguf is bf16 or f32 if the "
            "model is, else f16; q4_k is llama.cpp's Q4_K_M; q8 and q4 are q8_0 and q4_0."
        ),
    ],
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        Parameter(help="Of a Hugging Face folder; by default bfloat16 where the model is stored so, else float32."),
    ] = None,
    adapter: Annotated[
        Path | None, Parameter(help="Low-rank adapters (a PEFT folder) to merge into the model.")
    ] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say what would be written.")] = False,
    force: Annotated[bool, Parameter(negative="", help="Replace OUT if it is there.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Write a model as a GGUF file, in as few bits as asked, or as a Hugging Face folder.

    Tokenizer, chat template, licence and origin go along. OUT is there whole or not at all.
    """
    from smallpress.weights.adapter import with_adapter
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    if dtype is not None and to != "hf":
        raise UserError(f"--dtype is for --to hf, not for --to {to}", "leave it out")
    files = with_adapter(open_model(resolve(model, offline)), adapter)
    _check_out(out, to, files, force)
    plan = _hf_plan(out, files, dtype, force) if to == "hf" else _gguf_plan(out, files, SHORT_FOR.get(to, to), force)
    if not dry_run:
        _check_room(out, plan.nbytes)
        with Progress(f"writing {out.name}", total=plan.nbytes, unit="B") as progress:
            plan.write(progress.advance)
    report = _report(out, plan, written=not dry_run)
    if json:
        print(json_format.dumps(report, indent=2))
        return
    if dry_run:
        print(f"{_grid(report)}\n")
    size = f"{report['bytes'] / 1e6:.1f} MB, {report['bits_per_weight']:.2f} bits per weight, {plan.form}"
    print(f"{out} {'would have' if dry_run else 'is written:'} {size}")


def _check_out(out: Path, to: str, files: "ModelFiles", force: bool) -> None:
    """Raises UserError unless `out` is where such a thing may be written."""
    if to == "hf" and out.suffix == ".gguf":
        raise UserError(f"{out} is named as a GGUF file", "give a folder's name, or --to gguf")
    if to != "hf" and out.suffix != ".gguf":
        raise UserError(f"{out} is not named as a GGUF file", f"call it {out.name}.gguf")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out.parent} is not a folder", "make it, or choose another")
    if not out.exists():
        return
    if not force:
        raise UserError(f"{out} already exists", "give --force to replace it, or choose another name")
    if files.path.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out} is or holds the model that is to be converted", "choose another name")
    if to == "hf" and not (out / "config.json").is_file():
        raise UserError(f"{out} is no model folder, so it is not replaced", "choose another name")
    if to != "hf" and not out.is_file():
        raise UserError(f"{out} is no file, so it is not replaced", "choose another name")


def _hf_plan(out: Path, files: "ModelFiles", dtype: str | None, force: bool) -> Plan:
    from smallpress.model.shapes import tensor_shapes
    from smallpress.weights.export import STORED_AS, WeightsOnDemand, save_hf_folder

    dtype = dtype or ("bfloat16" if files.stored("embed.weight")[0] == "BF16" else "float32")
    weights = {name: math.prod(shape) for name, shape in tensor_shapes(files.config).items()}
    width = 2 if dtype == "bfloat16" else 4
    tensors = [(name, STORED_AS[dtype], n, width * n) for name, n in weights.items()]

    def write(on_bytes: OnBytes) -> None:
        save_hf_folder(out, WeightsOnDemand(files), files, dtype, replace=force, on_bytes=on_bytes)

    return Plan("hf", tensors, sum(nbytes for *_, nbytes in tensors), write)


def _gguf_plan(out: Path, files: "ModelFiles", target: str, force: bool) -> Plan:
    from smallpress.weights.export import WeightsOnDemand
    from smallpress.weights.gguf_export import gguf_contents, kept_precision
    from smallpress.weights.gguf_writer import gguf_nbytes, write_gguf
    from smallpress.weights.names_gguf_out import written_tensors

    target = kept_precision(files) if target == "gguf" else target
    metadata, blocks = gguf_contents(WeightsOnDemand(files), files, target)
    named = [(tensor.ours, blocks[name]) for name, tensor in written_tensors(files.config).items()]
    tensors = [(ours, block.format.name, math.prod(block.shape), block.nbytes) for ours, block in named]

    def write(on_bytes: OnBytes) -> None:
        write_gguf(out, metadata, blocks, force, on_bytes)

    return Plan(target, tensors, gguf_nbytes(metadata, blocks), write)


def _check_room(out: Path, nbytes: int) -> None:
    free = shutil.disk_usage(out.absolute().parent).free
    if free < nbytes:
        what = f"{out} will have {nbytes / 1e6:.0f} MB, and its disk has {free / 1e6:.0f} MB free"
        raise UserError(what, "free some space, or choose a folder on another disk")


def _report(out: Path, plan: Plan, written: bool) -> dict[str, Any]:
    """What --json prints; `kinds` has a row for each kind of tensor in each format."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for name, block_format, n_weights, nbytes in plan.tensors:
        kind = re.sub(r"^layers\.\d+\.|\.weight$", "", name)
        sums = kinds.setdefault((kind, block_format), [0, 0, 0])
        sums[:] = sums[0] + 1, sums[1] + n_weights, sums[2] + nbytes
    fields = ("kind", "format", "tensors", "weights", "bytes")
    nbytes = _nbytes(out) if written else plan.nbytes
    n_weights = sum(n for _, _, n, _ in plan.tensors)
    return {
        "out": str(out),
        "form": plan.form,
        "written": written,
        "bytes": nbytes,
        "weights": n_weights,
        "bits_per_weight": round(8 * nbytes / n_weights, 3),
        "kinds": [dict(zip(fields, (*key, *sums), strict=True)) for key, sums in kinds.items()],
    }


def _grid(report: dict[str, Any]) -> str:
    rows = [["tensors", "", "format", "MB"]]
    for kind in report["kinds"]:
        rows.append([kind["kind"], str(kind["tensors"]), kind["format"], f"{kind['bytes'] / 1e6:.1f}"])
    return table(rows)


def _nbytes(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
