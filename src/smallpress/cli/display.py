"""Showing a model's words on a terminal: thinking dim and apart, nothing in them that could steer the terminal."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from smallpress.tokenizer.thinking import Kind

if TYPE_CHECKING:
    from rich.console import Console

    from smallpress.cli.talk import Reply

STEERING = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
} | {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}  # fmt: skip
"""Control characters, and those that turn the writing direction, shown by their numbers."""


def harmless(text: str) -> str:
    r"""`text` without what a terminal would obey.

    >>> harmless("a\x1b[2Jb\n")
    'a\\x1b[2Jb\n'
    """
    return text.translate(STEERING)


class AnswerDisplay:
    """Writes the pieces of one answer as they come.

    On a terminal both go to stdout, thinking dim (with NO_COLOR: between lines that say so). Elsewhere the answer alone
    goes to stdout and the thinking to stderr, so that `smallpress run MODEL QUESTION > answer.txt` keeps the answer.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._terminal = self._out.isatty()
        self._dimmer = _dimmer(self._out) if self._terminal else None
        self._kind: Kind | None = None
        self._ends_line = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._switch(None)
        if not self._ends_line:
            self._write("\n")

    def show(self, kind: Kind, text: str) -> None:
        """Write a piece, which may be part of a word."""
        if kind != self._kind:
            self._switch(kind)
        if kind == "thinking" and not self._terminal:
            print(harmless(text), end="", file=self._err, flush=True)
        else:
            self._write(harmless(text), dim=kind == "thinking")

    def note(self, text: str) -> None:
        """A line about the program, not from the model; on a terminal only."""
        if self._terminal:
            self._write(f"{text}\n", dim=True)

    def _write(self, text: str, dim: bool = False) -> None:
        if dim and self._dimmer is not None:
            self._dimmer.out(text, style="dim", end="")
        else:
            print(text, end="", file=self._out, flush=True)
        self._ends_line = text.endswith("\n")

    def _switch(self, kind: Kind | None) -> None:
        """End what is being shown and begin `kind`; between thinking and answer stands an empty line."""
        ended, self._kind = self._kind, kind
        if ended == "thinking" and not self._terminal:
            print(file=self._err)
        if not self._terminal:
            return
        if ended == "thinking" and self._dimmer is None:
            self._write("\n[end of thinking]")
        if ended is not None and kind is not None:
            self._write("\n\n")
        if kind == "thinking" and self._dimmer is None:
            self._write("[thinking]\n")


def _dimmer(terminal: TextIO) -> "Console | None":
    """What writes dim there; None where it cannot, or NO_COLOR asks for none."""
    from rich.console import Console

    console = Console(file=terminal, highlight=False)
    return console if console.color_system is not None and not console.no_color else None


def summary(reply: "Reply") -> str:
    """What an answer took, in one line.

    >>> from smallpress.cli.talk import Reply
    >>> summary(Reply("hm", "4", "length", 10, 8, 21, 12, 2.5, 0.5))
    '21 tokens (12 thinking), 10.0 a second, first after 0.5 s, cut off at the limit'
    >>> summary(Reply("", "4", "stop", 10, 8, 21, 0, 2.5, 0.5, n_drafted=12, n_accepted=9))
    '21 tokens (9 of 12 drafts right), 10.0 a second, first after 0.5 s'
    """
    parts = [f"{reply.n_thinking} thinking"] if reply.n_thinking else []
    parts += [f"{reply.n_accepted} of {reply.n_drafted} drafts right"] if reply.n_drafted else []
    which = f" ({', '.join(parts)})" if parts else ""
    ending = {"length": ", cut off at the limit", "cancelled": ", stopped"}.get(reply.finish_reason, "")
    speed = f", {reply.tokens_per_second:.1f} a second" if reply.tokens_per_second else ""
    return f"{reply.n_tokens} tokens{which}{speed}, first after {reply.seconds_to_first:.1f} s{ending}"
