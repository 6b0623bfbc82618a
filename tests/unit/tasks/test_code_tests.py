import importlib.util
import sys
from pathlib import Path

import pytest

from smallpress.tasks.code_tests import UnitTests, run_cases, run_tests
from smallpress.tasks.sandbox import Limits

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

_spec = importlib.util.spec_from_file_location("cheats", Path(__file__).with_name("cheats.py"))
cheats = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cheats)

SPLIT = UnitTests("assert answer(2) == 'needle-17'\nassert answer(5) == 'needle-38'", ("answer",))
BESIDE = UnitTests("for n in (2, 5):\n    assert answer(n) == f'needle-{7 * n + 3}'", ("answer",))
CHECK = UnitTests(
    "def check(candidate):\n    assert candidate(2) == 'needle-17'\n    assert candidate(n=5)[-2:] == '38'", ("answer",)
)
CASES = [((2,), "needle-17"), ((5,), "needle-38")]
RIGHT = "def answer(n): return f'needle-{n * 7 + 3}'"
SHORT = Limits(cpu_seconds=1, seconds=20)


@pytest.mark.parametrize("tests", [SPLIT, BESIDE, CHECK])
def test_the_right_program_passes_and_one_off_fails(tests):
    assert run_tests(RIGHT, tests).passed
    assert not run_tests(RIGHT.replace("3", "4"), tests).passed


@pytest.mark.parametrize("name", cheats.CHEATS)
def test_no_cheat_is_rewarded(name):
    code = cheats.CHEATS[name]
    assert not run_tests(code, SPLIT, SHORT).passed
    assert not run_tests(code, BESIDE, SHORT).passed
    assert not run_cases(code, "answer", CASES, SHORT).passed


def test_a_tests_own_function_is_not_the_programs():
    tests = UnitTests(
        "def check(f):\n    for n in range(3):\n        assert double(f(n)) == 2 * n",
        ("same",),
        trusted="def double(n): return 2 * n",
    )
    assert run_tests("def same(n): return n", tests).passed
    assert not run_tests("def same(n): return [n]\ndef double(n): return n and 2 * n[0]", tests).passed


def test_setup_makes_inputs_of_the_programs_own_classes():
    tests = UnitTests("assert total(node) == 3", ("total",), setup="node = Node(1, Node(2))")
    code = "class Node:\n  def __init__(self, n, next=None): self.n, self.next = n, next\n"
    code += "def total(node): return node.n + total(node.next) if node else 0"
    assert run_tests(code, tests).passed


def test_cases_tell_true_from_one_and_a_tuple_from_a_list():
    assert run_cases("def f(n): return n", "f", [((1,), 1), (("a",), "a"), (([1, 2.5],), [1, 2.5])]).passed
    for wrong in ("True", "1.0", "(1,)", "'1'"):
        assert not run_cases(f"def f(n): return {wrong}", "f", [((1,), 1)]).passed


def test_a_verdict_says_what_failed_first():
    assert run_tests("def answer(n): return n", SPLIT).reason == "answer(2) is wrong"
    assert run_tests("def answer(n): return 1 / 0", SPLIT).reason == "answer(2) raised ZeroDivisionError"
    assert run_tests("def answer(n:", SPLIT).reason == "the code raised SyntaxError"
