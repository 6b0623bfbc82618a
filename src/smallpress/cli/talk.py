"""A conversation with a model in the engine: questions in, pieces of thinking and answer out. No terminal in it."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from smallpress.run.errors import UserError
from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.prompts import ANSWER_TAGS, encode_prompt, prompt_form
from smallpress.tokenizer.streaming import StopStrings
from smallpress.tokenizer.thinking import Kind, ThinkingSplitter, opens_thinking
from smallpress.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from smallpress.engine.request import Completion, Piece, Request, SamplingParams


class TalkEngine(Protocol):
    """What a conversation needs of an engine."""

    def submit(self, request: "Request") -> int: ...
    def step(self) -> "list[Piece]": ...
    def cancel(self, request_id: int) -> "Completion | None": ...


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer and what it took. `n_thinking` of the `n_tokens` new tokens came before the answer began.

    `n_accepted` of them were among the `n_drafted` that the engine guessed ahead.
    """

    thinking: str
    answer: str
    finish_reason: str
    n_prompt: int
    n_cached: int
    n_tokens: int
    n_thinking: int
    seconds: float
    seconds_to_first: float
    n_drafted: int = 0
    n_accepted: int = 0

    @property
    def tokens_per_second(self) -> float:
        """New tokens after the first, over the time since the first: what one waits for while reading."""
        since_first = self.seconds - self.seconds_to_first
        return (self.n_tokens - 1) / since_first if self.n_tokens > 1 and since_first > 0 else 0.0


@dataclass
class Talk:
    """The conversation so far, and how the next answer is sampled.

    Only the form chat remembers: in the others each question stands alone. Thinking is not put back into the prompt.
    """

    engine: TalkEngine
    tokenizer: Tokenizer
    params: "SamplingParams"
    form: str = "chat"
    system: str | None = None
    seed: int | None = None
    example: tuple[str, str] | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    last: Reply | None = None

    def ask(self, question: str, stopped: Callable[[], bool] = lambda: False) -> Iterator[tuple[Kind, str]]:
        """Give out the answer piece by piece; afterwards `last` is its Reply and `messages` hold both turns.

        `stopped` is asked between steps; when it says so, what there is becomes the answer. Where the question cannot
        be put at all (UserError), the conversation stays as it was.
        """
        prompt_ids = self._prompt(question)
        opened = opens_thinking(self.tokenizer.decode(prompt_ids[-16:], skip_special=False))
        form = prompt_form(self.form)
        request = self._request(prompt_ids, StopStrings(self.tokenizer, form.stops))
        run = _Run(self.engine, request, StopStrings(self.tokenizer, form.stops), opened, form.tags_answer)
        yield from run.pieces(stopped)
        self.last = run.reply()
        self.messages.append({"role": "user", "content": question})
        if self.last.answer or self.last.thinking:
            reasoning = {"reasoning_content": self.last.thinking} if self.last.thinking else {}
            self.messages.append({"role": "assistant", "content": self.last.answer, **reasoning})

    def _prompt(self, question: str) -> list[int]:
        if self.form != "chat":
            return encode_prompt(self.tokenizer, self.form, question, self.example)
        system = [{"role": "system", "content": self.system}] if self.system else []
        history = [{"role": turn["role"], "content": turn["content"]} for turn in self.messages]
        return encode_chat(self.tokenizer, [*system, *history, {"role": "user", "content": question}])

    def _request(self, prompt_ids: list[int], stops: StopStrings) -> "Request":
        from smallpress.engine.request import Request

        turn = sum(message["role"] == "user" for message in self.messages)
        seed = secrets.randbelow(2**63) if self.seed is None else (self.seed + turn) % 2**63
        params = replace(self.params, seed=seed)
        return Request(tuple(prompt_ids), params, self.tokenizer.eos_ids, stopper=stops)

    def set(self, name: str, value: str) -> None:
        """Change a sampling setting, checked; `seed` too. UserError for a wrong name or value."""
        kinds = {key: type(getattr(self.params, key)) for key in SETTINGS}
        if name not in kinds:
            raise UserError(f"there is no setting {name!r}", f"set one of: {', '.join(SETTINGS)}")
        try:
            number: Any = kinds[name](value)
        except ValueError as error:
            raise UserError(f"{name} cannot be {value!r}", f"give a {kinds[name].__name__}") from error
        self.params = replace(self.params, **{name: number})
        if name == "seed":
            self.seed = number

    def settings(self) -> dict[str, Any]:
        """Every sampling setting and its value; a seed of None is drawn anew for each answer."""
        return {name: getattr(self.params, name) for name in SETTINGS} | {"seed": self.seed}


