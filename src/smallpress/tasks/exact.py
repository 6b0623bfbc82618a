"""An exact number read from the text of an answer: no eval, bounded length, or None.

What counts as one number: an optional sign and currency sign, digits (with correct thousands separators, or a
decimal point, or a fraction a/b or a b/c), an optional per cent sign, and an optional unit: one to four words
of letters none of which changes the number ("42 apples", "5 km/h", not "42 hundred", not "42 or so").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 100

# Words that make "42 <word>" another number, or no claim that it is 42.
_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds
    thousand thousands million millions billion billions trillion trillions dozen dozens half halves quarter
    quarters third thirds point plus minus times over divided by mod modulo squared cubed factorial percent
    power sqrt root x y n i k e pi or and to not nor but maybe perhaps possibly probably about around
    approximately roughly almost nearly between either neither is are isn was wrong false incorrect nan inf
    infinity"""
_NOT_UNITS = frozenset(_WORDS.split())

_DIGITS = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?P<currency>[$€£¥]?) ?(?P<sign2>-?)"
    rf"(?:(?P<whole>[0-9]+) (?P<over>[0-9]+) ?/ ?(?P<under>[0-9]+)"
    rf"|(?P<digits>{_DIGITS})(?: ?/ ?(?P<below>[0-9]+))?)"
    rf"(?P<percent> ?%| percent(?![a-z]))?"
    rf"(?P<unit> ?[a-z°'²³/ -]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    percent: bool = False
    unit: str = ""

    def same(self, other: Number) -> bool:
        """Equal in value; where both carry a unit, the units are the same word (a plural s aside).

        A per cent sign is a factor 1/100 or, where only one side writes it, may be a mere unit: 50% equals both
        1/2 and 50.
        """
        if self.unit and other.unit and self.unit.rstrip("s") != other.unit.rstrip("s"):
            return False
        if self.value == other.value:
            return True
        if self.percent == other.percent:
            return False
        scaled, plain = (self, other) if self.percent else (other, self)
        return scaled.value / 100 == plain.value


def read_number(text: str) -> Number | None:
    """The one number that `text` (already cleaned of its wrappers) is, or None.

    >>> read_number("-1,234.50").value, read_number("1 1/2 cups").value, read_number("42 or 43")
    (Fraction(-2469, 2), Fraction(3, 2), None)
    """
    if not 0 < len(text) <= MAX_CHARS:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    unit = _unit(match["unit"])
    if unit is None or (match["sign"] and match["sign2"]):
        return None
    if match["whole"] is not None:
        whole, over, under = int(match["whole"]), int(match["over"]), int(match["under"])
        if under == 0:
            return None
        value = whole + Fraction(over, under)
    else:
        value = Fraction(match["digits"].replace(",", ""))
        if match["below"] is not None:
            below = int(match["below"])
            if below == 0:
                return None
            value /= below
    negative = "-" in (match["sign"], match["sign2"])
    return Number(-value if negative else value, match["percent"] is not None, unit)


def _unit(text: str) -> str | None:
    """The unit as lower-case words, "" for none, None for words that are no unit."""
    words = re.split(r"[\s/-]+", text.strip().casefold())
    if words == [""]:
        return ""
    if len(words) > 4 or any(word in _NOT_UNITS or not word for word in words):
        return None
    return " ".join(words)


# In running text: a sign counts only where no number or word stands before it, so "10-7" ends in 7.
_IN_TEXT = re.compile(rf"(?:(?<![\w)\].])-)?\$?(?:{_DIGITS})(?:/[0-9]+)?%?")


def last_number(text: str) -> str | None:
    """The last number written in running text, as written.

    >>> last_number("So 3 + 4 = 7."), last_number("10-7"), last_number("it is -3, I think")
    ('7', '7', '-3')
    """
    found = None
    for match in _IN_TEXT.finditer(text):
        found = match.group()
    return found
