import sys
from itertools import islice

import pytest

from smallpress.tasks.example import split_of, worked_completion
from smallpress.tasks.small_functions import SmallFunctions

TASK = SmallFunctions()
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")


@linux
@pytest.mark.parametrize("level", TASK.levels)
def test_the_reference_passes_the_cases_and_a_constant_does_not(level):
    for example in islice(TASK.examples("train", seed=0, level=level), 12):
        for reading in ("strict", "lenient"):
            assert TASK.check(example, worked_completion(example), reading).correct, example
        assert not TASK.check(example, "<answer>def solve(xs): return 0</answer>").correct
        assert not TASK.check(example, "<answer>def solve(xs): return []</answer>").correct


@linux
def test_fenced_code_is_read_and_two_answers_are_none():
    example = next(TASK.examples("train", seed=0, level=1))
    fenced = f"```python\n{example.reference}\n```"
    assert TASK.check(example, f"<answer>{fenced}</answer>").correct
    assert TASK.check(example, f"Here:\n{fenced}\nDone.", "lenient").correct
    assert not TASK.check(example, f"Here:\n{fenced}").correct
    assert not TASK.check(example, f"<answer>{fenced}</answer><answer>def solve(xs): return 1</answer>").correct


def test_the_splits_share_no_key_and_cases_are_eight():
    for split in ("train", "held_out"):
        for example in islice(TASK.examples(split, seed=1, level=2), 40):
            assert split_of(example.key) == split and len(example.meta["cases"]) == 8
            assert len(example.prompt) < 300 and "{" not in example.prompt
