"""A conversation with an engine that says what it is told to say: no model, no torch."""

import io
from collections.abc import Callable

import pytest

from smallpress.cli.talk import Talk
from smallpress.engine.request import Completion, Piece, Request, SamplingParams
from smallpress.tokenizer.tokenizer import Tokenizer

EOS = 1


class FakeEngine:
    """Answers each request with the next text, `n_at_once` bytes a step; `before_step` may do anything."""

    n_at_once = 1

    def __init__(self, tokenizer: Tokenizer, *answers: str):
        self.tokenizer, self.answers, self.requests, self.cancelled = tokenizer, list(answers), [], []
        self.before_step: Callable[[int], None] = lambda step: None

    def submit(self, request: Request) -> int:
        self.requests.append(request)
        self._ids = [*self.tokenizer.encode(self.answers.pop(0), special=True), EOS]
        self._given: list[int] = []
        return len(self.requests)

    def step(self) -> list[Piece]:
        self.before_step(len(self._given))
        pieces = [self._piece()]
        while len(pieces) < self.n_at_once and pieces[-1].completion is None:
            pieces.append(self._piece())
        return pieces

    def _piece(self) -> Piece:
        request = self.requests[-1]
        id = self._ids[len(self._given)]
        self._given.append(id)
        stopped = request.stopper.push(id) or id in request.stop_ids
        reason = "stop" if stopped else "length" if len(self._given) >= request.params.max_tokens else None
        completion = self._completion(reason) if reason else None
        return Piece(len(self.requests), id, 0.0, completion)

    def cancel(self, request_id: int) -> Completion | None:
        self.cancelled.append(request_id)
        return self._completion("cancelled")

    def _completion(self, reason: str) -> Completion:
        n = len(self._given)
        return Completion(tuple(self._given), (0.0,) * n, reason, len(self.requests[-1].prompt_ids), 3)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def make_talk(byte_tokenizer, chatml):
    """A conversation in which the model answers with the given texts."""

    def make(*answers: str, template: str = chatml, **options) -> Talk:
        params = SamplingParams(max_tokens=200, temperature=0.6)
        return Talk(FakeEngine(byte_tokenizer(), *answers), byte_tokenizer(template), params, **options)

    return make


@pytest.fixture
def typed():
    """In place of `input`: gives the lines one after the other, raising those that are exceptions, then Ctrl-D."""

    def reader(lines: list[str | BaseException]) -> Callable[[str], str]:
        left = iter([*lines, EOFError()])

        def read(prompt: str) -> str:
            line = next(left)
            if isinstance(line, BaseException):
                raise line
            return line

        return read

    return reader


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()
