"""smallpress grpo, and what smallpress resume shares with it"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smallpress.run.folder import RunFolder
from smallpress.run.metrics import console_line
from smallpress.run.progress import Progress, clock_time
from smallpress.run.settings import settings_from

if TYPE_CHECKING:
    from smallpress.evaluate.result import Problem, Result
    from smallpress.rl.settings import GRPOSettings
    from smallpress.weights.load import ModelFiles

SHOWN = ("reward", "accuracy", "frac_reward_zero_std", "completions/mean_length", "entropy", "eval/accuracy")
MAX_RUNNING, PAGE_SIZE = 256, 16
ROOM = 512  # tokens of context for each running request: prompt, example and answer


def grpo(
    recipe: Annotated[Path | None, Parameter(help="A TOML file of settings, such as recipes/r1_zero.toml.")] = None,
    /,
    *,
    out: Annotated[Path, Parameter(help="The run's folder: new or empty.")] = Path("runs/grpo"),
    model: Annotated[str | None, Parameter(help="A folder, a .gguf file, a catalogue name, or org/name.")] = None,
    minutes: Annotated[float | None, Parameter(help="Stop after so long, measuring included.")] = None,
    steps: Annotated[int | None, Parameter(help="Stop after so many steps.")] = None,
    seed: Annotated[int | None, Parameter(help="Chooses problems and draws; the same seed, the same run.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="Any setting: --set lr=1e-5 --set beta=0.001")] = (),
    dry_run: Annotated[bool, Parameter(negative="", help="Check everything, take one step, write nothing.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Make a model reason by reinforcement learning with checkable rewards.

    Settings come from the recipe, then from --set, then from the options above. A run that was stopped, by Ctrl-C or
    worse, goes on with: smallpress resume RUN
    """
    from smallpress.rl.settings import GRPOSettings
    from smallpress.run.settings import load_settings

    given = {"model": model, "minutes": minutes, "steps": steps, "seed": seed}
    options = [f"{key}={_toml(value)}" for key, value in given.items() if value is not None]
    settings = load_settings(GRPOSettings, recipe, [*set_, *options])
    if dry_run:
        return _rehearse(settings, offline)
    session = Session.open(settings, offline)
    session.train(RunFolder.create(out, settings.model_dump(mode="json")))


def resume_run(path: Path, offline: bool) -> None:
    """Go on with a run where its newest whole checkpoint stands."""
    from smallpress.rl.settings import GRPOSettings

    folder = RunFolder.open(path)
    settings = settings_from(GRPOSettings, folder.settings, str(path / "run.json"))
    Session.open(settings, offline).train(folder)


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


