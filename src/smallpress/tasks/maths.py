r"""Whether an answer of mathematics is the reference: numbers, closed forms, sets, tuples, intervals, equations.

All is exact and bounded. What cannot be decided here (a sine, a matrix, an inequality) is None: `verifier.py` asks a
computer algebra system for those. A hedge is wrong: more values than the reference has, "about 42", "42 or so".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from smallpress.tasks.answers import MAX_ANSWER_CHARS, clean, equal
from smallpress.tasks.closed_form import Form, NoValueError, UnreadableError, letter, number
from smallpress.tasks.exact import read_number
from smallpress.tasks.formula import read_formula

_HEDGES = re.compile(
    r"\b(?:or|and|either|neither|not|no|maybe|perhaps|possibly|probably|about|around|approximately|approx|roughly|almost"
    r"|nearly|between|unless|unknown|any|nan|inf)\b|\\(?:approx|sim|simeq|neq|ne|pm|mp|vee|lor|cup)\b|[\u2248?\u2260\u00b1]|(?<!\\);|^\W*~"
    r"|\n",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"\\(?!text|mathrm|mbox|boxed|input|write|def|csname)[a-z]{2,}", re.IGNORECASE)
_SIGN = re.compile(r"[\\^_=<>(\[+*/|]")
_FORMAL = re.compile(r"[^'\"`#@\n\u200b-\u202e]*")
_WORD = re.compile(r"[a-zA-Z]{4,}")
_WORDS = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{4,}")
_MAX_WORDS = 4  # of a unit; more are prose
_UNIT = re.compile(
    r"(?:\\(?:text|mathrm|mbox)\s?\{[^{}]*\}(?:\^\{?[23]\}?)?"
    r"|(?<=[0-9})\s])\s(?:(?:square|cubic|sq\.?) )?(?:mm|cm|km|m|in|ft|kg|g|s|ml|l|cents?|dollars|degrees|units?"
    r"|inches|feet|miles|meters|hours|minutes|seconds|days|years|people|points)(?:\^\{?[23]\}?)?)\s*$"
)
_LEAD = re.compile(r"\s*(?:[a-zA-Z](?:_\{?\w\}?)?(?:\([a-z](?:, ?[a-z])*\))?\s*(?:=|\\in(?![a-z])|\u2208)\s*)(?=\S)")
_LETTER = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])")
_OPENERS, _CLOSERS = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Collection:
    """Values in brackets: "{}" a set, "" a bare list, whose order is free; "()", "[)" and so on as they stand."""

    brackets: str
    members: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    sides: tuple[Form, ...]


Value = Form | Collection | Equation


def same(answer: str, reference: str) -> bool | None:
    r"""Whether the answer says the same as the reference; None where that cannot be decided here.

    >>> same(r"\frac{\sqrt{3}}{3}", r"1/\sqrt{3}"), same("(2, 1)", "(1, 2)"), same(r"\{2, 1\}", "1, 2")
    (True, False, True)
    >>> same("42 or 43", "42"), same(r"\sin 30^\circ", r"\frac{1}{2}")
    (False, None)
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    answer, reference = (re.sub(r",\\!\s*", ",", text) for text in (answer, reference))  # 11,\! 111 is one number
    if hedges(answer, reference):
        return False
    if equal(answer, reference):
        return True
    wanted_number, found_number = read_number(clean(reference)), read_number(clean(answer))
    if wanted_number is not None and found_number is not None:
        return found_number.same(wanted_number)
    try:
        wanted: Value = number(wanted_number.value) if wanted_number is not None else read_value(reference)
        found: Value = number(found_number.value) if found_number is not None else read_value(answer)
        return _same(found, wanted)
    except NoValueError:
        return False
    except UnreadableError:
        computes = _COMMAND.search(answer) if wanted_number is not None else _SIGN.search(answer)
        return None if computes and _FORMAL.fullmatch(answer) and not _WORD.search(_without_commands(answer)) else False


def hedges(answer: str, reference: str) -> bool:
    """Whether the answer says more, or less surely, than the reference does."""
    if len(_WORDS.findall(_without_commands(answer))) > max(_MAX_WORDS, len(_WORDS.findall(reference))):
        return True
    said, wanted = set(map(str.lower, _HEDGES.findall(answer.strip()))), map(str.lower, _HEDGES.findall(reference))
    lists = said & {"or", "and", "\\cup", "\\pm", "\u00b1", ";"}
    if lists and _many(reference):
        said -= lists
    return bool(said - set(wanted))


