"""smallpress grpo"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smallpress.cli.foresight import SECONDS, announce, foresee_grpo, print_beside
from smallpress.cli.gain import RESULT, Exam, seconds_of, write_gain
from smallpress.cli.training import point_to, rehearse, settings_of, step_lines
from smallpress.run.folder import RunFolder
from smallpress.run.settings import load_settings

if TYPE_CHECKING:
    from smallpress.planner.plan import Plan
    from smallpress.rl.settings import GRPOSettings
    from smallpress.tokenizer.tokenizer import Tokenizer
    from smallpress.weights.load import ModelFiles

SHOWN = ("reward", "accuracy", "frac_reward_zero_std", "completions/mean_length", "entropy", "eval/accuracy")
MODEL = "model"
MAX_RUNNING = 256
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
        session = Session.open(settings, offline)
        if session.trainer.judges is not None:
            for name, score in session.trainer.judges.rehearse().items():
                print(f"{name} of a plain right answer, by {settings.judges[name].by}: {score:.3f}")
        return rehearse(session.plan, session.trainer, SHOWN)
    start_grpo(settings, out, offline)


def start_grpo(settings: "GRPOSettings", out: Path, offline: bool) -> None:
    """A new run in `out`, to its end. Raises UserError before there is anything to lose."""
    RunFolder.check_new(out)
    session = Session.open(settings, offline)
    session.train(RunFolder.create(out, session.settings.model_dump(mode="json"), verb="grpo"))


def resume_grpo(folder: RunFolder, offline: bool) -> None:
    """Go on with a run where its newest whole checkpoint stands; a finished one only says so."""
    from smallpress.rl.settings import GRPOSettings

    path, settings = folder.path, settings_of(GRPOSettings, folder)
    if (path / MODEL).exists() and (not settings.measure_n or (path / RESULT).exists()):
        print(f"{path} is finished")
        return point_to(folder, path / MODEL)
    Session.open(settings, offline).train(folder)


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
        from smallpress.lowbit.linear8 import set_backward
        from smallpress.optim.compute_dtype import compute_dtype
        from smallpress.optim.master import MasterWeights
        from smallpress.rl.general import read_prompts
        from smallpress.rl.judge_settings import RULES
        from smallpress.rl.judges import open_judges
        from smallpress.rl.rollout import speech
        from smallpress.rl.rules_judge import NOTE
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
        general = read_prompts(settings.prompts, settings.form)
        plan = plan_of(files, tokenizer, settings, offline)
        announce(plan)
        judges = open_judges(settings, dtype, offline)
        model = load_transformer(path)
        weights = MasterWeights(model, dtype, weight_decay=settings.weight_decay, optimizer=settings.optimizer)
        set_backward(settings.backward, weights.model.layers)
        n_running = min(MAX_RUNNING, max(settings.prompts_per_step * settings.group_size, settings.eval_n))
        engine = engine_over(model, rollout_format, n_running, ROOM)
        for name in (name for name, one in settings.judges.items() if one.by == RULES):
            print(f"{name}: {NOTE}", file=sys.stderr)
        words = speech(tokenizer, settings.form, worked_example)
        trainer = Trainer(settings, weights, engine, words, TASKS, judges, general)
        return cls(settings, files, trainer, Exam(settings, engine, tokenizer), began, plan)

    def train(self, folder: RunFolder) -> None:
        """Measure, train, measure again, write model and report; whatever of it the folder does not hold yet."""
        from smallpress.rl.run import Run

        path, measured = folder.path, self.settings.measure_n > 0
        if self.trainer.judges is not None:
            with folder.writing():
                self.trainer.judges.keep_in(path)
        print(f"training in {path}; Ctrl-C stops, smallpress resume {path} goes on", file=sys.stderr)
        used, reserve = time.perf_counter() - self.began, 0.0
        if measured:
            with folder.writing():
                before = self.exam.before(path)
            # The trained model may answer at more length, and the last step may begin just in time.
            used, reserve = used + seconds_of(before), 2 * max(result.seconds for result in before.results)
        run = Run(folder, self.trainer, self.exam.look, used, reserve)
        laps: list[float] = []
        run.go(step_lines(run, SHOWN, laps), lambda sentence: print(sentence, file=sys.stderr, flush=True))
        if self.trainer.n_done == 0:
            print(f"no step fits into {self.settings.minutes:g} minutes: nothing was trained", file=sys.stderr)
        with folder.writing():
            self._export(path / MODEL)
            if measured:
                after = self.exam.after(path)
                write_gain(path, before.result, after, run.seconds + after.seconds)
        if laps:
            print_beside(self.plan, {SECONDS: fmean(laps)})
        point_to(folder, path / MODEL)

    def _export(self, folder: Path) -> None:
        from smallpress.weights.export import save_hf_folder

        if not folder.exists():
            card = {"summary": f"{self.settings.model} after reinforcement learning with checkable rewards (GRPO)."}
            save_hf_folder(folder, self.trainer.weights.master, self.files, "bfloat16", card)


def plan_of(files: "ModelFiles", tokenizer: "Tokenizer", settings: "GRPOSettings", offline: bool) -> "Plan":
    """What the run will take, of prompts as the tasks ask them."""
    from smallpress.rl.judges import reward_model_bytes
    from smallpress.rl.rollout import speech
    from smallpress.tasks.task import TASKS
    from smallpress.tasks.worked import worked_example

    encode = speech(tokenizer, settings.form, worked_example).encode
    prompts = [encode(next(TASKS[family].examples("train", settings.seed, level))) for family, level in settings.pairs]
    first, *others = prompts
    n_shared = min((_n_alike(first, other) for other in others), default=len(first) // 2)
    return foresee_grpo(files, settings, fmean(map(len, prompts)), n_shared, reward_model_bytes(settings, offline))


def _n_alike(left: Sequence[int], right: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
