"""The thread that owns an engine: takes requests, steps, hands pieces to the event loop, and never waits for it.

The event loop's side is `submit`, `cancel` and `Stream`; everything else runs in the thread. Messages go one way
through an inbox, the other by one `call_soon_threadsafe` a step, so the loop is woken once however many requests run.
"""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from smallpress.engine.engine import Stats
from smallpress.engine.request import Completion, Piece, Request
from smallpress.run.errors import UserError
from smallpress.server.errors import ApiError, from_user_error


class ServedEngine(Protocol):
    """What the worker needs of an engine."""

    @property
    def busy(self) -> bool: ...
    def submit(self, request: Request) -> int: ...
    def step(self) -> list[Piece]: ...
    def cancel(self, request_id: int) -> Completion | None: ...
    def save(self) -> bool: ...
    def is_running(self, request_id: int) -> bool: ...
    def stats(self) -> Stats: ...


@dataclass(slots=True)
class Times:
    """When things happened to a request, by the clock of `time.perf_counter`; 0 is not yet."""

    submitted: float
    admitted: float = 0.0
    first: float = 0.0
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)  # seconds between its tokens


class Stream:
    """The pieces of one request, as they arrive. `on_end` is called once, however it ends."""

    def __init__(self, request: Request, on_end: Callable[["Stream"], None]) -> None:
        self.request, self.times = request, Times(time.perf_counter())
        self.completion: Completion | None = None
        self.fault: ApiError | None = None
        self.n_pieces = 0
        self._on_end: Callable[[Stream], None] | None = on_end
        self._arrived: list[Piece] = []
        self._wake = asyncio.Event()

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """What each step gave, until the last; raises ApiError where the request failed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            arrived, self._arrived = self._arrived, []
            if arrived:
                yield arrived
            if self.fault is not None:
                raise self.fault
            if self.completion is not None:
                return

    def deliver(self, pieces: list[Piece], now: float) -> None:
        times = self.times
        times.gaps += [now - times.last] * (times.first > 0) + [0.0] * (len(pieces) - 1)
        times.first, times.last = times.first or now, now
        self.n_pieces += len(pieces)
        self._arrived += pieces
        if pieces[-1].completion is not None:
            self.end(pieces[-1].completion)
        self._wake.set()

    def end(self, completion: Completion | None, fault: ApiError | None = None) -> None:
        self.completion, self.fault = completion, fault
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)
        self._wake.set()


LAST_SECONDS = 5.0  # for prefixes on their way to the disk when the server stops
DISK_SECONDS = 0.02  # between two looks, with nothing else to do, at whether the disk takes more
KEPT_FREE = 8  # requests that each owner can have in line however many the others have


class Worker:
    """`max_live` requests at most are running or waiting, and a few of each owner beyond; the next one gets a 429."""

    def __init__(self, engine: ServedEngine, name: str = "engine", max_live: int = 1024) -> None:
        self.engine, self.max_live, self.n_live = engine, max_live, 0
        self._live_of: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[tuple[str, Stream]] = deque()
        self._wake = threading.Event()
        self._closing = self._failed = False
        self._streams: dict[int, Stream] = {}
        self._ids: dict[Stream, int] = {}
        self._not_admitted: dict[int, Stream] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        return self._failed

    def submit(self, request: Request, on_end: Callable[[Stream], None] = lambda _: None) -> Stream:
        if self._failed or self._closing:
            raise ApiError(503, "the engine has stopped", code="stopped", retry_after=10)
        owner = request.owner
        if self.n_live >= self.max_live and self._live_of[owner] >= min(KEPT_FREE, self.max_live):
            raise ApiError(429, f"{self.n_live} requests are running or waiting", code="queue_full", retry_after=1)

        def ended(stream: Stream) -> None:
            self.n_live -= 1
            self._live_of[owner] -= 1
            on_end(stream)

        self.n_live += 1
        self._live_of[owner] += 1
        stream = Stream(request, ended)
        self._send("submit", stream)
        return stream

    def cancel(self, stream: Stream) -> None:
        """The client has gone: free what the request holds. Nothing happens where it is over."""
        if stream.completion is None and stream.fault is None:
            self._send("cancel", stream)

    def close(self) -> None:
        """Stop after the step under way; what still runs fails. Waits for the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _send(self, what: str, stream: Stream) -> None:
        self._inbox.append((what, stream))
        self._wake.set()

    def _run(self) -> None:
        fault = ApiError(500, "the engine failed; its log says why", code="engine_failed")
        try:
            while not self._closing:
                self._wake.clear()
                self._read_inbox()
                if self.engine.busy:
                    self._step()
                else:
                    self._wake.wait(DISK_SECONDS if self.engine.save() else None)
            fault = ApiError(503, "the server is stopping", code="stopped")
            self._save_rest()
        finally:
            self._failed = fault.status == 500
            self._fail_all(fault)

    def _save_rest(self) -> None:
        """What the last answers left for the disk, if it takes it soon."""
        until = time.monotonic() + LAST_SECONDS
        while self.engine.save() and time.monotonic() < until:
            time.sleep(DISK_SECONDS)

    def _read_inbox(self) -> None:
        while self._inbox:
            what, stream = self._inbox.popleft()
            if what == "submit":
                self._begin(stream)
            elif (request_id := self._forget(stream)) is not None:
                completion = self.engine.cancel(request_id)
                self._loop.call_soon_threadsafe(stream.end, completion)

    def _begin(self, stream: Stream) -> None:
        try:
            request_id = self.engine.submit(stream.request)
        except UserError as error:
            self._loop.call_soon_threadsafe(stream.end, None, from_user_error(error))
            return
        self._streams[request_id] = self._not_admitted[request_id] = stream
        self._ids[stream] = request_id

    def _forget(self, stream: Stream) -> int | None:
        request_id = self._ids.pop(stream, None)
        if request_id is not None:
            del self._streams[request_id]
            self._not_admitted.pop(request_id, None)
        return request_id

    def _step(self) -> None:
        began = time.perf_counter()
        try:
            pieces = self.engine.step()
        except UserError as error:  # the model gives no numbers: what runs would fail again and again
            self._fail_all(ApiError(500, str(error), code="engine_failed"))
            return
        for request_id in [id for id in self._not_admitted if self.engine.is_running(id)]:
            self._not_admitted.pop(request_id).times.admitted = began
        batch: dict[Stream, list[Piece]] = {}
        for piece in pieces:
            stream = self._streams[piece.request_id]
            batch.setdefault(stream, []).append(piece)
            if piece.completion is not None:
                stream.times.admitted = stream.times.admitted or began
                self._forget(stream)
        self._loop.call_soon_threadsafe(_deliver, batch, time.perf_counter())

    def _fail_all(self, fault: ApiError) -> None:
        for stream, request_id in list(self._ids.items()):
            self._forget(stream)
            if not self._failed:
                self.engine.cancel(request_id)
            self._loop.call_soon_threadsafe(stream.end, None, fault)
        for _, stream in self._inbox:
            self._loop.call_soon_threadsafe(stream.end, None, fault)
        self._inbox.clear()


def _deliver(batch: dict[Stream, list[Piece]], now: float) -> None:
    for stream, pieces in batch.items():
        stream.deliver(pieces, now)
