"""Completions out of an engine, each as it ends: cut where its form ends, its thinking counted and kept in bounds."""

from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass, field, replace

from smallpress.engine.engine import Engine
from smallpress.engine.request import Completion, Request, SamplingParams
from smallpress.evaluate.store import Said
from smallpress.tokenizer.streaming import StopStrings, StreamDecoder
from smallpress.tokenizer.thinking import CLOSE, CLOSING, ThinkingSplitter
from smallpress.tokenizer.tokenizer import Tokenizer

END = "</answer>"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A completion to be had. `opened`: the prompt ended in <think>; `group` names the question."""

    prompt_ids: tuple[int, ...]
    params: SamplingParams
    opened: bool
    group: Hashable


@dataclass
class Writing:
    """One completion while it is written: an engine's Stopper that also counts thinking, and ends it at its budget."""

    tokenizer: Tokenizer
    wanted: Wanted
    stops: Sequence[str]
    budget: int | None
    ids: list[int] = field(default_factory=list)
    n_thinking: int = 0
    over_budget: bool = False

    def __post_init__(self) -> None:
        self._text = StopStrings(self.tokenizer, self.stops)
        self._decoder, self._splitter = StreamDecoder(self.tokenizer), ThinkingSplitter(self.wanted.opened)

    def push(self, id: int) -> bool:
        was_thinking = self._splitter.thinking
        self._splitter.push(self._decoder.push(id))
        self.n_thinking += was_thinking or self._splitter.thinking
        self.ids.append(id)
        self.over_budget = self.budget is not None and self._splitter.thinking and self.n_thinking >= self.budget
        return self._text.push(id) or self.over_budget

    def begin(self) -> Request:
        """The prompt; with its open tag closed where nothing may be thought."""
        if self.wanted.opened and self.budget == 0:
            self._close(CLOSE)
            self.n_thinking = 0
        return self._request()

    def go_on(self, completion: Completion) -> Request | None:
        """What to ask next where the thinking used up its budget; None where the completion is over."""
        if not self.over_budget or self._text.stopped_by is not None or self.ids[-1] in self.tokenizer.eos_ids:
            return None
        self._close(f"{CLOSING}\n{CLOSE}\n\n")
        return self._request() if len(self.ids) < self.wanted.params.max_tokens else None

    def said(self, completion: Completion) -> Said:
        """The text up to its form's end: the closing tag belongs to it, an invented next turn does not."""
        self._text.flush()
        text = self._text.text_before_stop + (END if self._text.stopped_by == END else "")
        truncated = completion.finish_reason == "length" or self.over_budget
        return Said(text, len(self.ids), self.n_thinking, truncated)

    def _request(self) -> Request:
        params = self.wanted.params
        if self.ids:
            seed = (params.seed + 1_000_003 * len(self.ids)) % 2**63
            params = replace(params, max_tokens=params.max_tokens - len(self.ids), seed=seed)
        prompt_ids = self.wanted.prompt_ids + tuple(self.ids)
        return Request(prompt_ids, params, self.tokenizer.eos_ids, self, group=self.wanted.group)

    def _close(self, closing: str) -> None:
        head, tag, tail = closing.rpartition(CLOSE)
        for id in self.tokenizer.encode(head) + self.tokenizer.encode(tag + tail, special=True):
            self.push(id)
        self.over_budget = False


def answers_of(
    engine: Engine, tokenizer: Tokenizer, wanted: Sequence[Wanted], stops: Sequence[str], budget: int | None
) -> Generator[tuple[int, Said], None, None]:
    """(index, what was said) of each completion as it ends; nothing is left behind on an error or Ctrl-C."""
    writing = [Writing(tokenizer, one, stops, budget) for one in wanted]
    running: dict[int, int] = {}
    try:
        for i, one in enumerate(writing):
            running[engine.submit(one.begin())] = i
        while running:
            for piece in engine.step():
                if piece.completion is None or piece.request_id not in running:
                    continue
                i = running.pop(piece.request_id)
                more = writing[i].go_on(piece.completion)
                if more is None:
                    yield i, writing[i].said(piece.completion)
                else:
                    running[engine.submit(more)] = i
    finally:
        for request_id in running:
            engine.cancel(request_id)
