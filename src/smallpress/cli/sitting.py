"""One sitting of an evaluation: which questions, put to whom, judged by what, kept where."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from smallpress.cli.foresight import announce, foresee_serving, print_engine_beside, rehearse_serving
from smallpress.run.errors import UserError
from smallpress.run.progress import Progress

if TYPE_CHECKING:
    from smallpress.cli.open_engine import Auto, NumberFormat
    from smallpress.engine.engine import Engine
    from smallpress.evaluate.baseline import Baseline
    from smallpress.evaluate.problems import Problems
    from smallpress.evaluate.result import Result, Sampling
    from smallpress.evaluate.store import AnswerStore
    from smallpress.evaluate.tables import Grid
    from smallpress.planner.serving import Serving
    from smallpress.tokenizer.tokenizer import Tokenizer

ROOM_FOR_TEMPLATE, TEMPLATE = 256, 32  # tokens at most, and usually
MAX_RUNNING = 256
KEYS = ("SMALLPRESS_API_KEY", "OPENAI_API_KEY")

Found = tuple["Result | Baseline", "Result", "Grid"]
"""What --out writes, the one result of it that stands for the model, and the table."""


@dataclass(frozen=True)
class Questions:
    """`checker` names what judges the answers, `seen` the questions that a corpus holds, None where none was read."""

    problems: "Problems"
    max_tokens: int
    checker: str = ""
    seen: frozenset[str] | None = None


def questions(
    tasks: str, bench: str | None, data: Path | None, held_out_only: bool, n: int | None, seed: int, corpus: Path | None
) -> Questions:
    """Of a benchmark, of a file, or of the families of tasks. Raises UserError."""
    from smallpress.evaluate.contamination import corpus_lines, seen_in
    from smallpress.evaluate.problems import from_file, held_out
    from smallpress.tasks.mixture import parse_mixture

    if n is not None and n < 1:
        raise UserError(f"--n is {n}", "ask at least 1 question")
    checker, max_tokens = "", 256
    if bench is not None:
        problems, checker, max_tokens = _of_benchmark(bench, data, held_out_only, n, seed)
    elif data is not None:
        problems = from_file(data, n, seed, held_out_only)
    elif held_out_only:
        raise UserError("--held-out chooses among the questions of --data", "leave it out: --tasks are always held out")
    else:
        problems = held_out(parse_mixture(tasks), n, seed)
    seen = frozenset(seen_in(problems.examples, corpus_lines([corpus]))) if corpus is not None else None
    return Questions(problems, max_tokens, checker, seen)


def _of_benchmark(
    bench: str, data: Path | None, held_out_only: bool, n: int | None, seed: int
) -> tuple["Problems", str, int]:
    from smallpress.benchmarks.benchmark import MathsBenchmark
    from smallpress.benchmarks.table import open_benchmark
    from smallpress.evaluate.problems import from_benchmark
    from smallpress.tasks.verifier import MathVerify

    version = MathVerify.installed()
    benchmark = open_benchmark(bench, MathVerify() if version else None)
    if data is None:
        raise UserError(f"--bench {bench} needs --data", f"give {benchmark.file}")
    if held_out_only:
        raise UserError("--held-out is for files that were trained on", "leave it out: a benchmark is asked whole")
    checker = ""
    if isinstance(benchmark, MathsBenchmark):
        checker = f"smallpress, and math-verify {version} where it leaves an answer open"
        if version is None:
            checker = "smallpress alone: what it leaves open is wrong (pip install 'smallpress[math]')"
    return from_benchmark(benchmark, data, n, seed), checker, benchmark.max_tokens


@dataclass(frozen=True)
class Sitting:
    """The questions with the way of asking and reading them."""

    model: str
    questions: Questions
    sampling: "Sampling"
    template: Literal["chat", "r1_zero", "r1_zero_example", "all"]
    reading: Literal["strict", "lenient"]
    kept_in: Path | None  # answers as they come
    adapter: Path | None = None

    def of_endpoint(self, url: str, n_at_once: int) -> Found:
        """Put to a model behind an API."""
        from smallpress.evaluate.endpoint import ask_endpoint
        from smallpress.evaluate.evaluate import judge
        from smallpress.evaluate.tables import result_grid
        from smallpress.run.endpoint import Client, Endpoint

        if self.adapter is not None:
            raise UserError("--adapter is for local models", "give the endpoint's model its adapter there")
        if self.template != "chat":
            raise UserError(f"--template {self.template} is for local models", "an endpoint is asked as a chat")
        key = next((value for name in KEYS if (value := os.environ.get(name))), None)
        endpoint = Endpoint(url, key, KEYS[0], n_at_once, later="evaluate again to go on")
        examples = self.questions.problems.examples
        total = len(examples) * self.sampling.samples
        with self._store(url) as store, Progress(f"asking {self.model}", total=total, unit="answers") as progress:
            answered = ask_endpoint(Client(endpoint), self.model, examples, self.sampling, progress.advance, store)
        tasks, checker, seen = self.questions.problems.tasks, self.questions.checker, self.questions.seen
        result = judge(answered, tasks, self.reading, self.model, checker, seen)
        return result, result, result_grid(result)

    def of_local(self, offline: bool, dtype: "NumberFormat | Auto", dry_run: bool = False) -> Found | None:
        """Put to a model that runs here, the plan of it first. UserError where that cannot fit. `dry_run`: one question
        alone, for what it takes; then there is nothing found."""
        from smallpress.cli.open_engine import open_engine
        from smallpress.weights.adapter import with_adapter
        from smallpress.weights.load import open_model
        from smallpress.weights.reference import resolve

        files = with_adapter(open_model(resolve(self.model, offline)), self.adapter)
        tokenizer = files.tokenizer()
        examples = self.questions.problems.examples
        n_prompts = [len(tokenizer.encode(example.prompt)) for example in examples]
        n_running = min(MAX_RUNNING, len(examples) * self.sampling.samples)
        tokens_each = min(max(n_prompts) + ROOM_FOR_TEMPLATE + self.sampling.max_tokens, files.config.max_seq_len)
        asked = self._serving(n_prompts, n_running)
        announce(plan := foresee_serving(self.model, files, dtype, asked))
        engine = open_engine(files, dtype, n_running, tokens_each)
        if dry_run:
            rehearse_serving(plan, engine, asked.n_prompt)
            return None
        found = self._put(engine, tokenizer, f"{dtype}, {self.adapter}" if self.adapter else dtype)
        print_engine_beside(plan, engine)
        return found

    def _put(self, engine: "Engine", tokenizer: "Tokenizer", how: str) -> Found:
        with self._store(how) as store:
            return (
                self._every_way(engine, tokenizer, store)
                if self.template == "all"
                else self._one_way(engine, tokenizer, store)
            )

    def _serving(self, prompts: Sequence[int], n_running: int) -> "Serving":
        """What is asked of the engine, as a plan asks; `prompts`: tokens of each question."""
        from smallpress.evaluate.baseline import answers_needed
        from smallpress.planner.lengths import answer_lengths
        from smallpress.planner.serving import Serving

        sampling = self.sampling
        n = len(prompts) * sampling.samples
        if self.template == "all":
            n = answers_needed(len(prompts), sampling.samples)
        n_prompt = round(fmean(prompts)) + TEMPLATE
        return Serving("int8", n_running, n_prompt, answer_lengths(sampling.max_tokens), n, "eval")

    def _one_way(self, engine: "Engine", tokenizer: "Tokenizer", store: "AnswerStore | None") -> Found:
        from smallpress.evaluate.evaluate import ask, judge
        from smallpress.evaluate.tables import result_grid
        from smallpress.tasks.worked import worked_example

        examples, tasks = self.questions.problems.examples, self.questions.problems.tasks
        total = len(examples) * self.sampling.samples
        with Progress(f"asking {self.model}", total=total, unit="answers") as progress:
            answered = ask(
                engine, tokenizer, examples, self.template, self.sampling, worked_example, progress.advance, store
            )
        result = judge(answered, tasks, self.reading, self.model, self.questions.checker, self.questions.seen)
        return result, result, result_grid(result)

    def _every_way(self, engine: "Engine", tokenizer: "Tokenizer", store: "AnswerStore | None") -> Found:
        from smallpress.evaluate.baseline import answers_needed, baseline
        from smallpress.evaluate.tables import baseline_grid
        from smallpress.tasks.worked import worked_example

        examples, tasks, sampling = self.questions.problems.examples, self.questions.problems.tasks, self.sampling
        total = answers_needed(len(examples), sampling.samples)
        with Progress(f"asking {self.model}", total=total, unit="answers") as progress:
            found = baseline(
                engine,
                tokenizer,
                examples,
                tasks,
                worked_example,
                self.model,
                samples=sampling.samples,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=sampling.seed,
                on_answer=progress.advance,
                store=store,
                seen=self.questions.seen,
                checker=self.questions.checker,
            )
        return found, found.result, baseline_grid(found.results, found.best)

    def _store(self, how: str) -> "AnswerStore | nullcontext[None]":
        from smallpress.evaluate.store import AnswerStore

        return nullcontext() if self.kept_in is None else AnswerStore(self.kept_in, f"{self.model} ({how})")
