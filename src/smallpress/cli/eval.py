"""smallpress eval"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from smallpress.cli.table import table
from smallpress.run.errors import UserError

if TYPE_CHECKING:
    from smallpress.evaluate.result import Sampling


def eval(
    model: Annotated[
        str, Parameter(help="A folder, a .gguf file, a name of the catalogue, org/name, or its name at --endpoint.")
    ],
    /,
    *,
    tasks: Annotated[
        str, Parameter(help="Families of questions, each with a level, levels, or all it has.")
    ] = "chained_sum:3-5,word_problem",
    bench: Annotated[
        str | None,
        Parameter(help="A benchmark, read from --data: gsm8k, math500, mmlu and others; see the docs."),
    ] = None,
    data: Annotated[Path | None, Parameter(help="Questions of a file instead: GSM8K, SVAMP or JSON lines.")] = None,
    held_out: Annotated[bool, Parameter(negative="", help="Of --data, only what training on it leaves out.")] = False,
    n: Annotated[int | None, Parameter(help="Questions in all; by default 200, or the whole file.")] = None,
    template: Annotated[
        Literal["chat", "r1_zero", "r1_zero_example", "all"],
        Parameter(help="How to ask; all: every way, which gives the fair baseline of an untrained model."),
    ] = "chat",
    reading: Annotated[
        Literal["strict", "lenient"], Parameter(help="Take answers from their tag or box only, or from plain text too.")
    ] = "strict",
    samples: Annotated[int | None, Parameter(help="Answers a question; by default 1, with --template all 4.")] = None,
    temperature: Annotated[float | None, Parameter(help="0 is greedy; by default 0 for 1 sample, else 0.6.")] = None,
    top_p: Annotated[float, Parameter(help="Draw from the likeliest tokens that make up this much.")] = 0.95,
    max_tokens: Annotated[
        int | None, Parameter(help="The longest answer, thinking included; by default 256, or the benchmark's.")
    ] = None,
    thinking: Annotated[int | None, Parameter(help="Tokens to think at most; then the model has to answer.")] = None,
    endpoint: Annotated[
        str | None, Parameter(help="Ask a server's chat API instead, at an address such as http://127.0.0.1:8000/v1.")
    ] = None,
    at_once: Annotated[int, Parameter(help="Questions the endpoint is asked at a time.")] = 8,
    corpus: Annotated[
        Path | None, Parameter(help="Texts the model may have learnt from: say which questions they hold.")
    ] = None,
    dtype: Annotated[
        Literal["auto", "int4", "int8", "bfloat16", "float32"],
        Parameter(help="auto: int8, or the file's own 4 bits where few run; float32 needs torch."),
    ] = "auto",
    adapter: Annotated[
        Path | None, Parameter(help="Low-rank adapters (a PEFT folder) to merge into the model.")
    ] = None,
    seed: Annotated[int, Parameter(help="Chooses the questions and the draws.")] = 0,
    compare: Annotated[Path | None, Parameter(help="An earlier --out file: what was gained since.")] = None,
    out: Annotated[Path | None, Parameter(help="Write everything, every answer included, to this JSON file.")] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Say what it takes, put one question.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print JSON: the result, or with --compare the gain.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Measure a model on held-out questions, with intervals.

    One answer a question gives greedy accuracy; several, drawn at T 0.6, give pass@1, pass@k and the majority's cons@k.
    With --out, answers are kept as they come: the same command goes on where it was stopped.
    """
    from smallpress.cli.sitting import Sitting, questions
    from smallpress.evaluate.baseline import load_result
    from smallpress.evaluate.compare import check_same_questions
    from smallpress.evaluate.compare import compare as compare_results
    from smallpress.evaluate.result import problem_set, save_json
    from smallpress.evaluate.tables import comparison_grid

    if endpoint is not None and offline:
        raise UserError(f"the model is at {endpoint}, and --offline opens no socket", "leave one of them out")
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"{out.parent} is not a folder", "make it, or choose another --out")
    if endpoint is not None and dry_run:
        raise UserError("--dry-run is for a model that runs here", "ask the endpoint one question with --n 1")
    asked = questions(tasks, bench, data, held_out, n, seed, corpus)
    every_way = template == "all"
    max_tokens = asked.max_tokens if max_tokens is None else max_tokens
    sampling = _sampling(samples, temperature, top_p, max_tokens, seed, thinking, every_way)
    old = load_result(compare) if compare else None
    if old is not None:
        check_same_questions(old.problem_set, problem_set(asked.problems.examples))

    kept_in = out.with_name(f"{out.name}.answers") if out is not None else None
    sitting = Sitting(model, asked, sampling, template, reading, kept_in, adapter)
    found = sitting.of_endpoint(endpoint, at_once) if endpoint else sitting.of_local(offline, dtype, dry_run)
    if found is None:
        return
    document, result, grid = found
    comparison = compare_results(old, result) if old is not None else None
    grids = [grid, comparison_grid(comparison)] if comparison is not None else [grid]
    try:
        if out is not None:
            save_json(out, document)
            print(f"written to {out}", file=sys.stderr)
        if kept_in is not None:
            kept_in.unlink(missing_ok=True)
    finally:  # a full disk must not take the numbers with it
        if json:
            print((comparison or document).model_dump_json(by_alias=True, indent=1))
        else:
            print("\n\n".join(f"{one.title}\n\n{table(one.rows)}" for one in grids))


def _sampling(
    samples: int | None,
    temperature: float | None,
    top_p: float,
    max_tokens: int,
    seed: int,
    thinking: int | None,
    every_way: bool,
) -> "Sampling":
    from pydantic import ValidationError

    from smallpress.evaluate.result import Sampling

    samples = samples if samples is not None else 4 if every_way else 1
    if temperature is None:
        temperature = 0.6 if every_way or samples > 1 else 0.0
    if every_way and temperature == 0.0:
        raise UserError("--template all draws samples beside the greedy answer", "give a --temperature above 0")
    if every_way and thinking is not None:
        raise UserError("--template all has no --thinking", "bound the thinking of one way of asking")
    try:
        return Sampling(
            samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed, thinking=thinking
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise UserError(f"{option} is {first['input']}", first["msg"].lower()) from error
