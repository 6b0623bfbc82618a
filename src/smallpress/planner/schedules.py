"""Pipeline schedules as event timelines: which rank does what when, from its list of work and what that waits for.

Every rank has a list of work in a fixed order; a piece begins when the rank is free and what it needs has come from its
neighbour. A backward pass is the gradient of the inputs (I), for which the neighbour waits, and that of the weights
(W), which can wait; B is both. An overlapped pair hides one's communication behind the other's arithmetic.

Bubbles of P ranks, against which the timelines are tested (DeepSeek-V3, table 2):
1F1B (P - 1)(F + B), interleaved with V stages a rank (P - 1)(F + B) / V, zero bubble (P - 1)(F + B - 2W),
DualPipe and DualPipeV (P / 2 - 1)(F&B + B - 3W).
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smallpress.planner.plan import Bar


@dataclass(frozen=True, slots=True)
class Lasts:
    """Seconds of a micro-batch on one stage, and of a forward and a backward pass that overlap (None: no gain).
    `send`: from rank to rank."""

    forward: float
    inputs: float
    weights: float
    pair: float | None = None
    send: float = 0.0

    @property
    def backward(self) -> float:
        return self.inputs + self.weights

    @property
    def both(self) -> float:
        return self.forward + self.backward if self.pair is None else self.pair


Work = tuple[str, int]
"""(kind, way): F, B, I or W of the next micro-batch on that way through the ranks; FB is F on it, B on the other."""


@dataclass(frozen=True, slots=True)
class Timeline:
    bars: tuple[Bar, ...]
    n_ranks: int

    @property
    def seconds(self) -> float:
        return max(bar.end for bar in self.bars)

    @property
    def bubble(self) -> float:
        """Seconds that the busiest-scheduled rank is idle, on the average of ranks."""
        busy = sum(bar.end - bar.begin for bar in self.bars)
        return self.seconds - busy / self.n_ranks


def one_f_one_b(rank: int, n_ranks: int, n_batches: int) -> Iterator[Work]:
    """Narayanan et al. 2021: after a start of forward passes, one forward and one backward in turn."""
    n_ahead = min(n_ranks - rank - 1, n_batches)
    yield from [("F", 0)] * n_ahead
    for _ in range(n_batches - n_ahead):
        yield "F", 0
        yield "B", 0
    yield from [("B", 0)] * n_ahead


def interleaved(rank: int, n_ranks: int, n_batches: int, n_chunks: int = 2) -> Iterator[Work]:
    """Narayanan et al. 2021: a rank holds `n_chunks` thin stages, and each micro-batch comes round as often. Way v is
    the v-th of them; micro-batches go in groups of as many as there are ranks, through one stage after the other."""
    n_work = n_batches * n_chunks
    forward = [(k // n_ranks) % n_chunks for k in range(n_work)]
    n_ahead = min(2 * (n_ranks - rank - 1) + (n_chunks - 1) * n_ranks, n_work)
    yield from [("F", way) for way in forward[:n_ahead]]
    for k in range(n_work):
        if k < n_work - n_ahead:
            yield "F", forward[n_ahead + k]
        yield "B", n_chunks - 1 - forward[k]


def zero_bubble(rank: int, n_ranks: int, n_batches: int) -> Iterator[Work]:
    """ZB-H1 (Qi et al. 2023): 1F1B whose weight gradients wait, as many as the rank's number, to fill the end."""
    n_ahead = min(n_ranks - rank - 1, n_batches)
    n_late = min(rank, n_batches)
    yield from [("F", 0)] * n_ahead
    for i in range(n_batches):
        if i < n_batches - n_ahead:
            yield "F", 0
        yield "I", 0
        if i >= n_late:
            yield "W", 0
    yield from [("W", 0)] * n_late


def dual_pipe(rank: int, n_ranks: int, n_batches: int) -> Iterator[Work]:
    """DeepSeek-V3: half the micro-batches come from each end; a rank holds two stages."""
    half = n_ranks // 2
    place, near = min(rank, n_ranks - 1 - rank), int(rank >= half)
    main = n_batches // 2 - n_ranks + place + 1
    yield from _two_ways(place, half, main, near, place == half - 1)


def dual_pipe_v(rank: int, n_ranks: int, n_batches: int) -> Iterator[Work]:
    """DualPipe cut in half: micro-batches go down the ranks and come back, so a rank holds two stages once."""
    yield from _two_ways(rank, n_ranks, n_batches - 2 * n_ranks + rank + 1, 0, rank == n_ranks - 1)


