import random
from fractions import Fraction

import pytest

from smallpress.tasks.expression import ExpressionError, parse_expression


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("3 + 4 * 2", 11),
        ("(3 + 4) * 2", 14),
        ("10 - 3 - 2", 5),
        ("10 - (3 - 2)", 9),
        ("24 / 4 / 3", 2),
        ("1 / 3 * 3", 1),
        ("8 / (3 - 8 / 3)", 24),
        ("2 * 3 - 10", -4),
        ("((((5))))", 5),
        ("3\\times4", 12),
        ("3 \u00d7 4 \u2212 2 \u00f7 1", 10),
    ],
)
def test_the_value_is_exact_and_signs_bind_as_usual(text, value):
    assert parse_expression(text).value == value


def test_the_numbers_are_those_written():
    assert parse_expression("(3 + 10) * 3").numbers == (3, 10, 3)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "+",
            "3 +",
            "+3",
            "-3",
            "3 3",
            "(3",
            "3)",
            "()",
            "3 ** 3",
            "3 // 2",
            "3 % 2",
            "2(3)",
            "1/0",
            "1/(2-2)",
        ),
        *(
            "3.5",
            "1e3",
            "0x1f",
            "a",
            "__import__('os')",
            "3;4",
            "\u0663",
            "9" * 7,
            "1+" * 200 + "1",
            "(" * 21 + "1" + ")" * 21,
        ),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ExpressionError):
        parse_expression(text)


def test_random_expressions_have_the_value_they_were_built_with():
    draw = random.Random(0)

    def build(depth: int) -> tuple[str, Fraction]:
        if depth == 0 or draw.random() < 0.2:
            n = draw.randrange(1, 100)
            return str(n), Fraction(n)
        (left, a), (right, b) = build(depth - 1), build(depth - 1)
        sign = draw.choice("+-*/")
        if sign == "/" and b == 0:
            sign = "+"
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]
        return f"({left} {sign} {right})", value

    for _ in range(500):
        text, value = build(3)
        assert parse_expression(text).value == value, text
