"""A ladder from its folder: train, measure and report each stage that is not done yet, by the verbs' own runs."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.progress import Progress, clock_time

if TYPE_CHECKING:
    from smallpress.evaluate.problems import Problems
    from smallpress.ladder.measure import Measured
    from smallpress.ladder.report import Price
    from smallpress.ladder.settings import R1Settings
    from smallpress.ladder.stages import RunSettings, Stage
    from smallpress.ladder.state import Standing

MAX_RUNNING = 256
ROOM_FOR_PROMPT = 512  # tokens, the worked example included


class Climb:
    """One sitting on a ladder. Whatever of it its folder holds already is not done again."""

    def __init__(self, folder: RunFolder, settings: "R1Settings", offline: bool):
        self.folder, self.settings, self.offline = folder, settings, offline
        self._began = time.perf_counter()

    def go(self, last: "Stage | None" = None) -> None:
        """To the end, or to the end of the stage `last`. Raises UserError as the stages' own verbs do."""
        from smallpress.ladder.report import write_ladder_report
        from smallpress.ladder.stages import BASE
        from smallpress.ladder.state import Standing
        from smallpress.tokenizer.prompts import PROMPT_FORMS

        out = self.folder.path
        print(f"climbing in {out}; Ctrl-C stops, smallpress resume {out} goes on", file=sys.stderr)
        with self.folder.holding():
            standing, price = Standing(out, self.settings), price_here()
            self._began -= standing.spent()
            problems = _problems(self.settings)
            self._measure(standing.measured_path(BASE), self.settings.model, tuple(PROMPT_FORMS), problems)
            report = None
            for stage in standing.stages:
                if not standing.is_done(stage):
                    print(f"\n{stage.name}: {stage.title}", flush=True)
                    standing.write()
                    if not standing.is_trained(stage):
                        self._train(standing, stage)
                    self._measure(standing.measured_path(stage.key), str(stage.model(out)), stage.forms, problems)
                    report = write_ladder_report(standing, price)
                    standing.write()
                if stage == last:
                    break
            self._end(standing, report or write_ladder_report(standing, price), price)

    def _train(self, standing: "Standing", stage: "Stage") -> None:
        """Begin the stage's run, or go on with it where it was begun."""
        from smallpress.ladder.stages import run_settings, share_of

        out = stage.folder(standing.out)
        if (out / "run.json").exists():
            return go_on(RunFolder.open(out), self.offline)
        left = standing.seconds_left(stage, spent=time.perf_counter() - self._began)
        minutes = None if left is None else share_of(self.settings, stage, left)
        if minutes is not None:
            if minutes <= 0:
                what = f"the {self.settings.minutes:g} minutes are used up before {stage.name}"
                raise UserError(what, "give more, or fewer measure_n")
            print(f"{clock_time(60 * minutes)} for it", file=sys.stderr)
        if stage.key == "rejection_sampling":
            self._ask_in_general(standing.out)
        begin(run_settings(self.settings, stage, standing.out, minutes), out, self.offline)

    def _ask_in_general(self, out: Path) -> None:
        """What the base answers where no reasoning is needed, for the share of it in the third stage."""
        from smallpress.cli.distill import collect
        from smallpress.ladder.stages import GENERAL, general_settings
        from smallpress.train.gather import questions

        if self.settings.general_prompts:
            settings = general_settings(self.settings)
            (out / GENERAL).mkdir(exist_ok=True)
            collect(out / GENERAL, settings, questions(settings), self.offline)

    def _measure(self, path: Path, model: str, forms: tuple[str, ...], problems: "Problems") -> None:
        from smallpress.cli.open_engine import open_engine
        from smallpress.evaluate.result import save_json
        from smallpress.ladder.measure import measured
        from smallpress.tasks.worked import worked_example
        from smallpress.weights.load import open_model
        from smallpress.weights.reference import resolve

        if path.exists():
            return
        files = open_model(resolve(model, self.offline))
        n, most = len(problems.examples), self.settings.measure_tokens
        room = min(files.config.max_seq_len, ROOM_FOR_PROMPT + most)
        engine, tokenizer = open_engine(files, "auto", min(MAX_RUNNING, n), room), files.tokenizer()
        path.parent.mkdir(exist_ok=True)
        with Progress(f"measuring {model}", total=n * len(forms), unit="answers") as bar:
            found = measured(engine, tokenizer, problems, forms, most, model, worked_example, bar.advance)
        save_json(path, found)
        print(f"{model}: {_in_words(found)}", flush=True)

    def _end(self, standing: "Standing", report: Path, price: "Price") -> None:
        from smallpress.cli.table import table
        from smallpress.ladder.report import rows_of, stage_grid

        print(f"\n{table(stage_grid(rows_of(standing), price))}")
        print(f"\nreport  {report}")
        done = [stage for stage in standing.stages if standing.is_done(stage)]
        if done:
            print(f"model   {done[-1].model(standing.out)}")


def begin(settings: "RunSettings", out: Path, offline: bool) -> None:
    """A stage's run by its own verb."""
    from smallpress.cli.distill import start_distill
    from smallpress.cli.grpo import start_grpo
    from smallpress.cli.sft import start_sft
    from smallpress.rl.settings import GRPOSettings
    from smallpress.train.distill_settings import DistillSettings

    if isinstance(settings, GRPOSettings):
        start_grpo(settings, out, offline)
    elif isinstance(settings, DistillSettings):
        start_distill(settings, out, offline)
    else:
        start_sft(settings, out, offline)


def go_on(folder: RunFolder, offline: bool) -> None:
    from smallpress.cli.distill import resume_distill
    from smallpress.cli.grpo import resume_grpo
    from smallpress.cli.sft import resume_sft

    {"grpo": resume_grpo, "sft": resume_sft, "distill": resume_distill}[folder.verb](folder, offline)


def price_here() -> "Price":
    from smallpress.ladder.report import Price
    from smallpress.planner.probe import known_place

    machine = known_place().machine
    return Price(machine.title, machine.watts, machine.price)


def _problems(settings: "R1Settings") -> "Problems":
    from smallpress.evaluate.problems import held_out

    return held_out(settings.eval_pairs, settings.measure_n, seed=0)


def _in_words(found: "Measured") -> str:
    way = found.best
    accuracy, formed = way.better.overall.accuracy.value, way.strict.overall.well_formed_share
    return f"{100 * accuracy:.1f} % right, {100 * formed:.1f} % well-formed, {100 * way.readable:.1f} % readable"