def _two_ways(place: int, half: int, main: int, near: int, is_middle: bool) -> Iterator[Work]:
    """The eight stretches of both; `near` is the way that reaches the rank first."""
    far, inner = 1 - near, half - place - 1
    yield from [("F", near)] * (2 * inner)
    yield from [("F", near), ("F", far)] * (place + 1)
    yield from [("I", far), ("W", far), ("F", far)] * inner
    for i in range(main):
        yield from [("F", near), ("B", far)] if i == 0 and is_middle else [("FB", near)]
        yield "FB", far
    yield from [("B", far), ("FB", far)] * inner
    n, late = place + 1, False
    for i in range(n):
        late = late or (i == n // 2 and place % 2 == 1)
        yield "I" if late else "B", far
        late = late or (i == n // 2 and place % 2 == 0)
        yield "I" if late else "B", near
    yield from [("W", near), ("I", near)] * inner
    yield from [("W", near)] * (place + 1)


SCHEDULES: dict[str, Callable[..., Iterator[Work]]] = {
    "1f1b": one_f_one_b,
    "interleaved": interleaved,
    "zerobubble": zero_bubble,
    "dualpipe": dual_pipe,
    "dualpipev": dual_pipe_v,
}
TWO_WAYS = ("dualpipe", "dualpipev")


def timeline(schedule: str, n_ranks: int, n_batches: int, lasts: Lasts, n_chunks: int = 1) -> Timeline:
    """The whole of a step. DualPipe wants even ranks and at least two micro-batches a rank, DualPipeV as many;
    interleaved stages, `n_chunks` a rank with `lasts` of one of them, as many or a multiple."""
    assert n_ranks >= 1 and n_batches >= 1
    assert schedule != "interleaved" or n_batches % n_ranks == 0, f"{n_batches} micro-batches, {n_ranks} ranks"
    assert schedule not in TWO_WAYS or n_batches >= 2 * n_ranks, f"{n_batches} micro-batches, {n_ranks} ranks"
    more = (n_chunks,) if schedule == "interleaved" else ()
    lists = [deque(SCHEDULES[schedule](rank, n_ranks, n_batches, *more)) for rank in range(n_ranks)]
    simulation = _Simulation(schedule, n_ranks, lasts, n_chunks)
    while any(lists):
        moved = False
        for rank, list_ in enumerate(lists):
            while list_ and simulation.start(rank, *list_[0]):
                list_.popleft()
                moved = True
        assert moved, f"{schedule} with {n_ranks} ranks and {n_batches} micro-batches waits for itself"
    return Timeline(tuple(simulation.bars), n_ranks)


class _Simulation:
    """What has come to every rank, and when it is free."""

    def __init__(self, schedule: str, n_ranks: int, lasts: Lasts, n_chunks: int):
        self.schedule, self.n_ranks, self.lasts, self.n_chunks = schedule, n_ranks, lasts, n_chunks
        self.free = [0.0] * n_ranks
        self.bars: list[Bar] = []
        self.came: dict[tuple[str, int, int, int], float] = {}  # F or I, way, rank, micro-batch -> when it may begin
        self.counts: dict[tuple[str, int, int], int] = {}  # how many a rank has begun
        self.owed: list[deque[tuple[int, int]]] = [deque() for _ in range(n_ranks)]  # weight gradients

    def start(self, rank: int, kind: str, way: int) -> bool:
        """Do the piece if what it needs is on its way; False: not yet."""
        if kind == "W":
            assert self.owed[rank], f"rank {rank} owes no weight gradient"
            _, batch = self.owed[rank].popleft()
            self._bar(rank, "W", batch, self.free[rank], self.lasts.weights)
            return True
        parts = [("F", way), ("B", 1 - way)] if kind == "FB" else [(kind, way)]
        needs = []
        for one, its_way in parts:
            batch = self.counts.get((_pass(one), its_way, rank), 0)
            ready = self._ready(_pass(one), its_way, rank, batch)
            if ready is None:
                return False
            needs.append((one, its_way, batch, ready))
        begin = max([self.free[rank], *(ready for *_, ready in needs)])
        seconds = self.lasts.both if kind == "FB" else self._seconds(kind)
        for one, its_way, batch, _ in needs:
            self.counts[_pass(one), its_way, rank] = batch + 1
            self.came[_pass(one) + " done", its_way, rank, batch] = begin + seconds
            if one == "I":
                self.owed[rank].append((its_way, batch))
        label = "+".join(one for one, *_ in needs)
        self._bar(rank, label, needs[0][2], begin, seconds)
        return True

    def _ready(self, pass_: str, way: int, rank: int, batch: int) -> float | None:
        """When it can begin; None where what it needs is not scheduled yet."""
        before = self._before(pass_, way, rank)
        if before is None:
            return 0.0
        from_pass, from_way, from_rank = before
        done = self.came.get((from_pass + " done", from_way, from_rank, batch))
        return None if done is None else done + self.lasts.send * (from_rank != rank)

    def _before(self, pass_: str, way: int, rank: int) -> tuple[str, int, int] | None:
        """The pass, way and rank whose result it takes; None at the way's beginning."""
        if self.schedule == "interleaved":
            return self._before_in_rounds(pass_, way, rank)
        stride = 1 if way == 0 else -1
        last = self.n_ranks - 1 if way == 0 else 0
        first = self.n_ranks - 1 - last
        turns = self.schedule == "dualpipev"
        if pass_ == "F":
            if rank != first:
                return "F", way, rank - stride
            return ("F", 0, rank) if turns and way == 1 else None
        if rank != last:
            return "B", way, rank + stride
        return ("B", 1, rank) if turns and way == 0 else ("F", way, rank)

    def _before_in_rounds(self, pass_: str, way: int, rank: int) -> tuple[str, int, int] | None:
        """From the last rank a stage's result goes on to the first rank's next stage."""
        end = self.n_ranks - 1
        if pass_ == "F":
            if rank:
                return "F", way, rank - 1
            return ("F", way - 1, end) if way else None
        if rank < end:
            return "B", way, rank + 1
        return ("B", way + 1, 0) if way < self.n_chunks - 1 else ("F", way, rank)

    def _seconds(self, kind: str) -> float:
        return {"F": self.lasts.forward, "B": self.lasts.backward, "I": self.lasts.inputs}[kind]

    def _bar(self, rank: int, kind: str, batch: int, begin: float, seconds: float) -> None:
        self.bars.append(Bar(rank, kind, batch, begin, begin + seconds))
        self.free[rank] = begin + seconds


def _pass(kind: str) -> str:
    return "F" if kind == "F" else "B"
