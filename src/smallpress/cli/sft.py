"""smallpress sft"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smallpress.cli.foresight import SECONDS, announce, foresee_sft, print_beside
from smallpress.cli.training import point_to, rehearse, settings_of, step_lines
from smallpress.run.folder import RunFolder
from smallpress.run.progress import Progress
from smallpress.run.settings import load_settings

if TYPE_CHECKING:
    from smallpress.planner.learning import Learned
    from smallpress.planner.plan import Plan
    from smallpress.train.data import Data
    from smallpress.train.objective import Objective
    from smallpress.train.settings import SFTSettings
    from smallpress.weights.load import ModelFiles

SHOWN = ("loss", "eval/loss", "reward_accuracy", "eval/reward_accuracy", "grad_norm", "lr", "tokens_per_second")


def sft(
    recipe: Annotated[Path | None, Parameter(help="A TOML file of settings, such as recipes/sft.toml.")] = None,
    /,
    *,
    out: Annotated[Path, Parameter(help="The run's folder: new or empty.")] = Path("runs/sft"),
    model: Annotated[str | None, Parameter(help="A folder, a .gguf file, a catalogue name, or org/name.")] = None,
    data: Annotated[tuple[str, ...], Parameter(help="Files of JSON lines; see docs/train.md for the shapes.")] = (),
    epochs: Annotated[float | None, Parameter(help="How often every sample is met.")] = None,
    minutes: Annotated[float | None, Parameter(help="Stop after so long.")] = None,
    steps: Annotated[int | None, Parameter(help="Stop after so many steps.")] = None,
    seed: Annotated[int | None, Parameter(help="Chooses the order; the same seed, the same run.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="Any setting: --set lr=1e-5 --set lora.rank=8")] = (),
    dry_run: Annotated[
        bool, Parameter(negative="", help="Say what would be done, take one step, write nothing.")
    ] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Train a model on answers: all its weights or adapters, on conversations or on pairs of answers.

    Settings come from the recipe, then from --set, then from the options above. A run that was stopped, by Ctrl-C or
    worse, goes on with: smallpress resume RUN
    """
    from smallpress.train.settings import SFTSettings

    given = {"model": model, "epochs": epochs, "minutes": minutes, "steps": steps, "seed": seed}
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    options += [f"data={json.dumps(data)}"] if data else []
    settings = load_settings(SFTSettings, recipe, [*set_, *options])
    if not dry_run:
        return start_sft(settings, out, offline)
    session = Session.open(settings, offline)
    rehearse(session.plan, session.trainer, SHOWN)


def start_sft(settings: "SFTSettings", out: Path, offline: bool) -> None:
    """A new run in `out`, to its end. Raises UserError before there is anything to lose."""
    RunFolder.check_new(out)
    session = Session.open(settings, offline)
    session.train(RunFolder.create(out, session.settings.model_dump(mode="json"), verb="sft"))


def resume_sft(folder: RunFolder, offline: bool) -> None:
    """Go on with a run where its newest whole checkpoint stands; a finished one only says so."""
    from smallpress.train.session import result_folder
    from smallpress.train.settings import SFTSettings

    settings = settings_of(SFTSettings, folder)
    result = result_folder(settings, folder.path)
    if result.exists():
        print(f"{folder.path} is finished")
        return point_to(folder, result)
    Session.open(settings, offline).train(folder)


@dataclass(frozen=True, slots=True)
class Session:
    """A model and its data opened for training since `began`, with all that a run does but its folder."""

    settings: "SFTSettings"
    files: "ModelFiles"
    data: "Data"
    trainer: Any  # train.trainer.Trainer
    began: float
    plan: "Plan"

    @classmethod
    def open(
        cls,
        settings: "SFTSettings",
        offline: bool,
        objective_of: Any = None,
        changed: "Callable[[Learned], Learned]" = lambda asked: asked,
    ) -> "Session":
        """Says what there is to train on and what it will take. UserError where that cannot fit, before any weights are
        read. `objective_of`: (files, weights) -> what is made large, where it is neither likelihood nor preference;
        `changed`: what that adds to the plan."""
        from smallpress.optim.compute_dtype import compute_dtype
        from smallpress.train.data import describe, read_samples
        from smallpress.train.objective import Likelihood
        from smallpress.train.pairwise import Pairwise, read_scored_pairs
        from smallpress.train.preferences import Preferences, read_pairs
        from smallpress.train.session import check_length, open_weights
        from smallpress.train.trainer import Order, Trainer
        from smallpress.weights.load import open_model
        from smallpress.weights.reference import resolve

        began = time.perf_counter()
        files = open_model(resolve(settings.model, offline))
        check_length(settings.max_tokens, files)
        dtype = compute_dtype(settings.dtype)
        read = read_samples if settings.dpo is None else read_pairs
        if settings.pairwise is not None:
            read = read_scored_pairs
        with Progress("reading the data", total=None, unit="rows") as progress:
            data = read(settings, files.tokenizer(), progress.advance)
        # Where this is written down, a resumed run computes alike, though another type may be faster by then.
        settings = settings.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
        order = Order(len(data.items), settings.samples_per_step, settings.seed)
        n_steps = settings.steps or order.n_steps(settings.epochs)
        settings = settings.model_copy(update={"steps": n_steps})
        plan = foresee_sft(files, settings, n_steps, data, changed)
        n_weights = f"{plan.figures['weights trained'] / 1e6:.1f} million weights trained in {settings.dtype}"
        print(f"{describe(data)}\n{n_steps} steps of {settings.samples_per_step}, {n_weights}")
        announce(plan)
        weights = open_weights(settings, files, dtype, scores=settings.pairwise is not None)
        objective: Objective = Likelihood(settings.micro_batch_tokens)
        if objective_of is not None:
            objective = objective_of(files, weights)
        elif settings.dpo is not None:
            objective = Preferences(settings, files, weights)
        elif settings.pairwise is not None:
            objective = Pairwise(settings)
        trainer = Trainer(settings, weights, objective, data.items, data.held_out)
        return cls(settings, files, data, trainer, began, plan)

    @property
    def what(self) -> str:
        """What the run is, in words."""
        if self.settings.pairwise is not None:
            return "training as a reward model on pairs of answers: it scores a conversation, and writes none"
        return "supervised training on answers" if self.settings.dpo is None else "direct preference optimization"

    def train(self, folder: RunFolder) -> None:
        """Train, write model or adapter and report; whatever of it the folder does not hold yet."""
        from smallpress.train.run import Run
        from smallpress.train.session import export, result_folder

        path = folder.path
        print(f"training in {path}; Ctrl-C stops, smallpress resume {path} goes on", file=sys.stderr)
        laps: list[float] = []
        run = Run(folder, self.trainer, time.perf_counter() - self.began)
        run.go(step_lines(run, SHOWN, laps), lambda sentence: print(sentence, file=sys.stderr, flush=True))
        result = result_folder(self.settings, path)
        with folder.writing():
            if not result.exists():
                summary = f"{self.settings.model} after {self.what}."
                export(self.settings, self.files, self.trainer.weights, result, summary)
        if laps:
            print_beside(self.plan, {SECONDS: fmean(laps)})
        point_to(folder, result)
