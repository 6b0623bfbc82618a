"""Telling a model's thinking from its answer while the text streams in."""

from typing import Literal

OPEN, CLOSE = "<think>", "</think>"
CLOSING = "\n\nThat is all the thinking there is room for; I answer with what I have."
"""Ends a thinking that has used up its budget; the closing tag follows."""

Kind = Literal["thinking", "answer"]


class ThinkingSplitter:
    """A state machine over pieces of text: `push` each piece, then `flush`.

    Text between `<think>` and `</think>` is thinking, everything else answer; tags may be cut anywhere between pieces
    and are not given out, nor is the white space around them. `opened` where the prompt ends inside an open tag; other
    `tags` tell other things apart. Where there is thinking `once` only, tags in the answer are ordinary text.
    Thinking that is never closed stays thinking; a second pair of tags is thinking again. A `<think>` right after the
    one that opened is dropped (R1 now and then repeats the prompt's); elsewhere inside thinking it is ordinary text, as
    a `</think>` is outside.

    >>> splitter = ThinkingSplitter()
    >>> splitter.push("<thi") + splitter.push("nk>2 + 2</think>\\n4") + splitter.flush()
    [('thinking', '2 + 2'), ('answer', '4')]
    """

    def __init__(self, opened: bool = False, tags: tuple[str, str] = (OPEN, CLOSE), once: bool = False) -> None:
        self._thinking, self._tags, self._once = opened, tags, once
        self._held = ""  # what cannot be given out yet: white space, then perhaps the beginning of a tag
        self._at_edge = True  # nothing but white space since the last tag

    def push(self, text: str) -> list[tuple[Kind, str]]:
        """The pieces that `text` makes certain."""
        out: list[tuple[Kind, str]] = []
        text, self._held = self._held + text, ""
        if self._once and not self._thinking and not self._at_edge:
            self._emit(out, text)
            return out
        while True:
            if self._thinking and self._at_edge:
                text = self._without_repetition(text)
                if self._tags[0].startswith(text.lstrip()):
                    self._held = text
                    return out
            if (at := text.find(self._tag)) < 0:
                break
            self._emit(out, text[:at].rstrip())
            text = text[at + len(self._tag) :]
            self._thinking = not self._thinking
            self._at_edge = True
        certain = text[: len(text) - overlap(text, self._tag)].rstrip()
        self._emit(out, certain)
        self._held = text[len(certain) :]
        return out

    def flush(self) -> list[tuple[Kind, str]]:
        """The rest, at the end of the text: a tag that was only begun is ordinary text."""
        out: list[tuple[Kind, str]] = []
        self._emit(out, self._held.rstrip() if self._thinking else self._held)
        self._held = ""
        return out

    def _without_repetition(self, text: str) -> str:
        """`text`, at the start of thinking, without the opening tags it begins with."""
        while (rest := text.lstrip()).startswith(self._tags[0]):
            text = rest[len(self._tags[0]) :]
        return text

    @property
    def thinking(self) -> bool:
        """Whether what comes next is thinking."""
        return self._thinking

    @property
    def within_tag(self) -> bool:
        """Whether the text so far ends with what may be the beginning of the next tag."""
        return overlap(self._held, self._tag) > 0

    @property
    def _tag(self) -> str:
        return self._tags[self._thinking]

    def _emit(self, out: list[tuple[Kind, str]], text: str) -> None:
        if self._at_edge:
            text = text.lstrip()
        if text:
            out.append(("thinking" if self._thinking else "answer", text))
            self._at_edge = False


def split_thinking(text: str, opened: bool = False) -> tuple[str, str]:
    """(thinking, answer) of a whole text.

    >>> split_thinking("<think>hm</think> 4"), split_thinking("hm</think> 4", opened=True)
    (('hm', '4'), ('hm', '4'))
    """
    splitter = ThinkingSplitter(opened)
    pieces = splitter.push(text) + splitter.flush()
    thinking, answer = ("".join(piece for kind, piece in pieces if kind == wanted) for wanted in ("thinking", "answer"))
    return thinking, answer


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends right inside an open tag, so that a completion of it begins with thinking.

    >>> opens_thinking("<|Assistant|><think>\\n"), opens_thinking("<think>\\n\\n</think>\\n\\n")
    (True, False)
    """
    return prompt.rstrip().endswith(OPEN)


def overlap(text: str, tag: str) -> int:
    """The length of the longest end of `text` that is a beginning of `tag`."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)
