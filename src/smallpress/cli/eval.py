"""smallpress eval"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from smallpress.cli.table import table
from smallpress.run.errors import UserError
from smallpress.run.progress import Progress

if TYPE_CHECKING:
    from smallpress.cli.open_engine import Auto, NumberFormat
    from smallpress.engine.engine import Engine
    from smallpress.evaluate.baseline import Baseline
    from smallpress.evaluate.problems import Problems
    from smallpress.evaluate.result import Result, Sampling
    from smallpress.evaluate.tables import Grid
    from smallpress.tokenizer.tokenizer import Tokenizer

ROOM_FOR_TEMPLATE = 256  # tokens
MAX_RUNNING = 256


def eval(
    model: Annotated[str, Parameter(help="A folder, a .gguf file, a name of the catalogue, or org/name.")],
    /,
    *,
    tasks: Annotated[
        str, Parameter(help="Families of questions, each with a level, levels, or all it has.")
    ] = "chained_sum:3-5,word_problem",
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
    max_tokens: Annotated[int, Parameter(help="The longest answer, thinking included.")] = 256,
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
    json: Annotated[bool, Parameter(negative="", help="Print JSON: the result, or with --compare the gain.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Measure a model on held-out questions, with intervals.

    One answer a question gives greedy accuracy; several, drawn at T 0.6, give pass@1, pass@k and the majority's cons@k.
    """
    from smallpress.evaluate.baseline import load_result
    from smallpress.evaluate.compare import check_same_questions
    from smallpress.evaluate.compare import compare as compare_results
    from smallpress.evaluate.result import problem_set, save_json
    from smallpress.evaluate.tables import comparison_grid

    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"{out.parent} is not a folder", "make it, or choose another --out")
    sampling = _sampling(samples, temperature, top_p, max_tokens, seed, every_way=template == "all")
    problems = _problems(tasks, data, held_out, n, seed)
    old = load_result(compare) if compare else None
    if old is not None:
        check_same_questions(old.problem_set, problem_set(problems.examples))

    engine, tokenizer = _open(model, adapter, offline, problems, sampling, dtype)
    document, result, grid = _measure(engine, tokenizer, problems, sampling, template, reading, model)
    comparison = compare_results(old, result) if old is not None else None
    grids = [grid, comparison_grid(comparison)] if comparison is not None else [grid]
    try:
        if out is not None:
            save_json(out, document)
            print(f"written to {out}", file=sys.stderr)
    finally:  # a full disk must not take the numbers with it
        if json:
            print((comparison or document).model_dump_json(by_alias=True, indent=1))
        else:
            print("\n\n".join(f"{one.title}\n\n{table(one.rows)}" for one in grids))


def _sampling(
    samples: int | None, temperature: float | None, top_p: float, max_tokens: int, seed: int, every_way: bool
) -> "Sampling":
    from pydantic import ValidationError

    from smallpress.evaluate.result import Sampling

    samples = samples if samples is not None else 4 if every_way else 1
    if temperature is None:
        temperature = 0.6 if every_way or samples > 1 else 0.0
    if every_way and temperature == 0.0:
        raise UserError("--template all draws samples beside the greedy answer", "give a --temperature above 0")
    try:
        return Sampling(samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise UserError(f"{option} is {first['input']}", first["msg"].lower()) from error


def _problems(tasks: str, data: Path | None, held_out_only: bool, n: int | None, seed: int) -> "Problems":
    from smallpress.evaluate.problems import from_file, held_out
    from smallpress.tasks.mixture import parse_mixture

    if n is not None and n < 1:
        raise UserError(f"--n is {n}", "ask at least 1 question")
    if data is not None:
        return from_file(data, n, seed, held_out_only)
    if held_out_only:
        raise UserError("--held-out chooses among the questions of --data", "leave it out: --tasks are always held out")
    return held_out(parse_mixture(tasks), n, seed)


def _open(
    model: str,
    adapter: Path | None,
    offline: bool,
    problems: "Problems",
    sampling: "Sampling",
    dtype: "NumberFormat | Auto",
) -> tuple["Engine", "Tokenizer"]:
    """An engine with room for as many questions at once as memory allows."""
    from smallpress.cli.open_engine import open_engine
    from smallpress.weights.adapter import with_adapter
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    files = with_adapter(open_model(resolve(model, offline)), adapter)
    tokenizer = files.tokenizer()
    longest = max(len(tokenizer.encode(example.prompt)) for example in problems.examples)
    n_running = min(MAX_RUNNING, len(problems.examples) * sampling.samples)
    tokens_each = longest + ROOM_FOR_TEMPLATE + sampling.max_tokens
    return open_engine(files, dtype, n_running, tokens_each), tokenizer


def _measure(
    engine: "Engine",
    tokenizer: "Tokenizer",
    problems: "Problems",
    sampling: "Sampling",
    template: str,
    reading: Literal["strict", "lenient"],
    model: str,
) -> tuple["Result | Baseline", "Result", "Grid"]:
    """What --out writes, the one result of it that stands for the model, and the table."""
    from smallpress.evaluate.baseline import answers_needed, baseline
    from smallpress.evaluate.evaluate import evaluate
    from smallpress.evaluate.tables import baseline_grid, result_grid
    from smallpress.tasks.worked import worked_example

    n = len(problems.examples)
    if template == "all":
        with Progress(f"asking {model}", total=answers_needed(n, sampling.samples), unit="answers") as progress:
            found = baseline(
                engine,
                tokenizer,
                problems.examples,
                problems.tasks,
                worked_example,
                model,
                samples=sampling.samples,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=sampling.seed,
                on_answer=progress.advance,
            )
        return found, found.result, baseline_grid(found.results, found.best)
    with Progress(f"asking {model}", total=n * sampling.samples, unit="answers") as progress:
        result = evaluate(
            engine,
            tokenizer,
            problems.examples,
            problems.tasks,
            template,
            sampling,
            reading,
            model,
            worked_example,
            on_answer=progress.advance,
        )
    return result, result, result_grid(result)
