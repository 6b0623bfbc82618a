"""One completion on its way from the engine to a client: text, thinking, log-probabilities, counts."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from smallpress.engine.adjust import Top
from smallpress.engine.request import Piece, Request
from smallpress.server.asked import Asked
from smallpress.server.grammar import Following
from smallpress.server.hosted import Hosted
from smallpress.server.reader import Reader
from smallpress.server.worker import Stream
from smallpress.tokenizer.calls import Call, CallReader
from smallpress.tokenizer.thinking import Kind


@dataclass(frozen=True, slots=True)
class Token:
    """One drawn id, with the likeliest ones beside it."""

    id: int
    logprob: float
    top: Top
    thinking: bool


@dataclass(slots=True)
class Delta:
    """What one step added to one choice; `finish_reason` is set on the last. Calls come behind the parts."""

    index: int
    parts: list[tuple[Kind, str]]
    tokens: list[Token]
    finish_reason: str | None = None
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class Usage:
    """Counts of one request, over all its choices. `n_hit` of the prompt's tokens were in the cache."""

    n_prompt: int
    n_hit: int = 0
    n_new: int = 0
    n_thinking: int = 0

    def as_json(self) -> dict[str, object]:
        """OpenAI's fields and DeepSeek's."""
        return {
            "prompt_tokens": self.n_prompt,
            "completion_tokens": self.n_new,
            "total_tokens": self.n_prompt + self.n_new,
            "prompt_tokens_details": {"cached_tokens": self.n_hit},
            "completion_tokens_details": {"reasoning_tokens": self.n_thinking},
            "prompt_cache_hit_tokens": self.n_hit,
            "prompt_cache_miss_tokens": self.n_prompt - self.n_hit,
        }


@dataclass(frozen=True, slots=True)
class Asker:
    """For the engine: who shares places with whom, who is first, whose prefixes are found (engine.request.Request)."""

    name: str = ""
    salt: bytes = b""
    priority: int = 0


