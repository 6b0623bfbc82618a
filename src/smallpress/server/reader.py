"""Ids of one completion in, pieces of thinking and answer out; says when the text is to end, or the thinking."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smallpress.tokenizer.prompts import ANSWER_TAGS
from smallpress.tokenizer.streaming import StopText, StreamDecoder
from smallpress.tokenizer.thinking import CLOSE, CLOSING, Kind, ThinkingSplitter
from smallpress.tokenizer.tokenizer import Tokenizer

SENTENCE_ENDS = tuple(".!?\u3002\uff01\uff1f")  # the last three are the Chinese ones
GRACE = 12  # tokens for a tag or a character that is half written


@dataclass(frozen=True, slots=True)
class Budget:
    """Thinking ends with the sentence in which it reaches `soft` tokens, in any case at `hard`; None is no bound."""

    soft: int | None = None
    hard: int | None = None
    closing: str = CLOSING


NO_BUDGET = Budget()


class Reader:
    """`push` each id, which is an engine's Stopper too; then `take` what is certain, and at the end `flush`.

    Stop strings are looked for in the answer only: a person who stops at a blank line does not mean the thinking.
    With `tags_answer` the tags of an answer are taken away, as those of thinking are.
    Where it `thinks_once`, tags in the answer are text.
    `n_thinking` counts the ids of the thinking, its tags included.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str] = (),
        opened: bool = False,
        splits: bool = True,
        budget: Budget | None = None,
        tags_answer: bool = False,
        thinks_once: bool = False,
    ) -> None:
        self._decoder, self._stop = StreamDecoder(tokenizer), StopText(stops)
        self._splitter = ThinkingSplitter(opened, once=thinks_once) if splits else None
        self._tags = ThinkingSplitter(tags=ANSWER_TAGS) if tags_answer else None
        self._tokenizer, self.budget = tokenizer, budget or NO_BUDGET
        self._ready: list[tuple[Kind, str]] = []
        self._last = ""  # of the thinking's text
        self.n_thinking = 0
        self.over_budget = False

    @property
    def stopped(self) -> bool:
        return self._stop.stopped_by is not None

    @property
    def thinking(self) -> bool:
        return self._splitter is not None and self._splitter.thinking

    def push(self, id: int) -> bool:
        """True where the completion ends here: by a stop string, or because the thinking has to (`over_budget`)."""
        was_thinking = self.thinking
        self._keep(self._decoder.push(id))
        if was_thinking or self.thinking:
            self.n_thinking += 1
            self.over_budget = self.thinking and self._over()
        return self.stopped or self.over_budget

    def closing_ids(self) -> list[int]:
        """What to put behind a thinking that is over budget; nothing but the tag where nothing was thought."""
        sentence = self.budget.closing if self._last.strip() else ""
        return self._tokenizer.encode(sentence) + self._tokenizer.encode(f"\n{CLOSE}\n\n", special=True)

    def close(self, ids: Iterable[int]) -> None:
        """Take the closing that the server has put there."""
        for id in ids:
            self.push(id)
        self._last, self.over_budget = "", False

    def take(self) -> list[tuple[Kind, str]]:
        """The certain text not given out before, in order."""
        ready, self._ready = self._ready, []
        return ready

    def flush(self) -> None:
        """The end: what was held back becomes text, half a character U+FFFD."""
        self._keep(self._decoder.flush())
        if self._splitter is not None:
            self._sort(self._splitter.flush())
        if not self.stopped:
            self._stop.flush()
            self._drain()
        if self._tags is not None:
            self._ready += self._untagged(self._tags.flush())

    def _keep(self, text: str) -> None:
        if text:
            self._sort(self._splitter.push(text) if self._splitter is not None else [("answer", text)])

    def _sort(self, parts: list[tuple[Kind, str]]) -> None:
        for kind, text in parts:
            if kind == "answer":
                self._stop.push_text(text)
                self._drain()
            elif not self.stopped:
                self._ready.append((kind, text))
                self._last = text

    def _drain(self) -> None:
        if text := self._stop.drain():
            self._ready += [("answer", text)] if self._tags is None else self._untagged(self._tags.push(text))

    @staticmethod
    def _untagged(parts: list[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
        """What is in the tags that a form puts around an answer, and what is not, is answer."""
        return [("answer", text) for _, text in parts]

    def _over(self) -> bool:
        """Whether the thinking ends here. Half a tag or character may become whole first."""
        assert self._splitter is not None
        soft, hard = self.budget.soft, self.budget.hard
        if hard is not None and self.n_thinking >= hard:
            half = self._splitter.within_tag or self._decoder.within_character
            return not half or self.n_thinking >= hard + GRACE
        return soft is not None and self.n_thinking >= soft and self._last.endswith(SENTENCE_ENDS)
