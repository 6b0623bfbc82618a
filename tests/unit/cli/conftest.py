"""A conversation with an engine that says what it is told to say: no model, no torch."""

import io
from collections.abc import Callable

import pytest

from smallpress.cli.talk import Talk
from smallpress.engine.request import Completion, Piece, Request, SamplingParams
from smallpress.tokenizer.spelling import byte_of_letter
from smallpress.tokenizer.tokenizer import Tokenizer

EOS = 1
BYTES = 4  # the id of byte 0
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant\\n' }}"
)


def make_tokenizer(template: str = CHATML) -> Tokenizer:
    letters = sorted(byte_of_letter(), key=byte_of_letter().get)
    return Tokenizer.from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": ["<|im_start|>", "<|im_end|>", "<think>", "</think>", *letters, "th"],
            "tokenizer.ggml.token_type": [3, 3, 4, 4] + [1] * 257,
            "tokenizer.ggml.merges": ["t h"],
            "tokenizer.ggml.eos_token_id": EOS,
            "tokenizer.chat_template": template,
        }
    )


class FakeEngine:
    """Answers each request with the next text, `n_at_once` bytes a step; `before_step` may do anything."""

    n_at_once = 1

    def __init__(self, *answers: str):
        self.answers, self.requests, self.cancelled = list(answers), [], []
        self.before_step: Callable[[int], None] = lambda step: None

    def submit(self, request: Request) -> int:
        self.requests.append(request)
        tokenizer = make_tokenizer()
        self._ids = [*tokenizer.encode(self.answers.pop(0), special=True), EOS]
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
def make_talk():
    """A conversation in which the model answers with the given texts."""

    def make(*answers: str, template: str = CHATML, **options) -> Talk:
        params = SamplingParams(max_tokens=200, temperature=0.6)
        return Talk(FakeEngine(*answers), make_tokenizer(template), params, **options)

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
