"""Control tokens in text: found where the program wrote them, broken where a user did.

A chat template writes `<|im_end|>` and means the token; a user who writes it means nine characters. Both meet in one
rendered text. So before rendering, a guard character that occurs nowhere else is put after every character of the
user's text that could begin a control token (`<` becomes `<` + guard). Whatever a template then does to the text, cut,
join, strip or repeat, no control token can begin inside it; after splitting at control tokens the guard is removed.
"""

import re
from collections.abc import Iterable, Iterator

from smallpress.tokenizer.definition import AddedToken

PRIVATE_USE = range(0xE000, 0xF900)


class ControlTokens:
    """The control tokens of one vocabulary, to be found in text."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self._tokens = {token.text: token for token in tokens}
        starts = "".join(sorted({text[0] for text in self._tokens}))
        self._starts = re.compile(f"[{re.escape(starts)}]" if starts else r"(?!)")
        self._lengths = sorted({len(text) for text in self._tokens}, reverse=True)

    def split(self, text: str) -> Iterator[str | int]:
        """The text's pieces in order: ids of control tokens, and the ordinary texts between them.

        >>> tokens = ControlTokens([AddedToken(7, "<end>", special=True)])
        >>> list(tokens.split("a<end><end>b"))
        ['a', 7, 7, 'b']
        """
        at = 0
        for match in self._starts.finditer(text):
            token = self._longest_at(text, match.start()) if match.start() >= at else None
            if token is None:
                continue
            before = text[at : match.start()]
            if before := before.rstrip() if token.lstrip else before:
                yield before
            yield token.id
            at = match.start() + len(token.text)
            if token.rstrip and (spaces := re.compile(r"\s*").match(text, at)):
                at = spaces.end()
        if at < len(text):
            yield text[at:]

    def guard(self, text: str, mark: str, keep: tuple[str, ...] = ()) -> str:
        """`text` with `mark` after each character that could begin a control token; texts in `keep` stay whole.

        >>> tokens = ControlTokens([AddedToken(7, "<end>", special=True)])
        >>> tokens.guard("a <b> <end>", "*"), tokens.guard("<t><end>", "*", keep=("<t>",))
        ('a <*b> <*end>', '<t><*end>')
        """

        def broken(match: re.Match[str]) -> str:
            return match[0] if text.startswith(keep, match.start()) else match[0] + mark

        return self._starts.sub(broken, text)

    def _longest_at(self, text: str, at: int) -> AddedToken | None:
        """The longest token that `text` has at `at`; of a token marked single_word, only where no word goes on."""
        for length in self._lengths:
            token = self._tokens.get(text[at : at + length])
            if token is not None and not (token.single_word and _within_word(text, at, at + length)):
                return token
        return None


def _within_word(text: str, start: int, end: int) -> bool:
    return re.search(r"\w", text[max(start - 1, 0) : start] + text[end : end + 1]) is not None


def unused_mark(texts: Iterable[str]) -> str:
    """A private-use character that is in none of the texts, neither itself nor as JSON's escape of it."""
    together = "\n".join(texts)
    for code in PRIVATE_USE:
        if chr(code) not in together and f"\\u{code:04x}" not in together.lower():
            return chr(code)
    raise AssertionError(f"all {len(PRIVATE_USE)} private-use characters are in one conversation")
