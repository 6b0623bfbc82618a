import pytest

from smallpress.tasks.chinese import in_digits
from smallpress.tasks.formula import read_formula
from smallpress.tasks.maths import same

RIGHT = [
    ("x = 42", "42"),
    (r"\ 42 \;", "42"),
    ("3 * 14 = 42", "42"),
    (r"\frac{84}{2}", "42"),
    (r"\dfrac{1}{2}", "0.5"),
    (r"3\frac{1}{2}", "3.5"),
    (r"11,\! 111,\! 100", "11111100"),
    (r"\frac{\sqrt{3}}{3}", r"1/\sqrt{3}"),
    (r"\frac{1}{1+\sqrt{2}}", r"\sqrt{2} - 1"),
    (r"2\sqrt{3}\text{ cm}", r"2\sqrt{3}"),
    ("x(3x - 2)", "3x^2 - 2x"),
    ("2y = 4x + 6", "y = 2x + 3"),
    ("2x + 3", "y = 2x + 3"),
    ("3, 2", "2, 3"),
    (r"\{3, 2\}", "2, 3"),
    (r"x = 2 \text{ or } x = 3", "2, 3"),
    (r"\pm 2", "-2, 2"),
    (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)"),
    (r"x \in [-2, 7)", "[-2,7)"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2)\cup(3,\infty)"),
    (r"\sqrt{-4}", "2i"),
    (r"4210_{5}", "4210_5"),
    (r"\text{(C)}", "C"),
]
WRONG = [
    ("42 or 43", "42"),
    ("42, 43", "42"),
    ("42 43", "42"),
    ("42; 43", "42"),
    ("42\n43", "42"),
    (r"\approx 42", "42"),
    ("about 42", "42"),
    (r"42 \pm 1", "42"),
    (r"\{42, 43\}", "42"),
    ("3 * 15 = 42", "42"),
    ("(2, 1)", "(1, 2)"),
    ("(0, 1)", "[0, 1)"),
    ("2, 3, 4", "2, 3"),
    ("2, 2", "2, 3"),
    ("y = 2x + 4", "y = 2x + 3"),
    (r"\sqrt{2} + \sqrt{3}", r"\sqrt{5}"),
    (".", "42"),
    ("\u0664\u0662", "42"),
    ("9^9^9^9", "42"),
    ("", "42"),
]
OPEN = [(r"\sin 30^\circ", r"\frac{1}{2}"), ("x > 3", "3 < x")]


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_what_says_the_same_is_right(answer, reference):
    assert same(answer, reference) is True


@pytest.mark.parametrize(("answer", "reference"), WRONG)
def test_another_value_or_a_hedge_is_wrong(answer, reference):
    assert same(answer, reference) is False


@pytest.mark.parametrize(("answer", "reference"), OPEN)
def test_what_cannot_be_decided_is_left_open(answer, reference):
    assert same(answer, reference) is None


def test_forms_are_multiplied_out_and_reduced():
    assert read_formula(r"(1 + \sqrt{2})^2").same(read_formula(r"3 + 2\sqrt{2}")) is True
    assert read_formula(r"\sqrt{2} \sqrt{6}").same(read_formula(r"2\sqrt{3}")) is True
    assert str(read_formula(r"\frac{6}{4} \cdot 50\%")) == "3/4"


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("一百零五元", "105"),
        ("两千三百万", "23000000"),
        ("二点五千米", "2.5"),
        ("百分之五十", "50%"),
        ("三分之二", "2/3"),
        ("答案是９页。", "9"),
        ("3.5万", "35000"),
        ("九或十", "九或十"),
        ("大约9", "大约9"),
    ],
)
def test_chinese_numbers_are_read_and_hedges_left(written, digits):
    assert in_digits(written) == digits
