"""A parser of plain arithmetic: whole numbers, + - * / and parentheses, exact, nothing else.

expression = product (("+" | "-") product)*
product    = atom (("*" | "/") atom)*
atom       = digits | "(" expression ")"
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

MAX_CHARS = 200
MAX_DIGITS = 6
MAX_DEPTH = 20

_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
# LaTeX's and Unicode's times, dot, division and minus.
_SIGNS = (
    *((r"\times", "*"), (r"\cdot", "*"), (r"\div", "/")),
    *(("\u00d7", "*"), ("\u00b7", "*"), ("\u00f7", "/"), ("\u2212", "-")),
)


class ExpressionError(ValueError):
    """The text is no plain arithmetic; the message says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    value: Fraction
    numbers: tuple[int, ...]  # in the order written


def parse_expression(text: str) -> Expression:
    """Value and numbers of an expression. Raises ExpressionError, also for a division by zero.

    >>> parse_expression("(3 + 5) * 2 / 4")
    Expression(value=Fraction(4, 1), numbers=(3, 5, 2, 4))
    """
    for written, sign in _SIGNS:
        text = text.replace(written, sign)
    text = text.strip()
    if len(text) > MAX_CHARS:
        raise ExpressionError("too long")
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"has {text[at]!r}")
        tokens.append(match[1])
        at = match.end()
    parser = _Parser(tokens)
    value = parser.expression(depth=0)
    if parser.at < len(tokens):
        raise ExpressionError(f"has {tokens[parser.at]!r} out of place")
    return Expression(value, tuple(parser.numbers))


@dataclass(slots=True)
class _Parser:
    tokens: list[str]
    at: int = 0
    numbers: list[int] = field(default_factory=list)

    def _next_is(self, signs: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in signs

    def _take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def expression(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self._next_is("+-"):
            value = value + self.product(depth) if self._take() == "+" else value - self.product(depth)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.atom(depth)
        while self._next_is("*/"):
            if self._take() == "*":
                value *= self.atom(depth)
            else:
                divisor = self.atom(depth)
                if divisor == 0:
                    raise ExpressionError("divides by zero")
                value /= divisor
        return value

    def atom(self, depth: int) -> Fraction:
        if self.at == len(self.tokens):
            raise ExpressionError("breaks off")
        token = self._take()
        if token == "(":
            if depth == MAX_DEPTH:
                raise ExpressionError("too deep")
            value = self.expression(depth + 1)
            if not self._next_is(")"):
                raise ExpressionError("lacks a closing parenthesis")
            self._take()
            return value
        if not token.isdecimal():
            raise ExpressionError(f"has {token!r} out of place")
        if len(token) > MAX_DIGITS:
            raise ExpressionError("has too long a number")
        self.numbers.append(int(token))
        return Fraction(self.numbers[-1])
