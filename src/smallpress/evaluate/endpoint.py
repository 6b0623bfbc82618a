"""A model behind an OpenAI-shaped API, asked over kept-alive connections, some questions at once.

A busy server (429) and one that fails (5xx, a broken connection) are asked again, after what its Retry-After says or
after a wait that doubles; while a server says that it is busy nobody asks it. Anything else it refuses with is an error
at once.
"""

import http.client
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import smallpress
from smallpress.evaluate.evaluate import Answered, in_rows
from smallpress.evaluate.result import Sampling
from smallpress.evaluate.store import AnswerStore, Said, answer_key
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example

TIMEOUT_SECONDS = 3600.0  # a long answer on a small machine
N_TRIES = 8
LONGEST_WAIT = 60.0  # seconds
MAX_BYTES = 64 << 20  # of an answer
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass
class Endpoint:
    """`url` is what stands before /chat/completions; `n_at_once` questions run at a time."""

    url: str
    model: str
    api_key: str | None = None
    n_at_once: int = 8
    wait_seconds: float = 1.0
    _free_at: float = field(default=0.0, repr=False)  # monotonic; until then the server asked for quiet

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise UserError(f"{self.url} is no address: {error}", "give one such as http://127.0.0.1:8000/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise UserError(f"{self.url} is no address", "give one such as http://127.0.0.1:8000/v1")
        if self.n_at_once < 1:
            raise UserError(f"{self.n_at_once} questions at once", "ask at least 1")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect = lambda: kind(parts.hostname or "", port, timeout=TIMEOUT_SECONDS)
        self._path = parts.path.rstrip("/") + "/chat/completions"

    def body(self, example: Example, i: int, sampling: Sampling) -> dict[str, Any]:
        """What is sent for a question's i-th answer."""
        seed = derive_seed("evaluate", sampling.seed, example.family, example.key, i) >> 32
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": example.prompt}],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        return asked if sampling.thinking is None else {**asked, "thinking_budget": sampling.thinking}

    def post(self, connection: http.client.HTTPConnection, body: dict[str, Any], stop: threading.Event) -> Said:
        """One answer, however often it has to be asked for. Raises UserError where the server refuses it."""
        for n in range(N_TRIES):
            if stop.wait(max(0.0, self._free_at - time.monotonic())):
                break
            try:
                status, retry_after, data = self._try(connection, json.dumps(body).encode())
            except (OSError, http.client.HTTPException) as error:
                connection.close()  # the next request opens it anew
                if n == N_TRIES - 1:
                    cause = str(error) or type(error).__name__
                    raise UserError(f"{self.url}: {cause}", "check the address and that the server runs") from error
                stop.wait(self._pause(n))
                continue
            if status == 200:
                return _said(data, self.url)
            if status not in BUSY or n == N_TRIES - 1:
                raise UserError(f"{self.url} answers {status}: {_message(data)}", "mend that, then evaluate again")
            wait = retry_after if retry_after is not None else self._pause(n)
            if status == 429:
                self._free_at = max(self._free_at, time.monotonic() + wait)
            else:
                stop.wait(wait)
        raise UserError("stopped", "evaluate again to go on")

    def _try(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, float | None, bytes]:
        headers = {"Content-Type": "application/json", "User-Agent": f"smallpress/{smallpress.__version__}"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        connection.request("POST", self._path, body, headers)
        answer = connection.getresponse()
        data = answer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MAX_BYTES} bytes")
        return answer.status, _seconds(answer.headers.get("Retry-After")), data

    def _pause(self, n: int) -> float:
        return min(LONGEST_WAIT, self.wait_seconds * 2**n) * random.uniform(0.5, 1.0)


def ask_endpoint(
    endpoint: Endpoint,
    examples: Sequence[Example],
    sampling: Sampling,
    on_answer: Callable[[], None] = lambda: None,
    store: AnswerStore | None = None,
) -> Answered:
    """Every question `sampling.samples` times, as `evaluate.ask` does of an engine; the server applies its template."""
    if not examples:
        raise UserError("there is no question to ask", "give --n of at least 1, or a file with questions")
    began = time.perf_counter()
    asked = [(one, i) for one in examples for i in range(sampling.samples)]
    keys = [answer_key(one, i, "chat", sampling) for one, i in asked]
    kept = {at: said for at, key in enumerate(keys) if store is not None and (said := store.get(key)) is not None}
    for _ in kept:
        on_answer()
    missing = [at for at in range(len(keys)) if at not in kept]
    bodies = [endpoint.body(*asked[at], sampling) for at in missing]
    with closing(_answers(endpoint, bodies)) as answers:
        for i, said in answers:
            kept[missing[i]] = said
            if store is not None:
                store.put(keys[missing[i]], said)
            on_answer()
    rows = in_rows(kept, sampling.samples)
    return Answered(examples, "chat", sampling, rows, [False] * len(examples), time.perf_counter() - began)


def _answers(endpoint: Endpoint, bodies: Sequence[dict[str, Any]]) -> Generator[tuple[int, Said], None, None]:
    """(index, answer) as they come, from `n_at_once` threads; leaving it stops them."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Said | BaseException]] = queue.SimpleQueue()
    stop = threading.Event()
    for i in range(len(bodies)):
        todo.put(i)

    def work() -> None:
        connection = endpoint._connect()
        try:
            while not stop.is_set():
                i = todo.get_nowait()
                try:
                    done.put((i, endpoint.post(connection, bodies[i], stop)))
                except UserError as error:
                    done.put((i, error))
                except BaseException as error:  # whoever waits must hear of it
                    done.put((i, error))
                    raise
        except queue.Empty:
            pass
        finally:
            connection.close()

    for _ in range(min(endpoint.n_at_once, len(bodies))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(len(bodies)):
            i, said = done.get()
            if isinstance(said, BaseException):
                raise said
            yield i, said
    finally:
        stop.set()


def _said(data: bytes, url: str) -> Said:
    """The first choice; thinking that the server gives apart stands before the answer, in its tags."""
    try:
        answer = json.loads(data)
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        message = choice["message"]
        thinking = message.get("reasoning_content") or message.get("reasoning") or ""
        text = (f"<think>{thinking}</think>" if thinking else "") + (message.get("content") or "")
        details = usage.get("completion_tokens_details") or {}
        n_tokens, n_thinking = int(usage.get("completion_tokens") or 0), int(details.get("reasoning_tokens") or 0)
        return Said(text, n_tokens, n_thinking, choice.get("finish_reason") == "length")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{url} answers in another form than OpenAI's", "give the address of its chat API") from error


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
