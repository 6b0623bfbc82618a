"""Write a small function over a list of numbers: steps in a row, checked by running it on inputs it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smallpress.tasks.code_check import CodeChecked
from smallpress.tasks.code_tests import CodeVerdict, run_cases
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example
from smallpress.tasks.family import Family, Posed

Numbers = list[int]
N_CASES = 8
MIN_RESULTS = 3
NAME = "solve"


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the list `xs` with the number k: in words, in Python, and done."""

    words: str
    source: str
    do: Callable[[Numbers, int], Numbers]
    low: int = 2
    high: int = 9


@dataclass(frozen=True, slots=True)
class End:
    """What is made of the list last."""

    words: str
    source: str
    do: Callable[[Numbers], int | Numbers]


STEPS = (
    Step("keep the numbers greater than {k}", "[x for x in xs if x > {k}]", lambda xs, k: [x for x in xs if x > k], -5),
    Step("keep the numbers less than {k}", "[x for x in xs if x < {k}]", lambda xs, k: [x for x in xs if x < k], -5),
    Step("drop the multiples of {k}", "[x for x in xs if x % {k}]", lambda xs, k: [x for x in xs if x % k]),
    Step("keep the multiples of {k}", "[x for x in xs if x % {k} == 0]", lambda xs, k: [x for x in xs if x % k == 0]),
    Step("multiply each number by {k}", "[x * {k} for x in xs]", lambda xs, k: [x * k for x in xs]),
    Step("add {k} to each number", "[x + {k} for x in xs]", lambda xs, k: [x + k for x in xs]),
    Step("subtract {k} from each number", "[x - {k} for x in xs]", lambda xs, k: [x - k for x in xs]),
    Step("drop the first {k} numbers", "xs[{k}:]", lambda xs, k: xs[k:], 1, 4),
    Step("keep the first {k} numbers", "xs[:{k}]", lambda xs, k: xs[:k], 1, 6),
    Step("keep every number at an index divisible by {k}", "xs[::{k}]", lambda xs, k: xs[::k], 2, 4),
)
ENDS = (
    End("return the list", "xs", lambda xs: xs),
    End("return the list in reverse order", "xs[::-1]", lambda xs: xs[::-1]),
    End("return the list sorted from smallest to largest", "sorted(xs)", sorted),
    End("return the sum", "sum(xs)", sum),
    End("return how many numbers are left", "len(xs)", len),
    End("return the largest number, or 0 if none is left", "max(xs, default=0)", lambda xs: max(xs, default=0)),
    End("return the smallest number, or 0 if none is left", "min(xs, default=0)", lambda xs: min(xs, default=0)),
)

Problem = tuple[tuple[tuple[int, int], ...], int]  # the steps as (index into STEPS, k); the index into ENDS


class SmallFunctions(CodeChecked, Family[Problem]):
    """Write a Python function solve(xs) for a list xs: drop the multiples of 3, then return the sum."""

    name = "code"
    levels = (1, 2, 3)
    level_means = "how many steps the function takes before it returns"
    step_means = "one operation on the list"

    def draw(self, level: int, dice: Dice) -> Problem:
        while True:
            chosen = dice.distinct(0, len(STEPS) - 1, level)
            steps = tuple((n, dice.between(STEPS[n].low, STEPS[n].high)) for n in chosen)
            problem = steps, dice.below(len(ENDS))
            if _n_results(problem, PROBES) >= len(PROBES) // 3:
                return problem

    def key(self, problem: Problem) -> str:
        steps, end = problem
        return f"code:{','.join(f'{n}({k})' for n, k in steps)}:{end}"

    def pose(self, problem: Problem, dice: Dice) -> Posed:
        steps, end = problem
        words = [STEPS[n].words.format(k=k) for n, k in steps] + [ENDS[end].words]
        source = "xs"
        for n, k in steps:
            source = STEPS[n].source.replace("xs", source).format(k=k)
        reference = f"def {NAME}(xs): return {ENDS[end].source.replace('xs', source)}"
        prompt = f"Write a Python function {NAME}(xs) for a list xs of whole numbers: {', then '.join(words)}."
        thought = "; ".join(f"{n}. {word}" for n, word in enumerate(words, start=1)) + "."
        inputs: list[Numbers] = []
        while _n_results(problem, inputs) < MIN_RESULTS:
            inputs = [[], *(_numbers(dice) for _ in range(N_CASES - 1))]
        cases = [[[xs], _result(problem, xs)] for xs in inputs]
        return Posed(prompt, reference, len(words), thought, {"cases": cases})

    def run(self, example: Example, code: str) -> CodeVerdict:
        return run_cases(code, NAME, example.meta["cases"])


def _n_results(problem: Problem, inputs: list[Numbers]) -> int:
    """How many different results the inputs have: few, and a constant would pass."""
    return len({repr(_result(problem, xs)) for xs in inputs})


def _numbers(dice: Dice) -> Numbers:
    return [dice.between(-20, 40) for _ in range(dice.between(1, 12))]


def _result(problem: Problem, xs: Numbers) -> int | Numbers:
    steps, end = problem
    for n, k in steps:
        xs = STEPS[n].do(xs, k)
    return ENDS[end].do(xs)


PROBES = [_numbers(Dice(n)) for n in range(24)]
"""A problem is posed only if these lists have many different results."""