def read_value(text: str) -> Value:
    """A form, a collection of values or an equation. Raises UnreadableError."""
    text = _bare(text)
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return Collection("{}", tuple(read_value(part) for part in _split(text[2:-2], ",") if part.strip()))
    chunks = re.split(r"\\text\{ ?(?:or|and) ?\}|\bor\b|\band\b|(?<!\\);", text)
    members = [part for chunk in chunks for part in _split(chunk, ",") if part.strip()]
    if len(members) > 1:
        if any(re.fullmatch(r"\s*[0-9]{3}", member) for member in members[1:]) and "{,}" in text:
            raise UnreadableError("has commas of two kinds")
        return Collection("", tuple(read_value(member) for member in members))
    unions = _split(text, r"\cup")
    if len(unions) > 1:
        return Collection("", tuple(read_value(part) for part in unions))
    if text[:1] in "([" and text[-1:] in ")]" and text and _closes_at_end(text):
        inner = _split(text[1:-1], ",")
        if len(inner) > 1:
            return Collection(text[0] + text[-1], tuple(read_value(part) for part in inner))
    if (match := re.search(r"\\pm|\u00b1", text)) is not None:
        before, after = text[: match.start()], text[match.end() :]
        return Collection("", tuple(read_formula(f"{before}{sign}{after}") for sign in "+-"))
    sides = _split(text, "=")
    if len(sides) > 1:
        return Equation(tuple(read_formula(side) for side in sides))
    return read_formula(text)


def _same(found: Value, wanted: Value) -> bool | None:
    if isinstance(wanted, Equation) and isinstance(found, Form) and _is_letter(wanted.sides[0]):
        return found.same(wanted.sides[-1])
    if isinstance(found, Equation) and not isinstance(wanted, Equation):
        if len(found.sides) == 2 and _is_letter(found.sides[0]):
            return _same(found.sides[1], wanted)
        chain = [side.same(found.sides[-1]) for side in found.sides[:-1]]  # 3 * 14 = 42
        return _same(found.sides[-1], wanted) if all(chain) else False
    if isinstance(found, Collection) and isinstance(wanted, Collection):
        return _same_members(found, wanted)
    if isinstance(found, Form) and isinstance(wanted, Form):
        return found.same(wanted)
    if isinstance(found, Equation) and isinstance(wanted, Equation) and len(found.sides) == len(wanted.sides) == 2:
        one, other = (equation.sides[0] - equation.sides[1] for equation in (found, wanted))
        if not one.over or not other.over:
            return False
        ratio = one / other
        monomial = min(ratio.under)  # the two say the same where one is a constant times the other
        factor = ratio.over.get(monomial)
        return factor is not None and bool(ratio.same(number(factor / ratio.under[monomial])))
    single = isinstance(wanted, Form) and isinstance(found, Collection) and len(found.members) == 1
    return _same(found.members[0], wanted) if single and isinstance(found, Collection) else False


def _is_letter(form: Form) -> bool:
    return str(form) == str(letter(name)) if (name := _only_letter(form)) else False


def _only_letter(form: Form) -> str:
    names = [name for _, letters in form.over for name, _ in letters]
    return names[0] if len(names) == 1 else ""


def _same_members(found: Collection, wanted: Collection) -> bool | None:
    free = {"", "{}"}
    ordered = found.brackets not in free or wanted.brackets not in free
    if len(found.members) != len(wanted.members) or (ordered and found.brackets != wanted.brackets):
        return False
    if ordered:
        return _all(_same(one, other) for one, other in zip(found.members, wanted.members, strict=True))
    if len(found.members) > 40:
        return None
    left = list(wanted.members)
    for one in found.members:
        verdicts = [_same(one, other) for other in left]
        if True not in verdicts:
            return None if None in verdicts else False
        left.pop(verdicts.index(True))
    return True


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    return False if False in found else None if None in found else True


# Text ----------------------------------------------------------------------------------------------------------------


def _bare(text: str) -> str:
    r"""Without dollar signs, \boxed{..}, a full stop, units, "x =" where one value follows."""
    for _ in range(3):
        text = text.strip().strip("$").strip().removesuffix(".").removesuffix(r"\\")
        for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"), ("**", "**")):
            if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
                text = text[len(opening) : -len(closing)]
    text = text.replace(r"\left", "").replace(r"\right", "").replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")
    text = _UNIT.sub("", text)
    lead = _LEAD.match(text)
    rest = text[lead.end() :] if lead else ""
    return (text if not lead or "=" in rest or ("(" not in lead[0] and _LETTER.search(rest)) else rest).strip()


def _split(text: str, separator: str) -> list[str]:
    """At separators outside brackets; a comma with three digits on both its sides is one of thousands."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        char = text[at]
        depth += (char in _OPENERS) - (char in _CLOSERS)
        if depth == 0 and text.startswith(separator, at) and not (separator == "," and _thousands(text, at)):
            parts.append(text[start:at])
            start = at = at + len(separator)
            continue
        at += 1
    return [*parts, text[start:]]


def _thousands(text: str, at: int) -> bool:
    return bool(re.match(r",[0-9]{3}(?![0-9])", text[at : at + 5]) and text[max(at - 1, 0)].isdecimal())


def _closes_at_end(text: str) -> bool:
    depth = 0
    for at, char in enumerate(text):
        depth += (char in _OPENERS) - (char in _CLOSERS)
        if depth == 0:
            return at == len(text) - 1
    return False


def _many(reference: str) -> bool:
    try:
        return isinstance(read_value(reference), Collection)
    except UnreadableError:
        return False


def _without_commands(text: str) -> str:
    return re.sub(r"\\[a-zA-Z]+", " ", text)
