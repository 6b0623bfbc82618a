r"""From a formula as a model writes it, in LaTeX or in plain text, to a closed form.

sum      = ["-"] product (("+" | "-") product)*
product  = power (("*" | "/" | nothing) power)*       2x, 2\sqrt{3}; a whole number before a fraction is added
power    = atom ["^" argument] ["!"] ["%"]
atom     = number | letter [_index] | \frac{sum}{sum} | \sqrt[n]{sum} | function argument | (sum) | |sum|
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from smallpress.tasks.closed_form import Form, NoValueError, UnreadableError, function, letter, number, power, root

MAX_CHARS = 400
MAX_DEPTH = 24

_WRITTEN = (
    *((r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), (r"\cfrac", r"\frac"), (r"\left", ""), (r"\right", "")),
    *((r"\times", "*"), (r"\cdot", "*"), (r"\div", "/"), ("**", "^"), ("\u00d7", "*"), ("\u00b7", "*")),
    *(("\u00f7", "/"), ("\u2212", "-"), ("\u2013", "-"), ("\u03c0", r"\pi "), ("\u221a", r"\sqrt ")),
    *((r"\displaystyle", ""), (r"\!", ""), (r"\%", "%"), (r"\$", ""), ("\u00b2", "^2"), ("\u00b3", "^3")),
    *((r"\lvert", "|"), (r"\rvert", "|"), ("{,}", ""), (r"^\circ", ""), (r"^{\circ}", ""), ("\u00b0", "")),
    *((r"\degree", ""), (r"\operatorname", ""), (r"\limits", "")),
)
_SPACE = re.compile(r"\\[,;: ]|\\q?quad|~|\$|\s+")
_TOKEN = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\\[a-zA-Z]+|[a-zA-Z]+|\S")
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+")
_CLOSERS = {"(": ")", "{": "}", "[": "]"}
_NAMES = {
    "pi",
    "sqrt",
    "frac",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "ln",
    "log",
    "exp",
    "arcsin",
    "arccos",
    "arctan",
}
_FUNCTIONS = _NAMES - {"pi", "sqrt", "frac", "exp"}
_LETTERS = {"pi", "infty", "theta", "alpha", "beta", "gamma", "phi", "lambda", "omega", "emptyset", "varnothing"}
_GROUPS = {"mathrm", "mathbf", "text", "mathit", "boxed"}


def read_formula(text: str) -> Form:
    r"""The closed form that the text is. Raises UnreadableError.

    >>> read_formula(r"\frac{2\sqrt{12}}{4}").same(read_formula("sqrt(3)"))
    True
    """
    if len(text) > MAX_CHARS:
        raise NoValueError("too long")
    parser = _Parser(tokens(text))
    if not parser.tokens:
        raise UnreadableError("empty")
    form = parser.sum()
    if parser.at < len(parser.tokens):
        raise UnreadableError(f"has {parser.tokens[parser.at]!r} out of place")
    return form


def tokens(text: str) -> list[str]:
    for written, meant in _WRITTEN:
        text = text.replace(written, meant)
    found: list[str] = []
    for token in _TOKEN.findall(_SPACE.sub(" ", text)):
        if token.isalpha() and token.isascii() and len(token) > 1 and token not in _NAMES:
            if len(token) > 3:
                raise UnreadableError(f"has the word {token!r}")
            found += token  # xy is x times y
        else:
            found.append("\\" + token if token in _NAMES else token)
    return found


@dataclass(slots=True)
class _Parser:
    tokens: list[str]
    at: int = 0
    depth: int = 0

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, wanted: str = "") -> str:
        token = self._next()
        if not token or (wanted and token != wanted):
            raise UnreadableError(f"lacks {wanted}" if wanted else "breaks off")
        self.at += 1
        return token

    def sum(self) -> Form:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NoValueError("too deep")
        form = self._signed()
        while self._next() in ("+", "-"):
            form = form + self.product() if self._take() == "+" else form - self.product()
        self.depth -= 1
        return form

    def _signed(self) -> Form:
        if self._next() == "+":
            self._take()
        if self._next() == "-":
            self._take()
            return -self.product()
        return self.product()

    def product(self) -> Form:
        form = self.power()
        while token := self._next():
            before = self.tokens[self.at - 1]
            if token in ("*", "/"):
                self._take()
                sign = self._take() if self._next() == "-" else ""
                factor = -self.power() if sign else self.power()
                form = form * factor if token == "*" else form / factor
            elif token == "\\frac" and before.isdecimal():
                fraction = self.power()
                value = fraction.value
                mixed = value is not None and 0 < value < 1
                form = form + fraction if mixed else form * fraction
            elif _NUMBER.fullmatch(token):
                raise UnreadableError("has two numbers side by side")
            elif token[0].isalpha() or token in ("(", "{") or (token[0] == "\\" and len(token) > 1):
                form = form * self.power()
            else:
                break
        return form

    def power(self) -> Form:
        form = self.atom()
        while self._next() in ("^", "!", "%"):
            sign = self._take()
            if sign == "^":
                form = power(form, self.argument())
            elif sign == "%":
                form = form / number(100)
            else:
                form = _factorial(form)
        return form

    def argument(self) -> Form:
        r"""What stands behind ^ or \frac: one digit, one letter or a group."""
        token = self._next()
        if token == "-":
            self._take()
            return -self.argument()
        if token.isdecimal() and len(token) > 1 and self.at and self.tokens[self.at - 1] != "^":
            self.tokens[self.at : self.at + 1] = list(token)
        return self.atom()

    def atom(self) -> Form:
        token = self._take()
        if _NUMBER.fullmatch(token) and self._next() == "_":
            return letter(token + self._index())  # in another base
        if _NUMBER.fullmatch(token):
            return number(Fraction(token.replace(",", "")))
        if token in _CLOSERS:
            form = self.sum()
            self._take(_CLOSERS[token])
            return form
        if token == "|":
            form = self.sum()
            self._take("|")
            return number(abs(form.value)) if form.value is not None else function("abs", form)
        if token[0] == "\\":
            return self._command(token[1:])
        if token.isalpha() and token.isascii():
            return letter(token + self._index())
        raise UnreadableError(f"has {token!r}")

    def _command(self, name: str) -> Form:
        if name == "frac":
            over = self.argument()
            return over / self.argument()
        if name == "sqrt":
            degree: Form = number(2)
            if self._next() == "[":
                degree = self.atom()
            value = degree.value
            if value is None or value.denominator != 1 or not 2 <= value <= 32:
                raise UnreadableError("has a strange root")
            return root(self.atom(), value.numerator)
        if name == "exp":
            return power(letter("e"), self.atom())
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _LETTERS:
            return letter(name + self._index())
        if name in _GROUPS:
            return self.atom()
        raise UnreadableError(f"has \\{name}")

    def _function(self, name: str) -> Form:
        arguments = []
        if self._next() == "_":
            self._take()
            arguments.append(self.argument())
        exponent = None
        if self._next() == "^":
            self._take()
            exponent = self.argument()
        form = function(name, *arguments, self.power())
        return power(form, exponent) if exponent is not None else form

    def _index(self) -> str:
        if self._next() != "_":
            return ""
        self._take()
        index = self._take()
        if index == "{":
            index = self._take()
            self._take("}")
        if not index.isalnum():
            raise UnreadableError("has a strange index")
        return "_" + index


def _factorial(form: Form) -> Form:
    value = form.value
    if value is None:
        return function("factorial", form)
    if value.denominator != 1 or not 0 <= value <= 100:
        raise NoValueError("too large a factorial")
    return number(math.factorial(value.numerator))
