import importlib.util
import json
import re
from itertools import islice
from pathlib import Path

import pytest

from smallpress.tasks.answers import format_ok
from smallpress.tasks.example import Example, worked_completion
from smallpress.tasks.expression import parse_expression
from smallpress.tasks.plots import PEOPLE
from smallpress.tasks.task import TASKS

_spec = importlib.util.spec_from_file_location("solvers", Path(__file__).with_name("solvers.py"))
solvers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(solvers)

LEVELS = [
    (name, level) for name, task in TASKS.items() if name != "code" for level in task.levels
]  # code: its own file


def some(name: str, level: int, n: int = 150) -> list[Example]:
    task = TASKS[name]
    halves = [islice(task.examples(split, seed, level), n // 3) for split, seed in _SIDES]
    return [example for half in halves for example in half]


_SIDES = (("train", 1), ("train", 2), ("held_out", 3))


def tagged(answer: str) -> str:
    return f"<think> hm </think> <answer> {answer} </answer>"


def wrong_answers(example: Example) -> list[str]:
    """Answers near the right one that say something else."""
    right = example.reference
    hedges = [f"{right} or {right}1", f"not {right}", f"{right} </answer> <answer> {right}1", "", "NaN", "9**9**9"]
    if example.family == "countdown":
        numbers, target = example.meta["numbers"], example.meta["target"]
        return [*hedges, str(target), f"{right} + 1", f"{right} + 0", f"({right}", f"{right} = {target + 1}",
                f"-({right})", " + ".join(map(str, numbers[1:])), f"{target} * 2 / 2"]  # fmt: skip
    if example.family == "sorting":
        items = right.split(", ")
        return [*hedges, ", ".join(items[::-1]), ", ".join(items[1:]), ", ".join([*items, items[-1]]), items[0],
                ", ".join([items[1], items[0], *items[2:]]), "".join(items)]  # fmt: skip
    if example.family == "ordering":
        others = [name for name, *_ in PEOPLE if name != right]
        return [*hedges, *others, f"{right} and {others[0]}", f"{right}, {others[0]}", right[:-1]]
    if example.family == "knights_knaves":
        first, rest = right.split(", ", 1)
        flipped = first.replace("knight", "knave") if "knight" in first else first.replace("knave", "knight")
        return [*hedges, f"{flipped}, {rest}", first, rest, f"{first}, {right}", f"{right}, {flipped}", "knight, knave",
                right.replace("kn", "n"), f"{right} or not"]  # fmt: skip
    if not re.fullmatch(r"-?\d+(\.\d+)?", right):  # digits of a base above ten
        return [*hedges, right + "0", right[:-1] + ("1" if right[-1] != "1" else "2"), str(int(right, 16))]
    number = float(right)
    longer = f"1{right}" if number == 0 or "." in right else f"{right}0"
    near = [f"{number + off:.10g}" for off in (1, -1, 10, -10, 0.1)]
    return [*hedges, *near, longer, f"{right}, {near[0]}", f"between {near[1]} and {near[0]}",
            f"{right} hundred", f"about {right}", f"{right}^2"]  # fmt: skip


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_second_solver_finds_the_reference_and_nothing_else(name, level):
    for example in some(name, level, 60 if name == "countdown" else 150):
        answers = solvers.SOLVERS[name](example.prompt)
        assert answers == ({"possible"} if name == "countdown" else {example.reference}), example


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_the_program_written_completion_is_right_and_well_formed(name, level):
    for example in some(name, level):
        for reading in ("strict", "lenient"):
            verdict = TASKS[name].check(example, worked_completion(example), reading)
            assert verdict.correct and verdict.well_formed and verdict.reason == "right", (example, verdict)
        boxed = TASKS[name].check(example, f"So \\boxed{{{example.reference}}}.")
        assert boxed.correct and not boxed.well_formed
        plain = TASKS[name].check(example, f"The answer is\n{example.reference}\nUser: and 1 + 1?", "lenient")
        assert plain.correct, (example, plain)


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_wrong_answer_is_refused_in_both_readings(name, level):
    for example in some(name, level, 60):
        for answer in wrong_answers(example):
            for reading in ("strict", "lenient"):
                verdict = TASKS[name].check(example, tagged(answer), reading)
                assert not verdict.correct, (example, answer)
                assert verdict.reason and "\n" not in verdict.reason


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_every_statement_of_the_working_is_true_and_it_ends_at_the_answer(name, level):
    for example in some(name, level, 60):
        thought = example.meta["thought"]
        for left, right, rest in re.findall(r"([-+*/\d ]+) = (-?\d+)(?: rest (\d+))?", thought):
            value = parse_expression(f"0 {left}" if left.strip().startswith("-") else left).value
            assert (value == int(right)) if not rest else (value // 1 == int(right)), (example, left)
        for small, big in [
            *re.findall(r"([\d.]+\d) < ([\d.]*\d)", thought),
            *(pair[::-1] for pair in re.findall(r"([\d.]+\d) > ([\d.]*\d)", thought)),
        ]:
            assert float(small) < float(big), example
        assert example.meta["steps"] >= 1
        assert format_ok(worked_completion(example))


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_prompt_is_one_short_line_and_all_of_an_example_is_json(name, level):
    for example in some(name, level, 60):
        assert example.prompt == " ".join(example.prompt.split()) and 8 < len(example.prompt) < 260
        assert "{" not in example.prompt and example.family == name and example.level == level
        assert json.loads(json.dumps(dict(example.meta)))["steps"] == example.meta["steps"]


@pytest.mark.parametrize(
    ("name", "level", "steps"),
    [("chained_sum", 2, 1), ("chained_sum", 8, 7), ("addition", 4, 4), ("countdown", 3, 2), ("word_problem", 4, 1),
     ("long_word_problem", 2, 2), ("long_word_problem", 4, 4), ("sorting", 5, 4), ("largest", 6, 5), ("ordering", 4, 3),
     ("knights_knaves", 1, 4)],
)  # fmt: skip
def test_the_steps_are_counted_as_documented(name, level, steps):
    assert {example.meta["steps"] for example in some(name, level, 30)} == {steps}


def example_of(name: str, level: int, **of: object) -> Example:
    values = {"prompt": "?", "reference": "", "key": "k", "meta": {}, **of}
    return Example(family=name, level=level, **values)


@pytest.mark.parametrize("answer", ["(3 + 5) * 2", "2*(5+3)", "(3+5)*2 = 16", "2 \\times (3 + 5)", "$5*2+3*2$"])
def test_countdown_takes_any_expression_that_uses_each_number_once(answer):
    example = example_of("countdown", 3, reference="(3 + 5) * 2", meta={"numbers": [3, 5, 2], "target": 16})
    assert TASKS["countdown"].check(example, tagged(answer)).correct == (answer != "$5*2+3*2$")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        *(
            (text, True)
            for text in ("2, 5, 9", "2 5 9", "2,5,9.", "[2, 5, 9]", "2 < 5 < 9", "2, 5 and 9", "2, 5, and 9")
        ),
        *(
            (text, False)
            for text in ("2, 9, 5", "259", "2 or 5 or 9", "2, 5, 9, 9", "2; 5; 9 or 10", "2, 5", "two, 5, 9")
        ),
    ],
)
def test_sorting_takes_the_common_ways_to_write_a_list(answer, right):
    assert TASKS["sorting"].check(example_of("sorting", 3, reference="2, 5, 9"), tagged(answer)).correct == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        *(
            (text, True)
            for text in ("Ann is a knight and Ben is a knave.", "Ben knave, Ann knight", "Ann: knight; Ben: knave")
        ),
        *((text, False) for text in ("Ann is a knight or Ben is a knave", "Ann is not a knight, Ben is a knave")),
        *(
            (text, False)
            for text in ("Ann knight, Ann knave, Ben knave", "Ann knight", "knight, knave", "Ann knight, Tom knave")
        ),
    ],
)
def test_knights_and_knaves_wants_one_role_for_everyone(answer, right):
    example = example_of("knights_knaves", 1, reference="Ann knight, Ben knave", meta={"people": ["Ann", "Ben"]})
    assert TASKS["knights_knaves"].check(example, tagged(answer)).correct == right


