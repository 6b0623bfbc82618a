import random
import time

import pytest

from smallpress.tasks.answers import answers_given, clean, equal, extract_answer, extract_lenient
from smallpress.tasks.exact import read_number

SAME = [
    ("42", "42"),
    (" 42. ", "42"),
    ("+42", "42"),
    ("-3", "-3"),
    ("\u22123", "-3"),
    ("42.0", "42"),
    ("007", "7"),
    ("0.50", "1/2"),
    (".5", "0.5"),
    ("2/4", "1/2"),
    ("1 1/2", "3/2"),
    ("1,000", "1000"),
    ("1000", "1,000"),
    ("12,345,678.5", "12345678.5"),
    ("1{,}000", "1000"),
    ("42 apples", "42"),
    ("42 red apples", "42"),
    ("5 km/h", "5"),
    ("42", "42 apples"),
    ("42 apple", "42 apples"),
    ("$42", "42"),
    ("\\$1,200.50", "1200.5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("50%", "50"),
    ("50 percent", "50%"),
    ("50%", "1/2"),
    ("0.5", "50%"),
    ("50\\%", "50"),
    ("$42$", "42"),
    ("\\(42\\)", "42"),
    ("\\[ 42 \\]", "42"),
    ("\\boxed{42}", "42"),
    ("$\\boxed{\\frac{3}{4}}$", "0.75"),
    ("\\dfrac12", "1/2"),
    ("-\\frac{1}{2}", "-0.5"),
    ("1\\frac{1}{2}", "1.5"),
    ("42\\text{ apples}", "42"),
    ("5\\,\\mathrm{m}", "5"),
    ("**42**", "42"),
    ("`42`", "42"),
    ("x = 42", "42"),
    ("The answer is 42.", "42"),
    ("Final answer: 42", "42"),
    ("Tom", "tom"),
    ('"Tom."', "Tom"),
    ("\\text{Tom}", "Tom"),
    ("(B)", "B"),
    ("2,5,9", "2, 5, 9"),
    ("x^2 + 1", "x^2+1"),
]

DIFFERENT = [
    ("43", "42"),
    ("-42", "42"),
    ("4 2", "42"),
    ("", "42"),
    (".", "42"),
    ("-", "42"),
    ("42 or 43", "42"),
    ("42, 43", "42"),
    ("42,43", "42"),
    ("42 and 43", "43"),
    ("42 / 43", "42"),
    ("42 (or 43)", "42"),
    ("either 42 or 43", "42"),
    ("between 41 and 43", "42"),
    ("41-43", "42"),
    ("41 to 43", "42"),
    ("about 42", "42"),
    ("42 or so", "42"),
    ("42 or more", "42"),
    ("not 42", "42"),
    ("42 is wrong", "42"),
    ("42?43", "42"),
    ("42\n43", "42"),
    ("42 43", "43"),
    ("42 hundred", "42"),
    ("42 thousand", "42"),
    ("3 dozen", "3"),
    ("42 point five", "42"),
    ("42k", "42"),
    ("42x", "42"),
    ("42i", "42"),
    ("42 squared", "42"),
    ("42!", "42"),
    ("42e1", "42"),
    ("42^2", "42"),
    ("9**9**9", "999"),
    ("2**3", "23"),
    ("$4$2$", "42"),
    ("6*7", "42"),
    ("40+2", "42"),
    ("40 + 2 = 42", "42"),
    ("0x2a", "42"),
    ("0b101010", "42"),
    ("1_000", "1000"),
    ("1,00", "100"),
    ("1,2345", "12345"),
    ("42.0.0", "42"),
    ("1/0", "0"),
    ("1 1/0", "1"),
    ("0.33", "1/3"),
    ("0.3333333333", "1/3"),
    ("41.9999999999", "42"),
    ("--42", "42"),
    ("-$-5", "5"),
    ("42 km", "42 miles"),
    ("5%", "50"),
    ("500%", "50%"),
    ("NaN", "42"),
    ("nan", "0"),
    ("inf", "42"),
    ("Infinity", "42"),
    ("None", "42"),
    ("True", "1"),
    ("\u0664\u0662", "42"),  # Arabic-Indic digits
    ("\uff14\uff12", "42"),  # full-width digits
    ("4\u00b2", "16"),
    ("42\u0000", "42"),
    ("9" * 1_000_000, "42"),
    ("42" + " " * 2000 + "43", "43"),
    ("__import__('os').system('true')", "0"),
    ("Tom or Ann", "Tom"),
    ("Tom and Ann", "Tom"),
    ("not Tom", "Tom"),
    ("[1,2)", "(1,2)"),
]


@pytest.mark.parametrize(("answer", "reference"), SAME)
def test_an_answer_that_says_the_same_is_equal(answer, reference):
    assert equal(answer, reference)


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_an_answer_that_says_something_else_or_hedges_is_not_equal(answer, reference):
    assert not equal(answer, reference)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<think> 3 + 4 </think> <answer> 7 </answer>", "7"),
        ("so \\boxed{7}", "7"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed {\\text{a {b} c}}", "\\text{a {b} c}"),
        ("<answer> \\boxed{7} </answer>", "\\boxed{7}"),
        ("<answer> 7 </answer> <answer> 8", "7"),
        ("<answer> 6 <answer> 7 </answer>", "7"),
        ("<answer> \\boxed{7}", "7"),
        ("\\boxed{ \\boxed{7}", "7"),
        ("\\boxed{\\boxed{7}}", "\\boxed{7}"),
        ("} { \\boxed{7}", "7"),
        ("<think> \\boxed{6} <answer> 5 </answer> </think> \\boxed{7}", "7"),
        ("<answer></answer>", ""),
        ("7 </answer>", None),
        ("<answer> 7", None),
        ("\\boxed{7", None),
        ("<think> <answer> 7 </answer> </think> so it is", None),
        ("<ANSWER> 7 </ANSWER>", None),
        ("the answer is 7", None),
        ("", None),
    ],
)
def test_the_last_complete_tag_or_box_after_the_thinking_is_the_answer(completion, answer):
    assert extract_answer(completion) == answer


