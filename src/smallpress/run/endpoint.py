"""A model behind an OpenAI-shaped API: many questions at once over kept-alive connections, never too many a minute.

What the server owes us for now (429, 5xx, a broken connection, half an answer) is asked for again, after what its
Retry-After says or after a wait that doubles; while it says that it is busy nobody asks it. What it refuses for good
(a key, a model, a request) is an error at once. A redirect is a refusal: it would carry the key elsewhere.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import smallpress
from smallpress.run.errors import UserError

LONGEST_WAIT = 120.0  # seconds
MAX_BYTES = 64 << 20  # of an answer
BUSY = frozenset({408, 409, 425, 429})  # and whatever is 500 or more
Sleep = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Reply:
    """`thinking` where the server keeps it apart. `finished` False: cut at the token limit."""

    text: str
    thinking: str | None
    finished: bool
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` is what stands before /chat/completions. `key_name` is told where the key is refused, `later` where the
    server gives no answer."""

    url: str
    api_key: str | None = None
    key_name: str = "OPENAI_API_KEY"
    n_at_once: int = 8
    per_minute: float | None = None
    seconds: float = 3600.0  # for one answer: a long one on a small machine
    n_tries: int = 7
    first_wait: float = 1.0
    later: str = "go on later"

    def __post_init__(self) -> None:
        remedy = "give one such as http://127.0.0.1:8000/v1"
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError as error:
            raise UserError(f"{self.url} is no address: {error}", remedy) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise UserError(f"{self.url} is no address", remedy)
        if self.n_at_once < 1:
            raise UserError(f"{self.n_at_once} questions at once", "ask at least 1")

    @property
    def path(self) -> str:
        return urlsplit(self.url).path.rstrip("/") + "/chat/completions"

    def connection(self) -> http.client.HTTPConnection:
        """It opens when it is first used, and again after it was closed."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self.seconds)


@dataclass(slots=True)
class Pacer:
    """Lets callers through at most `per_minute` times a minute, evenly spaced; None: at once."""

    per_minute: float | None
    clock: Callable[[], float] = time.monotonic
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, sleep: Sleep) -> None:
        with self._lock:
            now = self.clock()
            turn = max(now, self._next)
            self._next = turn + (60 / self.per_minute if self.per_minute else 0.0)
        if turn > now:
            sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Nobody goes through for so long."""
        with self._lock:
            self._next = max(self._next, self.clock() + seconds)


class Client:
    """`sleep` stands in for waiting, in tests."""

    def __init__(self, endpoint: Endpoint, sleep: Sleep | None = None, clock: Callable[[], float] = time.monotonic):
        self.endpoint, self._sleep = endpoint, sleep
        self._pacer = Pacer(endpoint.per_minute, clock)

    def replies(self, bodies: Iterable[Mapping[str, Any]]) -> Generator[tuple[int, Reply], None, None]:
        """(place, reply) as they come. A body is taken from `bodies` when it can be asked at once, and an answer that
        has come is given before another's error is raised. Leaving early hangs up; what was not given can be asked
        again. Raises UserError for what asking again cannot mend.
        """
        n, waiting, stop = self.endpoint.n_at_once, enumerate(bodies), threading.Event()
        connections = [self.endpoint.connection() for _ in range(n)]
        idle: SimpleQueue[http.client.HTTPConnection] = SimpleQueue()
        for connection in connections:
            idle.put(connection)

        def ask(body: Mapping[str, Any]) -> Reply:
            connection = idle.get()
            try:
                return self._ask(connection, json.dumps(body).encode(), stop)
            finally:
                idle.put(connection)

        running: dict[Future[Reply], int] = {}
        with ThreadPoolExecutor(n) as pool:
            try:
                while True:
                    while len(running) < n and (new := next(waiting, None)) is not None:
                        running[pool.submit(ask, new[1])] = new[0]
                    if not running:
                        return
                    done = wait(running, return_when=FIRST_COMPLETED).done
                    for future in sorted(done, key=lambda one: one.exception() is not None):
                        yield running.pop(future), future.result()
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                hanging_up = True
                while hanging_up:  # again: one may have opened its connection since
                    for connection in connections:
                        _hang_up(connection)
                    hanging_up = bool(wait(running, timeout=0.1).not_done)
                for connection in connections:
                    connection.close()

    def _ask(self, connection: http.client.HTTPConnection, body: bytes, stop: threading.Event) -> Reply:
        endpoint, sleep = self.endpoint, self._sleep or stop.wait
        for n in range(endpoint.n_tries):
            self._pacer.wait(sleep)
            if stop.is_set():
                break
            pause = min(LONGEST_WAIT, endpoint.first_wait * 2**n)
            try:
                status, retry_after, data = self._post(connection, body)
                if status == 200:
                    return reply_of(data)
                fault = f"it answers {status}: {_message(data)}"
                if status not in BUSY and status < 500:
                    remedy = f"put a valid key into {endpoint.key_name}" if status in (401, 403) else "mend that"
                    raise UserError(f"{endpoint.url}: {fault}", remedy)
                pause = pause if retry_after is None else retry_after
                if status == 429:
                    self._pacer.hold(pause)
                    continue
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                fault = str(error) or type(error).__name__
            if n < endpoint.n_tries - 1:
                sleep(pause)
        raise UserError(f"{endpoint.url}: {fault if not stop.is_set() else 'stopped'}", endpoint.later)

    def _post(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, float | None, bytes]:
        headers = {"Content-Type": "application/json", "User-Agent": f"smallpress/{smallpress.__version__}"}
        if self.endpoint.api_key:
            headers["Authorization"] = f"Bearer {self.endpoint.api_key}"
        connection.request("POST", self.endpoint.path, body, headers)
        answer = connection.getresponse()
        data = answer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MAX_BYTES} bytes")
        return answer.status, _seconds(answer.headers.get("Retry-After")), data


def reply_of(data: bytes) -> Reply:
    """The first choice of an answer. Raises ValueError where it is no chat completion."""
    try:
        answer = json.loads(data)
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        message, details = choice["message"], usage.get("completion_tokens_details") or {}
        text = message.get("content") or ""
        thinking = next((message[key] for key in ("reasoning_content", "reasoning") if message.get(key)), None)
        counts = [usage.get(key) or 0 for key in ("prompt_tokens", "completion_tokens")]
        counts.append(details.get("reasoning_tokens") or 0)
        if not isinstance(text, str) or not all(type(count) is int for count in counts):
            raise TypeError
        return Reply(text, thinking, choice.get("finish_reason") != "length", *counts)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("its answer is no chat completion of OpenAI's form") from None


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """Also where another thread waits for its answer."""
    if (line := connection.sock) is not None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)


def _message(data: bytes) -> str:
    try:
        error = json.loads(data)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, LookupError, TypeError, RecursionError):
        return data[:300].decode("utf-8", "replace")


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; the form with a date is taken for none."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(text))) if text is not None else None
    except ValueError:
        return None
