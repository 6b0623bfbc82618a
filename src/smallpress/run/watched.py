"""Runs in a folder, found and summed up while they go on: how far, how long still, and whether they move."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from smallpress.run.report_source import Row, is_number, read_object

DEEPEST = 2
MOST = 500
LATELY = 10
"""Steps whose mean duration the rest of the run is thought to go on with."""
QUIET_SECONDS, QUIET_STEPS = 120.0, 5.0
"""A run counts as quiet when nothing was written for so long: the larger of the two."""


@dataclass(frozen=True, slots=True)
class Overview:
    """`state` is "waiting" (no step yet), "running", "quiet" or "finished"; None is unknown."""

    state: str
    step: int
    steps: int | None
    share: float | None
    """How much is done, 0..1, by steps or by minutes, whichever ends first."""
    seconds_left: float | None
    seconds_since: float
    reward: float | None
    accuracy: float | None


def find_runs(folder: Path) -> dict[str, Path]:
    """Folders with a run.json in `folder` and two levels below it, by their path from there, newest first."""
    found = {}
    for path in _run_folders(folder, DEEPEST):
        name = path.relative_to(folder).as_posix()
        found[folder.resolve().name if name == "." else name] = path
        if len(found) == MOST:
            break
    return dict(sorted(found.items(), key=lambda item: (-_changed(item[1]), item[0])))


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "run.json").is_file():
        yield folder
    if depth and not folder.name.startswith("."):
        for inner in sorted(folder.iterdir()):
            if inner.is_dir():
                yield from _run_folders(inner, depth - 1)


def stamp(folder: Path) -> str:
    """Changes whenever a file that `drawn` or `overview` reads changes."""
    parts = [folder / name for name in ("metrics.jsonl", "result.json", "run.json", "samples")]
    stats = [path.stat() for path in parts if path.exists()]
    return "-".join(f"{stat.st_mtime_ns:x}.{stat.st_size:x}" for stat in stats)


def overview(folder: Path, rows: Sequence[Row], now: float | None = None) -> Overview:
    """The run in `folder`, whose metrics are `rows`; `now` in seconds since 1970. Raises UserError."""
    settings = read_object(folder / "run.json").get("settings")
    plan = settings if isinstance(settings, Mapping) else {}
    steps, minutes = _positive(plan.get("steps")), _positive(plan.get("minutes"))
    step = int(rows[-1]["step"]) if rows else 0
    since = max(0.0, (time.time() if now is None else now) - _changed(folder))
    pace = seconds_a_step(rows)
    spent = _newest(rows[-1:], "minutes")
    shares = [step / steps] if steps else []
    left = [(steps - step) * pace] if steps and pace else []
    if minutes and spent is not None:
        shares.append(spent / minutes)
        left.append(60 * (minutes - spent))
    share = min(1.0, max(shares)) if shares else None
    finished = (folder / "result.json").is_file() or (share is not None and share >= 1)
    moves = since <= max(QUIET_SECONDS, QUIET_STEPS * (pace or 0.0))
    state = "finished" if finished else "quiet" if not moves else "running" if rows else "waiting"
    return Overview(
        state,
        step,
        int(steps) if steps else None,
        1.0 if finished else share,
        max(0.0, min(left)) if left and state == "running" else None,
        since,
        _newest(rows, "reward"),
        _newest(rows, "eval/accuracy"),
    )


def seconds_a_step(rows: Sequence[Row]) -> float | None:
    """Mean over the last steps of what their parts, logged as seconds/<part>, add up to.

    >>> seconds_a_step([{"seconds/rollout": 3.0, "seconds/update": 1.0}, {"seconds/rollout": 2.0}])
    3.0
    """
    spent = [sum(v for key, v in row.items() if key.startswith("seconds/") and is_number(v)) for row in rows[-LATELY:]]
    return fmean(spent) if any(spent) else None


def _newest(rows: Sequence[Row], key: str) -> float | None:
    return next((float(row[key]) for row in reversed(rows) if is_number(row.get(key))), None)


def _positive(value: Any) -> float | None:
    return float(value) if is_number(value) and value > 0 else None


def _changed(folder: Path) -> float:
    """When the run last wrote, in seconds since 1970."""
    files = [path for path in (folder / "metrics.jsonl", folder / "run.json") if path.exists()]
    return max((path.stat().st_mtime for path in files), default=0.0)