SETTINGS = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed")


class _Run:
    """One request on its way through the engine.

    `stops` takes the id of each piece, where the request's own stopper has seen all ids of a step.
    """

    def __init__(
        self, engine: TalkEngine, request: "Request", stops: StopStrings, opened: bool, tags_answer: bool
    ) -> None:
        self._engine, self._request, self._stops = engine, request, stops
        self._splitter = _Splitter(opened, tags_answer)
        self._texts: dict[Kind, list[str]] = {"thinking": [], "answer": []}
        self._completion: Completion | None = None
        self._n_tokens = self._n_thinking = 0
        self._began = self._first = time.perf_counter()

    def pieces(self, stopped: Callable[[], bool]) -> Iterator[tuple[Kind, str]]:
        request_id = self._engine.submit(self._request)
        try:
            while self._completion is None and not stopped():
                for piece in self._engine.step():
                    yield from self._take(piece)
        finally:
            cancelled = self._engine.cancel(request_id)
            self._completion = self._completion or cancelled
        self._stops.flush()
        yield from self._keep(self._splitter.push(self._stops.drain()) + self._splitter.flush())

    def _take(self, piece: "Piece") -> list[tuple[Kind, str]]:
        if self._n_tokens == 0:
            self._first = time.perf_counter()
        self._n_tokens += 1
        self._completion = piece.completion
        self._stops.push(piece.id)
        parts = self._keep(self._splitter.push(self._stops.drain()))
        if not self._texts["answer"]:
            self._n_thinking += 1
        return parts

    def _keep(self, parts: list[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
        for kind, text in parts:
            self._texts[kind].append(text)
        return parts

    def reply(self) -> Reply:
        thinking, answer = ("".join(self._texts[kind]) for kind in ("thinking", "answer"))
        done = self._completion
        return Reply(
            thinking=thinking,
            answer=answer,
            finish_reason=done.finish_reason if done is not None else "cancelled",
            n_prompt=len(self._request.prompt_ids),
            n_cached=done.n_cached if done is not None else 0,
            n_tokens=self._n_tokens,
            n_thinking=self._n_thinking if thinking else 0,
            seconds=time.perf_counter() - self._began,
            seconds_to_first=self._first - self._began,
            n_drafted=done.n_drafted if done is not None else 0,
            n_accepted=done.n_accepted if done is not None else 0,
        )


class _Splitter:
    """Thinking and answer apart, and the answer out of the tags that a form puts around it for a checker."""

    def __init__(self, opened: bool, tags_answer: bool) -> None:
        self._thinking = ThinkingSplitter(opened)
        self._tags = ThinkingSplitter(tags=ANSWER_TAGS) if tags_answer else None

    def push(self, text: str) -> list[tuple[Kind, str]]:
        return [part for kind, piece in self._thinking.push(text) for part in self._untagged(kind, piece)]

    def flush(self) -> list[tuple[Kind, str]]:
        parts = [part for kind, piece in self._thinking.flush() for part in self._untagged(kind, piece)]
        return parts if self._tags is None else parts + [("answer", piece) for _, piece in self._tags.flush()]

    def _untagged(self, kind: Kind, text: str) -> list[tuple[Kind, str]]:
        if self._tags is None or kind == "thinking":
            return [(kind, text)]
        return [("answer", piece) for _, piece in self._tags.push(text)]
