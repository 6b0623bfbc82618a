"""How far a long piece of work is: a bar with the time left on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Work of `total` units, shown on stderr while it is done.

    with Progress("pulling smollm2-135m", total=98_000_000, unit="B") as progress:
        progress.advance(65536)

    `unit` "B" counts bytes and is shown as MB. A total of None means nobody knows.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str = "",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, 0
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._bar: Bar | None = None

    def __enter__(self) -> "Progress":
        self._started = self._said = self._clock()
        if self._stream.isatty():
            self._bar = _rich_bar(self._stream, self.unit)
            self._task = self._bar.add_task(self.label, total=self.total)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and self._said > self._started:
            self._say()

    def advance(self, amount: int = 1) -> None:
        self.reach(self.done + amount, self.total)

    def reach(self, done: int, total: int | None) -> None:
        """So much is done, and the total is now known to be that."""
        self.done, self.total = done, total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif self._clock() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def _say(self) -> None:
        self._said = self._clock()
        line = progress_line(self.label, self.done, self.total, self.unit, self._said - self._started)
        print(line, file=self._stream, flush=True)


def progress_line(label: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    """The state of the work in words; the time left supposes that the rest goes as fast as what is done.

    >>> progress_line("pulling", 25_000_000, 100_000_000, "B", 20.0)
    'pulling: 25.0 of 100.0 MB (25 %), 1:00 left'
    """
    scale, shown_unit = (1e6, " MB") if unit == "B" else (1, f" {unit}" if unit else "")
    digits = 1 if unit == "B" else 0
    if not total:
        return f"{label}: {done / scale:.{digits}f}{shown_unit}, {clock_time(seconds)} so far"
    shown = f"{label}: {done / scale:.{digits}f} of {total / scale:.{digits}f}{shown_unit} ({100 * done // total} %)"
    if done >= total:
        return f"{shown} in {clock_time(seconds)}"
    return f"{shown}, {clock_time(seconds * (total - done) / done)} left" if done else shown


def clock_time(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour.

    >>> clock_time(59.6), clock_time(3725)
    ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _rich_bar(stream: TextIO, unit: str) -> "Bar":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    count = DownloadColumn() if unit == "B" else MofNCompleteColumn()
    label = TextColumn("{task.description}", markup=False)
    columns = (label, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn())
    return RichProgress(*columns, console=Console(file=stream), transient=False)