@pytest.mark.parametrize(
    ("base", "reference", "answer", "right"),
    [
        (2, "1101", "0b1101", True),
        (2, "1101", "1101_2", True),
        (2, "1101", "1101_{2}", True),
        (2, "1101", "00001101", True),
        (2, "1101", "13", False),
        (2, "1101", "1101 or 1011", False),
        (16, "1f", "0x1F", True),
        (16, "1f", "31", False),
        (8, "17", "0x17", False),
    ],
)
def test_digits_of_a_base_may_carry_its_own_prefix_or_index(base, reference, answer, right):
    example = example_of("bases", 3, reference=reference, meta={"base": base})
    assert TASKS["bases"].check(example, tagged(answer)).correct == right


def test_a_completion_that_gives_two_different_answers_is_wrong_and_one_repeated_is_not():
    example = example_of("chained_sum", 2, reference="7")
    check = TASKS["chained_sum"].check
    assert check(example, "<answer> 7 </answer> <answer> 7.0 </answer>").correct
    verdict = check(example, "<answer> 8 </answer> <answer> 7 </answer>")
    assert not verdict.correct and verdict.reason == "several answers that differ"
    assert check(example, "<answer> 6 </answer> hm </think> <answer> 7 </answer>").correct, "thinking is free"
    assert check(example, "3 + 4 </think> <answer> 7 </answer>", opened=True).well_formed


def test_an_answer_without_its_tag_counts_in_the_lenient_reading_only():
    example = example_of("chained_sum", 2, reference="7")
    assert TASKS["chained_sum"].check(example, "3 + 4 = 7") == TASKS["chained_sum"].check(example, "")
    assert TASKS["chained_sum"].check(example, "3 + 4 = 7", "lenient").correct


def test_a_checker_that_lacks_what_it_needs_raises_and_does_not_say_wrong():
    with pytest.raises(KeyError):
        TASKS["countdown"].check(example_of("countdown", 3), tagged("1 + 1"))
