"""smallpress grpo, and what smallpress resume shares with it"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

import smallpress
from smallpress.cli.gain import RESULT, Exam, seconds_of, write_gain
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import console_line
from smallpress.run.progress import clock_time
from smallpress.run.report import write_report
from smallpress.run.settings import load_settings, settings_from

if TYPE_CHECKING:
    from smallpress.planner.plan import Plan
    from smallpress.rl.settings import GRPOSettings
    from smallpress.tokenizer.tokenizer import Tokenizer
    from smallpress.weights.load import ModelFiles

SHOWN = ("reward", "accuracy", "frac_reward_zero_std", "completions/mean_length", "entropy", "eval/accuracy")
MODEL = "model"
MAX_RUNNING = 256
REPORT_EVERY = 50  # times as long as writing it takes, which grows with the run
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

    given = {"model": model, "minutes": minutes, "steps": steps, "seed": seed}
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = load_settings(GRPOSettings, recipe, [*set_, *options])
    if dry_run:
        return _rehearse(settings, offline)
    session = Session.open(settings, offline)
    session.train(RunFolder.create(out, session.settings.model_dump(mode="json")))


def resume_run(path: Path, offline: bool) -> None:
    """Go on with a run where its newest whole checkpoint stands; a finished one only says so."""
    folder = RunFolder.open(path)
    settings = _settings_of(folder)
    if (path / MODEL).exists() and (not settings.measure_n or (path / RESULT).exists()):
        print(f"{path} is finished")
        return _point_to(folder)
    Session.open(settings, offline).train(folder)


def _settings_of(folder: RunFolder) -> "GRPOSettings":
    from smallpress.rl.settings import GRPOSettings

    try:
        return settings_from(GRPOSettings, folder.settings, str(folder.path / "run.json"))
    except UserError as error:
        versions = folder.record.get("versions")
        began = versions.get("smallpress") if isinstance(versions, dict) else None
        if began == smallpress.__version__:
            raise
        remedy = f"the run was begun with smallpress {began}, this is {smallpress.__version__}: go on with the former"
        raise UserError(error.message, remedy) from None


def _point_to(folder: RunFolder) -> None:
    with folder.writing():
        print(f"\nreport  {write_report(folder.path)}\nmodel   {folder.path / MODEL}")


@dataclass(frozen=True, slots=True)
class Session:
    """A model opened for training since `began`, with all that a run does but its folder."""

    settings: "GRPOSettings"
    files: "ModelFiles"
    trainer: Any  # rl.trainer.Trainer
    exam: Exam
    began: float
    plan: "Plan"

    @classmethod
    def open(cls, settings: "GRPOSettings", offline: bool) -> "Session":
        from smallpress.cli.open_engine import engine_over, number_format
        from smallpress.optim.master import MasterWeights
        from smallpress.rl.rollout import speech
        from smallpress.rl.run import compute_dtype
        from smallpress.rl.trainer import Trainer
        from smallpress.tasks.task import TASKS
        from smallpress.tasks.worked import worked_example
        from smallpress.weights.load import load_transformer, open_model
        from smallpress.weights.reference import resolve

        began, path = time.perf_counter(), resolve(settings.model, offline)
        files = open_model(path)
        tokenizer, dtype = files.tokenizer(), compute_dtype(settings.dtype)
        rollout_format = number_format(settings.rollout_dtype)
        # Where this is written down, a resumed run computes alike, though another type may be faster by then.
        settings = settings.model_copy(
            update={"dtype": str(dtype).removeprefix("torch."), "rollout_dtype": rollout_format}
        )
        plan = _plan_first(files, tokenizer, settings)
        model = load_transformer(path)
        weights = MasterWeights(model, dtype, weight_decay=settings.weight_decay, optimizer=settings.optimizer)
        n_running = min(MAX_RUNNING, max(settings.prompts_per_step * settings.group_size, settings.eval_n))
        engine = engine_over(model, rollout_format, n_running, ROOM)
        trainer = Trainer(settings, weights, engine, speech(tokenizer, settings.form, worked_example), TASKS)
        return cls(settings, files, trainer, Exam(settings, engine, tokenizer), began, plan)

    def train(self, folder: RunFolder) -> None:
        """Measure, train, measure again, write model and report; whatever of it the folder does not hold yet."""
        from smallpress.rl.run import Run

        path, measured = folder.path, self.settings.measure_n > 0
        print(f"training in {path}; Ctrl-C stops, smallpress resume {path} goes on", file=sys.stderr)
        used, reserve = time.perf_counter() - self.began, 0.0
        if measured:
            with folder.writing():
                before = self.exam.before(path)
            # The trained model may answer at more length, and the last step may begin just in time.
            used, reserve = used + seconds_of(before), 2 * max(result.seconds for result in before.results)
        run = Run(folder, self.trainer, self.exam.look, used, reserve)
        laps: list[float] = []
        next_report = 0.0

        def on_step(step: int, metrics: dict[str, float]) -> None:
            nonlocal next_report
            laps.append(sum(value for key, value in metrics.items() if key.startswith("seconds/")))
            line = console_line(step, {key: metrics[key] for key in SHOWN if key in metrics}, self.settings.steps)
            left = _left(self.settings, run.seconds, laps, step, reserve)
            print(f"{line}  {clock_time(run.seconds)}, {clock_time(left)} left", flush=True)
            if (now := time.perf_counter()) >= next_report:
                write_report(path)
                next_report = now + REPORT_EVERY * (time.perf_counter() - now)

        run.go(on_step, lambda sentence: print(sentence, file=sys.stderr, flush=True))
        if self.trainer.n_done == 0:
            print(f"no step fits into {self.settings.minutes:g} minutes: nothing was trained", file=sys.stderr)
        with folder.writing():
            self._export(path / MODEL)
            if measured:
                after = self.exam.after(path)
                write_gain(path, before.result, after, run.seconds + after.seconds)
        _print_beside(self.plan, laps)
        _point_to(folder)

    def _export(self, folder: Path) -> None:
        from smallpress.weights.export import save_hf_folder

        if not folder.exists():
            card = {"summary": f"{self.settings.model} after reinforcement learning with checkable rewards (GRPO)."}
            save_hf_folder(folder, self.trainer.weights.master, self.files, "bfloat16", card)


def _left(settings: "GRPOSettings", seconds: float, laps: Sequence[float], step: int, reserve: float) -> float:
    """Seconds until the run ends, by the clock or at the pace of the steps so far, whichever is sooner."""
    ends = [60 * settings.minutes - seconds] if settings.minutes is not None else []
    if settings.steps is not None:
        ends.append(fmean(laps) * (settings.steps - step) + reserve)
    return max(0.0, min(ends))


def _plan_first(files: "ModelFiles", tokenizer: "Tokenizer", settings: "GRPOSettings") -> "Plan":
    """Print what the run will take, of prompts as the tasks ask them. UserError where it cannot fit."""
    from smallpress.cli.foresight import announce, foresee_grpo
    from smallpress.rl.rollout import speech
    from smallpress.tasks.task import TASKS
    from smallpress.tasks.worked import worked_example

    encode = speech(tokenizer, settings.form, worked_example).encode
    prompts = [encode(next(TASKS[family].examples("train", settings.seed, level))) for family, level in settings.pairs]
    first, *others = prompts
    n_shared = min((_n_alike(first, other) for other in others), default=len(first) // 2)
    plan = foresee_grpo(files, settings, fmean(map(len, prompts)), n_shared)
    announce(plan)
    return plan


def _n_alike(left: Sequence[int], right: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _print_beside(plan: "Plan", laps: Sequence[float]) -> None:
    from smallpress.cli.foresight import PEAK, beside
    from smallpress.run.machine import peak_resident

    if laps:
        print(f"\n{beside(plan, {'seconds a step': fmean(laps), PEAK: peak_resident()})}", file=sys.stderr)


def _rehearse(settings: "GRPOSettings", offline: bool) -> None:
    """One real step and nothing written: what a step costs, and what the run would."""
    session = Session.open(settings, offline)
    began = time.perf_counter()
    metrics, _ = session.trainer.step()
    seconds = time.perf_counter() - began
    print(console_line(1, {key: value for key, value in metrics.items() if key in SHOWN}))
    print(f"one step took {seconds:.1f} seconds")
    _print_beside(session.plan, [seconds])
    if settings.steps is not None:
        print(f"{settings.steps} steps would take {clock_time(seconds * settings.steps)}, and the measuring")
    if settings.minutes is not None:
        n_fitting = int(60 * settings.minutes / seconds)
        print(f"about {n_fitting} steps fit in {settings.minutes:g} minutes, less what the measuring takes")
