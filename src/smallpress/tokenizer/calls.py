"""Telling calls of functions from text while it streams in, and the forms in which models write them."""

import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from smallpress.tokenizer.thinking import overlap

CallForm = Literal["hermes", "deepseek", "llama3"]

HERMES = ("<tool_call>", "</tool_call>")
DEEPSEEK = ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>")
DEEPSEEK_ONE = ("<\uff5ctool\u2581call\u2581begin\uff5c>", "<\uff5ctool\u2581call\u2581end\uff5c>")
DEEPSEEK_SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"
TAGS = frozenset({*HERMES, *DEEPSEEK, *DEEPSEEK_ONE, DEEPSEEK_SEPARATOR})
"""Texts that steer a reader: shown where text is decoded, whatever a vocabulary marks them as."""

_CLOSING = dict((HERMES, DEEPSEEK))
_ONE_OF_DEEPSEEK = re.compile(
    rf"(?:{DEEPSEEK_ONE[0]})?(?:function)?{DEEPSEEK_SEPARATOR}(?P<name>[^\n]*)\n```(?:json)?\n(?P<arguments>.*?)\n```",
    re.DOTALL,
)
_FIRST_KEY, _LONGEST_KEY = re.compile(r'\s*\{\s*"([^"]*)"'), 64
_KEYS = frozenset({"name", "type", "arguments", "parameters"})
_BETWEEN = re.compile(r"[\s;,]*")


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its name, `arguments` as the JSON of an object."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


class CallReader:
    """A state machine over pieces of text: `push` each piece, then `flush`; texts and calls come out in order.

    A call is given out when it is complete, and no part of it as text. What stands where a call would and is none
    (broken JSON, a function that is not among `names`) is text, as it was written. White space around calls is dropped.
    `most` calls at most are given out. A text that begins as JSON with a key of a call may be one in Llama 3's form: it
    is held back until its end.

    >>> reader = CallReader(["add"])
    >>> reader.push('Well.\\n<tool_') + [type(reader.push('call>{"name": "add"}</tool_call>')[0]).__name__]
    ['Well.', 'Call']
    """

    def __init__(self, names: Iterable[str], most: int = 64) -> None:
        self._names, self._most, self.n_calls = frozenset(names), most, 0
        self._held = ""  # what cannot be given out yet
        self._space = ""  # before the tag that is open
        self._opened: str | None = None  # the tag that is open; "{" where the whole text may be calls
        self._at_edge = True  # nothing but white space since the beginning or the last call

    def push(self, text: str) -> list[str | Call]:
        """What `text` makes certain."""
        self._held += text
        out: list[str | Call] = []
        while self._advance(out):
            pass
        return out

    def flush(self) -> list[str | Call]:
        """The rest, at the end of the text. A call whose closing tag alone is missing is one."""
        out: list[str | Call] = []
        held, self._held = self._held, ""
        body = held.removeprefix(self._opened) if self._opened in _CLOSING else held
        if self._opened is None or not self._take(out, body):
            self._say(out, self._space * (self._opened in _CLOSING) + held)
        return out

    def _advance(self, out: list[str | Call]) -> bool:
        """One change of state; False where more text is needed."""
        if self._opened == "{":
            return False
        if self._opened is None:
            return self._until_tag(out)
        close = _CLOSING[self._opened]
        at = self._held.find(close)
        if at < 0:
            return False
        whole, self._held = self._held[: at + len(close)], self._held[at + len(close) :]
        body = whole[len(self._opened) : at]
        self._opened = None
        if self._take(out, body):
            self._at_edge = True
        else:
            self._say(out, self._space + whole)
        return True

    def _until_tag(self, out: list[str | Call]) -> bool:
        if self._at_edge and not self.n_calls and self._held.lstrip().startswith("{"):
            key = _FIRST_KEY.match(self._held)
            if key is None and len(self._held) <= _LONGEST_KEY:
                return False
            if key is not None and key[1] in _KEYS:
                self._opened = "{"
                return False
        found = [(at, tag) for tag in _CLOSING if (at := self._held.find(tag)) >= 0]
        if found:
            at, self._opened = min(found)
            before = self._held[:at].rstrip()
            self._say(out, before)
            self._space, self._held = self._held[len(before) : at], self._held[at:]
            return True
        certain = self._held[: len(self._held) - max(overlap(self._held, tag) for tag in _CLOSING)].rstrip()
        self._say(out, certain)
        self._held = self._held[len(certain) :]
        return False

    def _say(self, out: list[str | Call], text: str) -> None:
        if self._at_edge and self.n_calls:
            text = text.lstrip()
        if text:
            out.append(text)
            self._at_edge = self._at_edge and not text.strip()

    def _take(self, out: list[str | Call], body: str) -> bool:
        """Whether `body` is one call or several of known functions; then they are given out."""
        calls = _calls_of(body)
        if not calls or any(call.name not in self._names for call in calls):
            return False
        out += calls[: max(0, self._most - self.n_calls)]
        self.n_calls += len(calls)
        return True


def _calls_of(body: str) -> list[Call]:
    """The calls that `body` is made of, none where it holds anything else."""
    if DEEPSEEK_SEPARATOR in body:
        found = [_call(match["name"].strip(), match["arguments"]) for match in _ONE_OF_DEEPSEEK.finditer(body)]
        return [call for call in found if call is not None] if all(found) else []
    calls: list[Call] = []
    at = _after(body, 0)
    while at < len(body):
        try:
            value, at = _DECODER.raw_decode(body, at)
        except (ValueError, RecursionError):
            return []
        arguments = value.get("arguments", value.get("parameters", {})) if isinstance(value, dict) else None
        name = value.get("name") if isinstance(value, dict) else None
        call = _call(name, arguments) if isinstance(name, str) else None
        if call is None:
            return []
        calls.append(call)
        at = _after(body, at)
    return calls


def _call(name: str, arguments: Any) -> Call | None:
    """`arguments` are an object, or the JSON of one."""
    if isinstance(arguments, str):
        try:
            arguments = _DECODER.decode(arguments)
        except (ValueError, RecursionError):
            return None
    return Call(name, json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


def _after(body: str, at: int) -> int:
    match = _BETWEEN.match(body, at)
    return at if match is None else match.end()


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
