"""Numbers as Chinese writes them, into digits: 三十五, 百分之五十, 三分之一, 二点五, 3.5万, ９页."""

from __future__ import annotations

import re
from fractions import Fraction

from smallpress.tasks.exact import read_number

MAX_CHARS = 100

_FULL_WIDTH = {ord("０") + i: str(i) for i in range(10)} | str.maketrans("％，．：／－＋（）", "%,.:/-+()")
_SPELT = ("零〇", "一壹", "二两贰", "三叁", "四", "五", "六", "七", "八", "九")
_DIGITS = {char: value for value, chars in enumerate(_SPELT) for char in chars}
_TENS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "亿": 10**8}
_NUMERAL = "".join((*_DIGITS, *_TENS, *_MYRIADS))
_LEAD = re.compile(
    r"^(?:所以|因此)?(?:最后|最终)?(?:的)?(?:答案|结果)?(?:答)?(?:是|为|等于)?[:：]?\s*(?:一?共|还剩|剩)?(?:有|下)?\s*"
)
_HEDGES = "或约到至和多几近左右来余不"
_UNIT = rf"(?:千米|千克|千瓦|(?:(?![{_NUMERAL}{_HEDGES}])[\u4e00-\u9fff]){{0,6}}|℃|°C?)[。.！]?"
_ARABIC = re.compile(rf"(?P<number>[+-]?[0-9][0-9,./]*%?)(?P<myriad>[万亿]?)\s?{_UNIT}")
_WORDS = re.compile(rf"(?P<sign>负?)(?P<number>(?:百分之)?[{_NUMERAL}点]+?(?:分之[{_NUMERAL}]+)?){_UNIT}")


def in_digits(text: str) -> str:
    """The answer with its Chinese number in digits and without its unit; as it is where it holds no such number.

    >>> in_digits("答案是三十五页。"), in_digits("３．５万"), in_digits("三分之一"), in_digits("百分之五十")
    ('35', '35000', '1/3', '50%')
    >>> in_digits("九或十"), in_digits("大约9")
    ('九或十', '大约9')
    """
    if not 0 < len(text) <= MAX_CHARS:
        return text
    plain = text.translate(_FULL_WIDTH).strip().strip("$").strip()
    rest = _LEAD.sub("", plain, count=1)
    if (match := _ARABIC.fullmatch(rest)) is not None:
        found = read_number(match["number"])
        if found is None:
            return plain
        return _written(found.value * _MYRIADS[match["myriad"]]) if match["myriad"] else match["number"]
    if (match := _WORDS.fullmatch(rest)) is not None:
        value = _number(match["number"])
        if value is not None:
            return ("-" if match["sign"] else "") + value
    return plain


def _number(text: str) -> str | None:
    if text.startswith("百分之"):
        value = _decimal(text.removeprefix("百分之"))
        return None if value is None else f"{_written(value)}%"
    under, sign, over = text.partition("分之")
    if sign:
        a, b = _whole(over), _whole(under)
        return None if a is None or not b else f"{a}/{b}"
    value = _decimal(text)
    return None if value is None else _written(value)


def _decimal(text: str) -> Fraction | None:
    whole, point, rest = text.partition("点")
    value = _whole(whole)
    if value is None or (point and (not rest or any(char not in _DIGITS for char in rest))):
        return None
    digits = "".join(str(_DIGITS[char]) for char in rest)
    return value + Fraction(int(digits or 0), 10 ** len(digits))


def _whole(text: str) -> int | None:
    """三百零五 as 305; 二〇二四, said digit by digit, as 2024."""
    if not text or text[0] in _MYRIADS or any(char not in _NUMERAL for char in text):
        return None
    if all(char in _DIGITS for char in text):
        return int("".join(str(_DIGITS[char]) for char in text))
    total, section, digit = 0, 0, 0
    for i, char in enumerate(text):
        if char in _DIGITS:
            digit = _DIGITS[char]
        elif char in _TENS:
            section += (digit or (1 if i == 0 or text[i - 1] in "零〇" else 0)) * _TENS[char]
            digit = 0
        else:
            total = (total + section + digit) * _MYRIADS[char]
            section = digit = 0
    return total + section + digit


def _written(value: Fraction) -> str:
    """A decimal where it ends, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, 20):
        if (value * 10**places).denominator == 1:
            whole, rest = divmod(abs(value.numerator) * 10**places // value.denominator, 10**places)
            return f"{'-' if value < 0 else ''}{whole}.{rest:0{places}d}"
    return f"{value.numerator}/{value.denominator}"
