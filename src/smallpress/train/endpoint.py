"""A teacher behind HTTP, in the shape of OpenAI's chat completions: many questions at once, never too many a minute,
what it costs counted.

An answer the server owes us for now (429, 5xx, a broken connection) is asked for again, later each time; what it
refuses for good (a key, a model, a request) ends the run with one line. The key comes from the environment and is sent
to the address given alone.
"""

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import smallpress
from smallpress.run.errors import UserError
from smallpress.train.distill_settings import Endpoint

MAX_ANSWER_BYTES = 32 << 20
LONGEST_WAIT = 120.0
AGAIN = (408, 409, 425, 429)


@dataclass(frozen=True, slots=True)
class Reply:
    """`thinking` where the server keeps it apart. `finished` False: cut at the token limit."""

    text: str
    thinking: str | None
    finished: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Bill:
    """Tokens and money so far; safe to read from the thread that spends."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Pacer:
    """Lets callers through at most `per_minute` times a minute, evenly spaced; None: at once."""

    def __init__(
        self,
        per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self.gap = 0.0 if per_minute is None else 60 / per_minute
        self._clock, self._sleep, self._next, self._lock = clock, sleep, 0.0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self.gap
        if turn > now:
            self._sleep(turn - now)


@dataclass
class Client:
    """Asks an endpoint. `answers` yields (place, reply) as they come; what it has not yielded can be asked again."""

    endpoint: Endpoint
    url: str
    sleep: Callable[[float], object] = time.sleep
    bill: Bill = field(default_factory=Bill)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UserError(f"{self.url} is no address of an endpoint", "it begins with http:// or https://")
        self.pacer = Pacer(self.endpoint.requests_per_minute, sleep=self.sleep)
        self._opener = urllib.request.build_opener(_NoRedirects)

    def answers(self, asked: Sequence[Sequence[Mapping[str, str]]], **params: Any) -> Iterator[tuple[int, Reply]]:
        """Conversations in, replies out, `concurrency` at a time. Raises UserError for what asking again cannot mend,
        and when the money is spent."""
        waiting = iter(enumerate(asked))
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            running: dict[Future[Reply], int] = {}
            try:
                while True:
                    while len(running) < self.endpoint.concurrency and (new := next(waiting, None)) is not None:
                        self._check_bill()
                        running[pool.submit(self._ask, new[1], params)] = new[0]
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        place = running.pop(future)
                        reply = future.result()
                        self._charge(reply)
                        yield place, reply
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _check_bill(self) -> None:
        most = self.endpoint.max_cost
        if most is not None and self.bill.cost >= most:
            what = f"{self.bill.cost:.4g} is spent, and endpoint.max_cost is {most:g}"
            raise UserError(what, "allow more, and go on with: smallpress resume")

    def _charge(self, reply: Reply) -> None:
        bill, endpoint = self.bill, self.endpoint
        bill.prompt_tokens += reply.prompt_tokens
        bill.completion_tokens += reply.completion_tokens
        bill.cost += (reply.prompt_tokens * endpoint.price_in + reply.completion_tokens * endpoint.price_out) / 1e6

    def _ask(self, messages: Sequence[Mapping[str, str]], params: Mapping[str, Any]) -> Reply:
        pause = 1.0
        for left in reversed(range(self.endpoint.retries + 1)):
            self.pacer.wait()
            try:
                return reply_of(self._post({"model": self.endpoint.model, "messages": list(messages), **params}))
            except _LaterError as later:
                if not left:
                    raise UserError(f"{self.url}: {later}", "go on later with: smallpress resume") from None
                self.sleep(min(LONGEST_WAIT, later.after or pause))
                pause *= 2
        raise AssertionError("unreachable")

    def _post(self, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": f"smallpress/{smallpress.__version__}"}
        if key := os.environ.get(self.endpoint.key_env):
            headers["Authorization"] = f"Bearer {key}"
        url = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=self.endpoint.timeout) as answer:
                data = answer.read(MAX_ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode(errors="replace")
            if error.code in AGAIN or error.code >= 500:
                raise _LaterError(
                    f"the server answers {error.code}", _seconds(error.headers.get("Retry-After"))
                ) from None
            remedy = (
                f"put a valid key into {self.endpoint.key_env}" if error.code in (401, 403) else "mend the settings"
            )
            raise UserError(f"{url}: the server refuses ({error.code}): {said[:300]}", remedy) from None
        except (OSError, http.client.HTTPException) as error:
            raise _LaterError(f"no answer ({error or type(error).__name__})", None) from None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise _LaterError("the answer is not JSON", None) from None


class _LaterError(Exception):
    """Asking again may help, `after` seconds where the server says so."""

    def __init__(self, what: str, after: float | None):
        super().__init__(what)
        self.after = after


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key elsewhere."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def reply_of(answer: Any) -> Reply:
    """The first choice of an answer. Raises _LaterError where it is not of the shape."""
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        message = choice["message"]
        content = message.get("content") or ""
        thinking = next((message[key] for key in ("reasoning_content", "reasoning") if message.get(key)), None)
        counts = [usage.get(key, 0) for key in ("prompt_tokens", "completion_tokens")]
        if not isinstance(content, str) or not all(type(count) is int for count in counts):
            raise TypeError
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _LaterError("the answer is no chat completion", None) from None
    return Reply(content, thinking, choice.get("finish_reason") != "length", *counts)


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None  # a date
