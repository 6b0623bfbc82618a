"""smallpress sft"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smallpress.cli.training import point_to, settings_of, step_lines
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import console_line
from smallpress.run.progress import Progress, clock_time
from smallpress.run.settings import load_settings

if TYPE_CHECKING:
    from smallpress.train.data import Data
    from smallpress.train.objective import Objective
    from smallpress.train.settings import SFTSettings
    from smallpress.weights.load import ModelFiles

SHOWN = ("loss", "eval/loss", "reward_accuracy", "grad_norm", "lr", "tokens_per_second")


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
        RunFolder.check_new(out)
    session = Session.open(settings, offline)
    print(session.plan())
    if dry_run:
        return session.rehearse()
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

    @classmethod
    def open(cls, settings: "SFTSettings", offline: bool, objective_of: Any = None) -> "Session":
        """`objective_of`: (files, weights) -> what is made large, where it is neither likelihood nor preference."""
        from smallpress.optim.compute_dtype import compute_dtype
        from smallpress.train.data import read_samples
        from smallpress.train.objective import Likelihood
        from smallpress.train.preferences import Preferences, read_pairs
        from smallpress.train.session import check_length, open_weights
        from smallpress.train.trainer import Trainer
        from smallpress.weights.load import open_model
        from smallpress.weights.reference import resolve

        began = time.perf_counter()
        files = open_model(resolve(settings.model, offline))
        check_length(settings.max_tokens, files)
        dtype = compute_dtype(settings.dtype)
        read = read_samples if settings.dpo is None else read_pairs
        with Progress("reading the data", total=None, unit="rows") as progress:
            data = read(settings, files.tokenizer(), progress.advance)
        # Where this is written down, a resumed run computes alike, though another type may be faster by then.
        settings = settings.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
        weights = open_weights(settings, files, dtype)
        objective: Objective = Likelihood(settings.micro_batch_tokens)
        if objective_of is not None:
            objective = objective_of(files, weights)
        elif settings.dpo is not None:
            objective = Preferences(settings, files, weights)
        trainer = Trainer(settings, weights, objective, data.items, data.held_out)
        settings = settings.model_copy(update={"steps": trainer.settings.steps})
        return cls(settings, files, data, trainer, began)

    def plan(self) -> str:
        """What there is to train on, what is left out and why, and how long it goes on."""
        from smallpress.train.data import describe

        n_weights = sum(parameter.numel() for parameter in self.trainer.weights.master.values())
        steps = f"{self.settings.steps} steps of {self.settings.samples_per_step}"
        return f"{describe(self.data)}\n{steps}, {n_weights / 1e6:.1f} million weights trained in {self.settings.dtype}"

    def train(self, folder: RunFolder) -> None:
        """Train, write model or adapter and report; whatever of it the folder does not hold yet."""
        from smallpress.train.run import Run
        from smallpress.train.session import export, result_folder

        path = folder.path
        print(f"training in {path}; Ctrl-C stops, smallpress resume {path} goes on", file=sys.stderr)
        run = Run(folder, self.trainer, time.perf_counter() - self.began)
        run.go(step_lines(run, SHOWN), lambda sentence: print(sentence, file=sys.stderr, flush=True))
        result = result_folder(self.settings, path)
        with folder.writing():
            if not result.exists():
                how = (
                    "supervised training on answers" if self.settings.dpo is None else "direct preference optimization"
                )
                summary = f"{self.settings.model} after {how}."
                export(self.settings, self.files, self.trainer.weights, result, summary)
        point_to(folder, result)

    def rehearse(self) -> None:
        """One real step and nothing written: what a step costs, and what the run would."""
        began = time.perf_counter()
        metrics, _ = self.trainer.step()
        seconds = time.perf_counter() - began
        print(console_line(1, {key: value for key, value in metrics.items() if key in SHOWN}))
        assert self.settings.steps is not None
        print(f"one step took {seconds:.1f} seconds")
        print(f"{self.settings.steps} steps would take {clock_time(seconds * self.settings.steps)}, and the measuring")
