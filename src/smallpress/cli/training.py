"""What the verbs that train share: settings of a run begun before, a line a step, where the result lies."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

import smallpress
from smallpress.cli.foresight import SECONDS, print_beside
from smallpress.run.errors import UserError
from smallpress.run.metrics import console_line
from smallpress.run.progress import clock_time
from smallpress.run.report import write_report
from smallpress.run.settings import settings_from

if TYPE_CHECKING:
    from pydantic import BaseModel

    from smallpress.planner.plan import Plan
    from smallpress.run.folder import RunFolder
    from smallpress.run.loop import Loop, Pace, Trainer

AnySettings = TypeVar("AnySettings", bound="BaseModel")

REPORT_EVERY = 50  # times as long as writing it takes, which grows with the run


def settings_of(cls: type[AnySettings], folder: "RunFolder") -> AnySettings:
    """The settings a run was begun with. Raises UserError, naming the version that began it where it is another."""
    try:
        return settings_from(cls, folder.settings, str(folder.path / "run.json"))
    except UserError as error:
        versions = folder.record.get("versions")
        began = versions.get("smallpress") if isinstance(versions, dict) else None
        if began == smallpress.__version__:
            raise
        remedy = f"the run was begun with smallpress {began}, this is {smallpress.__version__}: go on with the former"
        raise UserError(error.message, remedy) from None


def point_to(folder: "RunFolder", result: Path) -> None:
    """Write the report, and say where it and the result are."""
    with folder.writing():
        print(f"\nreport  {write_report(folder.path)}\n{result.name:<7} {result}")


def step_lines(
    run: "Loop", shown: Sequence[str], laps: list[float] | None = None
) -> Callable[[int, dict[str, float]], None]:
    """Says each step in a line with the time left, renews the report now and then, and adds its seconds to `laps`."""
    laps = [] if laps is None else laps
    next_report = 0.0

    def on_step(step: int, metrics: dict[str, float]) -> None:
        nonlocal next_report
        settings = run.trainer.settings
        laps.append(sum(value for key, value in metrics.items() if key.startswith("seconds/")))
        line = console_line(step, {key: metrics[key] for key in shown if key in metrics}, settings.steps)
        left = _left(settings, run.seconds, laps, step, run.reserve)
        print(f"{line}  {clock_time(run.seconds)}, {clock_time(left)} left", flush=True)
        if (now := time.perf_counter()) >= next_report:
            write_report(run.folder.path)
            next_report = now + REPORT_EVERY * (time.perf_counter() - now)

    return on_step


def _left(settings: "Pace", seconds: float, laps: Sequence[float], step: int, reserve: float) -> float:
    """Seconds until the run ends, by the clock or at the pace of the steps so far, whichever is sooner."""
    ends = [60 * settings.minutes - seconds] if settings.minutes is not None else []
    if settings.steps is not None:
        ends.append(fmean(laps) * (settings.steps - step) + reserve)
    return max(0.0, min(ends))


def rehearse(plan: "Plan", trainer: "Trainer", shown: Sequence[str]) -> None:
    """One real step and nothing written: what it costs beside its plan, and what the run would."""
    began = time.perf_counter()
    metrics, _ = trainer.step()
    seconds, settings = time.perf_counter() - began, trainer.settings
    print(console_line(1, {key: metrics[key] for key in shown if key in metrics}))
    print(f"one step took {seconds:.1f} seconds")
    print_beside(plan, {SECONDS: seconds})
    if settings.steps is not None:
        print(f"{settings.steps} steps would take {clock_time(seconds * settings.steps)}, and the measuring")
    if settings.minutes is not None:
        n_fitting = int(60 * settings.minutes / seconds)
        print(f"about {n_fitting} steps fit in {settings.minutes:g} minutes, less what the measuring takes")
