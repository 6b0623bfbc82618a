"""What happened at each step: one JSON line in metrics.jsonl, one line on the console."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError, disk_error

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """The metrics of one run, in a file of lines such as {"step": 3, "reward": 0.5}; steps only grow.

    JSON has no NaN or infinity, and a diverging run is when they matter: they stand as the strings "NaN", "Infinity"
    and "-Infinity", and `read` gives them back as floats. A line is on the disk when `write` returns. A last line
    that a kill cut short is dropped when the log is opened or read; a broken line anywhere else is an error.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._last_step = self._drop_torn_line() if self.path.exists() else -1
        try:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise disk_error(error, f"opening {self.path}") from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line. On an error the file is as it was before, and UserError says why."""
        assert step > self._last_step, f"step {step} after step {self._last_step}"
        assert "step" not in values, "the step is given apart"
        line = json.dumps({"step": step} | {key: _plain(value) for key, value in values.items()}, allow_nan=False)
        start = os.fstat(self._descriptor).st_size
        data = f"{line}\n".encode()
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):  # What stays of the line is a torn one, which the next opening drops.
                os.ftruncate(self._descriptor, start)
            raise disk_error(error, f"writing {self.path}") from error
        self._last_step = step

    def truncate_after(self, step: int) -> None:
        """Forget every step after `step`: a run resumed from its checkpoint will live through them again."""
        kept = [line for line, row in _rows(self.path) if row["step"] <= step]
        write_file(self.path, b"".join(kept))
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self._last_step = min(self._last_step, step)

    def read(self) -> list[dict[str, float]]:
        """Every step's values, with the step under "step", oldest first."""
        return read_metrics(self.path)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drop_torn_line(self) -> int:
        """Cut the file after its last whole line; the last step, -1 if there is none."""
        end, last_step = 0, -1
        for line, row in _rows(self.path):
            end, last_step = end + len(line), row["step"]
        try:
            os.truncate(self.path, end)
        except OSError as error:
            raise disk_error(error, f"mending {self.path}") from error
        return last_step


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics file, also of one that another process is still writing. Raises UserError."""
    return [{key: _NOT_FINITE.get(value, value) for key, value in row.items()} for _, row in _rows(Path(path))]


def console_line(step: int, values: Mapping[str, float], n_steps: int | None = None) -> str:
    """One step in one line, numbers to four digits.

    >>> console_line(7, {"reward": 0.5, "loss": -0.000123456, "tokens": 12034}, n_steps=60)
    'step  7/60  reward 0.5  loss -0.0001235  tokens 12034'
    """
    head = f"step {step:>6}" if n_steps is None else f"step {step:>{len(str(n_steps))}}/{n_steps}"
    return "  ".join([head, *(f"{key} {_short(value)}" for key, value in values.items())])


def _short(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e12 else f"{float(value):.4g}"


def _plain(value: float) -> float | str:
    """A number as JSON can hold it; also takes the scalars of numpy and torch."""
    if isinstance(value, int):
        return value
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each whole line with what it says. A last line without its line break is a torn one and is left out."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith(b"\n"):
            return
        row = _parse(line)
        if row is None:
            raise UserError(f"{path}: line {number} is not a row of metrics", "remove the line")
        yield line, row


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    good = all(type(value) in (int, float) or value in tuple(_NOT_FINITE) for value in row.values())
    return row if good else None