@dataclass(slots=True)
class Choice:
    """Runs one of the `n` completions; several requests to the engine where its thinking is cut."""

    model: Hosted
    asked: Asked
    index: int
    usage: Usage
    asker: Asker = Asker()
    stream: Stream | None = None
    ids: list[int] = field(default_factory=list)
    _said: Reader = field(init=False)
    _stopper: Reader | None = field(init=False)
    _following: Following | None = None
    _calls: CallReader | None = None

    def __post_init__(self) -> None:
        asked = self.asked
        if asked.grammar is not None:
            self._following = asked.grammar.begin(asked.opened, asked.splits and asked.budget.hard != 0)
        if asked.functions:
            self._calls = CallReader(asked.functions, asked.most_calls)
        self._said = self._reader()
        budget = self.asked.budget
        watched = self.asked.stops or budget.soft is not None or budget.hard is not None
        self._stopper = self._reader() if watched else None

    def _reader(self) -> Reader:
        asked = self.asked
        return Reader(
            self.model.tokenizer, asked.stops, asked.opened, asked.splits, asked.budget, asked.tags_answer,
            thinks_once=asked.grammar is not None,
        )  # fmt: skip

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """Until the completion ends; leaving early cancels it in the engine."""
        worker, eos_ids, reason = self.model.ready_worker(), self.model.tokenizer.eos_ids, "length"
        prompt_ids = self._closed_prompt()
        n_max = min(self.asked.params.max_tokens, self.model.capacity - len(prompt_ids))
        while len(self.ids) < n_max:
            params = replace(self.asked.params, max_tokens=n_max - len(self.ids), seed=self._seed())
            asker, ids = self.asker, prompt_ids + tuple(self.ids)
            request = Request(
                ids, params, eos_ids, self._stopper, self._following,
                owner=asker.name, priority=asker.priority, salt=asker.salt,
                adapter=self.model.adapter,
            )  # fmt: skip
            self.stream = worker.submit(request, self.model.metrics.ended)
            try:
                async for pieces in self.stream.pieces():
                    tokens = self._take(pieces)
                    if (completion := pieces[-1].completion) is not None:
                        reason = completion.finish_reason
                        if self.index == 0 and len(completion.ids) == len(self.ids):
                            self.usage.n_hit = completion.n_cached
                    if self._following is not None and self._following.fault is not None:
                        raise self._following.fault
                    yield self._delta(tokens)
            finally:
                worker.cancel(self.stream)
            if not self._thinking_is_cut():
                break
            reason = "length"  # where the closing, or anything behind it, has no room
            closing = self._said.closing_ids()
            if len(self.ids) + len(closing) >= n_max:
                break
            self._close_thinking(closing)
        self._said.flush()
        last = self._delta([], at_end=True)
        reason = "stop" if self._said.stopped else reason
        called = self._calls is not None and self._calls.n_calls > 0
        last.finish_reason = "tool_calls" if called and reason == "stop" else reason
        yield last

    def _delta(self, tokens: list[Token], at_end: bool = False) -> Delta:
        """What has become certain; with the calls in it apart where there are functions to call."""
        delta = Delta(self.index, self._said.take(), tokens)
        if self._calls is None:
            return delta
        parts, found = [part for part in delta.parts if part[0] != "answer"], list[str | Call]()
        for kind, text in delta.parts:
            found += self._calls.push(text) if kind == "answer" else []
        found += self._calls.flush() if at_end else []
        delta.calls = [item for item in found if isinstance(item, Call)]
        said: list[tuple[Kind, str]] = [("answer", item) for item in found if isinstance(item, str)]
        delta.parts = [*parts, *said]
        return delta

    def _take(self, pieces: list[Piece]) -> list[Token]:
        tokens, n_before = [], self._said.n_thinking
        for piece in pieces:
            was_thinking = self._said.thinking
            self._said.push(piece.id)
            self.ids.append(piece.id)
            if piece.id not in self.model.tokenizer.eos_ids:
                tokens.append(Token(piece.id, piece.logprob, piece.top, was_thinking or self._said.thinking))
        self.usage.n_new += len(pieces)
        self.usage.n_thinking += self._said.n_thinking - n_before
        return tokens

    def _seed(self) -> int:
        """Each choice its own, and another where the engine starts anew in the middle."""
        return (self.asked.params.seed + self.index + 1_000_003 * len(self.ids)) % 2**63

    def _closed_prompt(self) -> tuple[int, ...]:
        """The prompt; with its open tag closed where nothing may be thought."""
        prompt_ids = self.asked.prompt_ids
        if not (self.asked.opened and self.asked.budget.hard == 0):
            return prompt_ids
        closing = self._said.closing_ids()
        for reader in (self._said, self._stopper):
            assert reader is not None
            reader.close(closing)
            reader.n_thinking = 0
        if self._following is not None:
            self._following.close()
        return prompt_ids + tuple(closing)

    def _thinking_is_cut(self) -> bool:
        """Whether the completion goes on with the thinking closed: it is over budget, or was given up.

        A model that ends its text within the thinking gave no answer, but a form was asked for: its end is taken back.
        """
        if self.ids[-1] not in self.model.tokenizer.eos_ids:
            return self._said.over_budget
        if self._following is None or not self._said.thinking:
            return False
        self.ids.pop()
        return True

    def _close_thinking(self, closing: list[int]) -> None:
        assert self._stopper is not None
        n_before = self._said.n_thinking
        for reader in (self._said, self._stopper):
            reader.close(closing)
        if self._following is not None:
            self._following.close()
        self.ids += closing
        self.usage.n_new += len(closing)
        self.usage.n_thinking += self._said.n_thinking - n_before


async def merged(choices: Sequence[Choice]) -> AsyncGenerator[Delta, None]:
    """The deltas of all choices as they come; when this is left, however, none of them goes on."""
    if len(choices) == 1:
        async with aclosing(choices[0].deltas()) as deltas:
            async for delta in deltas:
                yield delta
        return
    queue: asyncio.Queue[Delta | BaseException] = asyncio.Queue()

    async def run(choice: Choice) -> None:
        async with aclosing(choice.deltas()) as deltas:
            async for delta in deltas:
                queue.put_nowait(delta)

    def over(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            queue.put_nowait(fault)

    tasks = [asyncio.create_task(run(choice)) for choice in choices]
    for task in tasks:
        task.add_done_callback(over)
    n_left = len(tasks)
    try:
        while n_left:
            got = await queue.get()
            if isinstance(got, BaseException):
                raise got
            n_left -= got.finish_reason is not None
            yield got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
