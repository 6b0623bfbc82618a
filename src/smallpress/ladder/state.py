"""How far a ladder is: told by its folders, so that no kill can make it wrong; ladder.json says it to others."""

import json
import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from smallpress.ladder.measure import Measured, read_measured
from smallpress.ladder.settings import R1Settings
from smallpress.ladder.stages import BASE, GENERAL, MODEL, Stage, stages
from smallpress.run.atomic import write_file
from smallpress.run.errors import disk_error
from smallpress.run.report_source import metrics_of
from smallpress.train.gather import ANSWERS, seconds_asked, stored

LADDER, MEASURED = "ladder.json", "measured.json"
SCHEMA = "smallpress.ladder/1"


class Standing:
    """A ladder's folder `out`, read anew at every question."""

    def __init__(self, out: Path, settings: R1Settings):
        self.out, self.settings, self.stages = out, settings, stages(settings)

    def measured_path(self, key: str) -> Path:
        """Where a stage's measurement lies, or the base's."""
        return self.out / (f"{BASE}.json" if key == BASE else f"{self._stage(key).name}/{MEASURED}")

    def measured(self, key: str) -> Measured | None:
        return read_measured(self.measured_path(key))

    def is_trained(self, stage: Stage) -> bool:
        return stage.given is not None or (stage.folder(self.out) / MODEL).is_dir()

    def is_done(self, stage: Stage) -> bool:
        return self.is_trained(stage) and self.measured_path(stage.key).exists()

    def seconds(self, stage: Stage) -> float:
        """What its run has taken by the last line it wrote: asking, training, and the looks along the way."""
        folder = stage.folder(self.out)
        rows = metrics_of(folder)
        asking = seconds_asked(stored(folder / ANSWERS))
        if stage.key == "rejection_sampling":
            asking += seconds_asked(stored(self.out / GENERAL / ANSWERS))
        return asking + 60 * (rows[-1].get("minutes", 0.0) if rows else 0.0)

    def spent(self) -> float:
        """Seconds of all that is done, as its files tell."""
        measuring = [found.seconds for key in self._keys() if (found := self.measured(key)) is not None]
        return sum(map(self.seconds, self.stages)) + sum(measuring)

    def seconds_left(self, stage: Stage, spent: float) -> float | None:
        """For this stage and those after it: what is neither spent nor needed to measure them. None: no limit."""
        if self.settings.minutes is None:
            return None
        each = 0.0  # of one form, as the newest measurement took
        for key in self._keys():
            if (found := self.measured(key)) is not None:
                each = found.seconds / len(found.ways)
        rest = self.stages[self.stages.index(stage) :]
        reserve = each * sum(len(one.forms) for one in rest if not self.is_done(one))
        return 60 * self.settings.minutes - spent - reserve

    def as_json(self) -> dict[str, Any]:
        """{"schema", "stages": [{"name", "state", "seconds", "model"}]}; states: waiting, begun, trained, measured."""
        return {"schema": SCHEMA, "stages": [self._row(stage) for stage in self.stages]}

    def write(self) -> None:
        write_file(self.out / LADDER, json.dumps(self.as_json(), indent=1, ensure_ascii=False).encode() + b"\n")

    def _row(self, stage: Stage) -> Mapping[str, Any]:
        if self.is_trained(stage):
            state = "measured" if self.is_done(stage) else "trained"
        else:
            state = "begun" if (stage.folder(self.out) / "run.json").exists() else "waiting"
        row = {"name": stage.name, "state": state, "seconds": round(self.seconds(stage), 1)}
        return row | {"model": str(stage.model(self.out))}

    def _keys(self) -> list[str]:
        return [BASE, *(stage.key for stage in self.stages)]

    def _stage(self, key: str) -> Stage:
        return next(stage for stage in self.stages if stage.key == key)


def move_aside(standing: Standing, first: Stage) -> None:
    """Make room for `first` and the stages after it: what they left goes to a folder aside-1, aside-2 and so on.

    The last stage goes first: what a kill leaves is a ladder that lacks its end.
    """
    out, at = standing.out, standing.stages.index(first)
    names = [stage.name for stage in reversed(standing.stages[at:])]
    names += [GENERAL] * any(stage.key == "rejection_sampling" for stage in standing.stages[at:])
    present = [name for name in ("result.json", *names) if (out / name).exists()]
    if not present:
        return
    aside = next(path for n in count(1) if not (path := out / f"aside-{n}").exists())
    try:
        aside.mkdir()
        for name in present:
            os.rename(out / name, aside / name)
    except OSError as error:
        raise disk_error(error, f"moving the old stages of {out} aside") from error