def test_every_answer_given_is_seen():
    assert answers_given("<answer> 7 </answer> or \\boxed{8} <answer>9</answer>") == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("completion", "number", "answer"),
    [
        ("<answer> 7 </answer> 8", True, "7"),
        ("\\boxed{7} and 8", True, "7"),
        ("3 + 4 = 7.", True, "7"),
        ("It costs $1,234.50 in all.", True, "$1,234.50"),
        ("That is 50%.", True, "50%"),
        ("10-7", True, "7"),
        ("it is -3 then", True, "-3"),
        ("3/4 of it", True, "3/4"),
        ("7\nUser: What is 5 + 6?\nAssistant: <answer> 11 </answer>", True, "7"),
        ("7 User: 8", True, "7"),
        ("7<|im_end|>8", True, "7"),
        ("no number", True, None),
        ("", True, None),
        ("Let me think.\nTom\n", False, "Tom"),
        ("<think> hm </think> Tom", False, "Tom"),
        (" \n ", False, None),
    ],
)
def test_the_lenient_reading_takes_what_looks_like_the_answer(completion, number, answer):
    assert extract_lenient(completion, number) == answer


def test_cleaning_twice_changes_nothing_more():
    for answer, reference in SAME:
        for text in (answer, reference):
            assert clean(clean(text)) == clean(text)


def test_a_number_equals_itself_in_every_common_spelling_and_not_its_neighbour():
    draw = random.Random(0)
    for _ in range(500):
        n = draw.randrange(-(10 ** draw.randrange(1, 9)), 10 ** draw.randrange(1, 9))
        for spelling in (str(n), f"{n:,}", f"{n}.00", f"${n}$", f"\\boxed{{{n}}}", f"{n} pens", f"{3 * n}/3"):
            assert equal(spelling, str(n)), spelling
            assert equal(str(n), spelling), spelling
            assert not equal(spelling, str(n + 1)), spelling


HOSTILE = [
    piece * (length // len(piece))
    for length in (1000, 1_000_000)
    for piece in (
        *(
            "9",
            "(",
            "{",
            "}",
            "{}",
            "$",
            "-",
            " ",
            "\n",
            "a",
            "1,",
            "1,234",
            "42 ",
            "1/",
            "0.1",
            "**",
            "`",
            "\\",
            "\x00",
        ),
        *(
            "\\boxed{",
            "\\boxed{}",
            "\\frac{1}{",
            "\\text{",
            "\\text{}",
            "\\(",
            "9**",
            "9!",
            "1 1/2 ",
            "\ud800",
            "\u0664",
        ),
        *(
            "<answer>",
            "</answer>",
            "<answer></answer>",
            "<answer>1</answer>",
            "<think>",
            "</think>",
            "User:",
            "<|im_end|>",
        ),
    )
]


def test_hostile_text_is_answered_at_once_and_never_right():
    for text in HOSTILE:
        for completion in (text, f"<answer>{text}</answer>", f"\\boxed{{{text}}}"):
            begin = time.process_time()
            answer = extract_answer(completion)
            extract_lenient(completion)
            extract_lenient(completion, number=False)
            right = equal(answer or "", "123456") or equal(completion, "123456")
            assert not right, completion[:40]
            assert time.process_time() - begin < 0.25, completion[:40]  # about 0.02 at a million characters


PIECES = (
    *"0123456789 .,-+*/%$(){}[]<>=!?^_~`'\"\\\n\t",
    *("<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "\\frac{", "\\frac", "\\text{", "\\(", "\\)"),
    *("42", "1,234", "3.5", "1/2", " or ", " and ", "apples", "User: ", "Assistant: ", "NaN", "inf", "1e9", "0x1F"),
    *(
        "\u0664",
        "\uff14",
        "\u00bd",
        "\u2212",
        "\u00d7",
        "\u202e",
        "\ud800",
        "\x00",
        "\U0001f600",
        "\u4e09",
        "import os",
    ),
)


def test_a_hundred_thousand_random_strings_are_read_without_an_exception():
    draw = random.Random(1)
    begin, n_right = time.process_time(), 0
    for _ in range(100_000):
        text = "".join(draw.choices(PIECES, k=draw.randrange(12)))
        answer = extract_answer(text)
        lenient = extract_lenient(text)
        n_right += equal(answer if answer is not None else lenient or "", "42")
    assert 0 < n_right < 10_000
    assert time.process_time() - begin < 60


def test_random_text_that_is_read_as_a_number_has_no_second_number_in_it():
    draw = random.Random(2)
    for _ in range(20_000):
        text = " ".join(draw.choices(("42", "43", "or", "and", "-", "apples", "about", ",", "(", ")", "."), k=4))
        if read_number(clean(text)) is not None:
            assert sum(text.count(number) for number in ("42", "43")) == 1, text