@dataclass(frozen=True, slots=True)
class Session:
    """A model opened for training: files, trainer, and the questions it is measured on."""

    settings: "GRPOSettings"
    files: "ModelFiles"
    trainer: Any  # rl.trainer.Trainer

    @classmethod
    def open(cls, settings: "GRPOSettings", offline: bool) -> "Session":
        from smallpress.engine.engine import Engine
        from smallpress.engine.torch_runner import TorchRunner
        from smallpress.evaluate.problems import worked_example
        from smallpress.optim.master import MasterWeights
        from smallpress.rl.rollout import speech
        from smallpress.rl.run import compute_dtype
        from smallpress.rl.trainer import Trainer
        from smallpress.tasks.task import TASKS
        from smallpress.weights.load import load_transformer, open_model
        from smallpress.weights.reference import resolve

        path = resolve(settings.model, offline)
        files = open_model(path)
        dtype = compute_dtype(settings.dtype)
        model = load_transformer(path)
        weights = MasterWeights(model, dtype, weight_decay=settings.weight_decay)
        n_running = min(MAX_RUNNING, max(settings.prompts_per_step * settings.group_size, settings.eval_n))
        engine = Engine(TorchRunner(model, PAGE_SIZE, n_running * ROOM // PAGE_SIZE, dtype), n_running)
        example = worked_example() if settings.form == "r1_zero_example" else None
        voice = speech(files.tokenizer(), settings.form, example)
        return cls(settings, files, Trainer(settings, weights, engine, voice, TASKS))

    def train(self, folder: RunFolder) -> None:
        """Measure, train, measure again, write the model and the report; whatever of it the folder does not hold yet."""
        from smallpress.rl.run import Run
        from smallpress.run.report import write_report

        began = time.perf_counter()
        before, reserve = None, 0.0
        if self.settings.measure_n:
            before, reserve = self._baseline(folder)
        run = Run(folder, self.trainer, self._measure, time.perf_counter() - began, reserve)
        total = self.settings.steps
        print(f"training in {folder.path}; Ctrl-C stops, smallpress resume {folder.path} goes on", file=sys.stderr)

        def on_step(step: int, metrics: dict[str, float]) -> None:
            line = console_line(step, {key: metrics[key] for key in SHOWN if key in metrics}, total)
            print(f"{line}  {_left(run.seconds + reserve, step, self.settings)}", flush=True)
            write_report(folder.path)

        run.go(on_step, lambda sentence: print(sentence, file=sys.stderr, flush=True))
        self._export(folder)
        if before is not None:
            self._compare(folder, before, run.seconds)
        print(f"\nreport  {write_report(folder.path)}\nmodel   {folder.path / 'model'}")

    def _measure(self) -> dict[str, float]:
        """The quick look between steps: greedy, the run's own form, strict."""
        return self._evaluate(self.settings.eval_n, "looking").metrics()

    def _evaluate(self, n: int, label: str) -> "Result":
        from smallpress.evaluate.evaluate import evaluate
        from smallpress.evaluate.problems import held_out, worked_example
        from smallpress.evaluate.result import Sampling

        problems = held_out(self.settings.eval_pairs, n, seed=0)
        with Progress(label, total=len(problems.examples), unit="answers") as progress:
            return evaluate(
                self.trainer.engine,
                self.files.tokenizer(),
                problems.examples,
                problems.tasks,
                self.settings.form,
                Sampling(samples=1, temperature=0.0, max_tokens=self.settings.eval_max_tokens),
                "strict",
                Path(self.settings.model).name,
                worked_example() if self.settings.form == "r1_zero_example" else None,
                on_answer=progress.advance,
            )

    def _baseline(self, folder: RunFolder) -> tuple["Result", float]:
        """The untrained model at its best over forms and readings; and the seconds to keep for measuring it trained."""
        from smallpress.evaluate.baseline import answers_needed, baseline, load_result
        from smallpress.evaluate.problems import held_out, worked_example
        from smallpress.evaluate.result import save_json

        path, settings = folder.path / "before.json", self.settings
        if not path.exists():
            problems = held_out(settings.eval_pairs, settings.measure_n, seed=0)
            total = answers_needed(len(problems.examples), 1)
            with Progress("the untrained model", total=total, unit="answers") as progress:
                found = baseline(
                    self.trainer.engine,
                    self.files.tokenizer(),
                    problems.examples,
                    problems.tasks,
                    worked_example(),
                    Path(settings.model).name,
                    samples=1,
                    temperature=0.6,
                    max_tokens=settings.eval_max_tokens,
                    seed=settings.seed,
                    on_answer=progress.advance,
                )
            save_json(path, found)
        result = load_result(path)
        return result, result.seconds

    def _export(self, folder: RunFolder) -> None:
        from smallpress.weights.export import save_hf_folder

        if (folder.path / "model").exists():
            return
        card = {"summary": f"{self.settings.model} after reinforcement learning with checkable rewards (GRPO)."}
        save_hf_folder(folder.path / "model", self.trainer.weights.master, self.files, "bfloat16", card)

    def _compare(self, folder: RunFolder, before: "Result", seconds: float) -> None:
        from smallpress.cli.table import table
        from smallpress.evaluate.compare import compare
        from smallpress.evaluate.tables import comparison_grid
        from smallpress.run.atomic import write_file

        began = time.perf_counter()
        after = self._evaluate(self.settings.measure_n, "the trained model")
        after.save(folder.path / "after.json")
        comparison = compare(before, after)
        result = comparison.model_dump(mode="json", by_alias=True)
        for end, measured in (("before", before), ("after", after)):
            result[end] |= {
                "pass_at_1": result[end]["value"],
                "template": measured.form,
                "extraction": measured.reading,
            }
        result["seconds"] = round(seconds + time.perf_counter() - began, 1)
        write_file(folder.path / "result.json", json.dumps(result, indent=1).encode() + b"\n")
        grid = comparison_grid(comparison)
        print(f"\n{grid.title}\n\n{table(grid.rows)}\n")
        print(_three_thoughts(before, after))


def _three_thoughts(before: "Result", after: "Result") -> str:
    """Three held-out problems with what the model wrote before and after, the hardest of each family first."""
    old = {(problem.family, problem.key): problem for problem in before.problems}
    shown: dict[str, Problem] = {}
    for problem in sorted(after.problems, key=lambda problem: -(problem.steps or 0)):
        shown.setdefault(problem.family, problem)
    parts = []
    for problem in list(shown.values())[:3]:
        parts.append(f"{problem.prompt}   (the answer is {problem.reference})")
        for when, asked in (("before", old[problem.family, problem.key]), ("after", problem)):
            mark = "right" if asked.answers[0].correct else "wrong"
            parts.append(f"  {when}, {mark}: {' '.join(asked.answers[0].text.split())}")
    return "\n".join(parts)


def _left(seconds: float, step: int, settings: "GRPOSettings") -> str:
    """How long the run has been going and how long it still will."""
    ends = [60 * settings.minutes] if settings.minutes is not None else []
    if settings.steps is not None:
        ends.append(seconds / step * settings.steps)
    return f"{clock_time(seconds)}, {clock_time(max(0.0, min(ends) - seconds))} left"


def _rehearse(settings: "GRPOSettings", offline: bool) -> None:
    """One real step and nothing written: what a step costs, and what the run would."""
    session = Session.open(settings, offline)
    began = time.perf_counter()
    metrics, _ = session.trainer.step()
    seconds = time.perf_counter() - began
    print(console_line(1, {key: value for key, value in metrics.items() if key in SHOWN}))
    print(f"one step took {clock_time(seconds)}")
    if settings.steps is not None:
        print(f"{settings.steps} steps would take {clock_time(seconds * settings.steps)}")
    if settings.minutes is not None:
        print(f"about {int(60 * settings.minutes / seconds)} steps fit in {settings.minutes:g} minutes")
