import subprocess
import sys
from hashlib import blake2b
from itertools import islice

import pytest

from smallpress.run.errors import UserError
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import split_of
from smallpress.tasks.task import TASKS, find_task, held_out_set, mixed

LEVELS = [(name, level) for name, task in TASKS.items() for level in task.levels]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_no_problem_lies_on_both_sides_and_neither_side_is_empty(name, level):
    sides = [list(islice(TASKS[name].examples(split, seed=5, level=level), 400)) for split in ("train", "held_out")]
    train, held_out = ({example.key for example in side} for side in sides)
    assert not train & held_out
    assert len(train) >= 25 and len(held_out) >= 6
    assert {example.prompt for example in sides[0]}.isdisjoint(example.prompt for example in sides[1])


def test_the_sums_of_two_digits_are_45_problems_of_which_10_are_held_out():
    sides = {
        split: {example.key for example in islice(TASKS["chained_sum"].examples(split, 0, 2), 3000)}
        for split in ("train", "held_out")
    }
    assert (len(sides["train"]), len(sides["held_out"])) == (35, 10)


def test_about_one_key_in_five_is_held_out():
    n = sum(split_of(f"key {i}") == "held_out" for i in range(10_000))
    assert 1900 < n < 2100


def test_order_makes_another_problem_only_where_it_matters():
    assert TASKS["chained_sum"].key([4, 3]) == TASKS["addition"].key((3, 4)) == "3+4"
    assert TASKS["product"].key((4, 3)) == TASKS["product"].key((3, 4))
    assert TASKS["subtraction"].key((4, 3)) != TASKS["subtraction"].key((3, 4))
    assert TASKS["bases"].key((13, 2, True)) == TASKS["bases"].key((13, 2, False))
    says_other_is_knave, says_same = ("is", (1, False), (1, False)), ("same", (0, True), (0, True))
    swapped = (("same", (1, True), (1, True)), ("is", (0, False), (0, False)))
    assert TASKS["knights_knaves"].key((says_other_is_knave, says_same)) == TASKS["knights_knaves"].key(swapped)


def test_the_same_seed_gives_the_same_examples_and_another_seed_others():
    for name, level in LEVELS:
        first, again, other = (list(islice(TASKS[name].examples("train", s, level), 20)) for s in (1, 1, 2))
        assert first == again
        assert [example.prompt for example in first] != [example.prompt for example in other]


FINGERPRINT = """
from hashlib import blake2b
from itertools import islice
from smallpress.tasks.task import TASKS
digest = blake2b(digest_size=8)
for name, task in TASKS.items():
    for level in task.levels:
        for split in ("train", "held_out"):
            for example in islice(task.examples(split, 7, level), 10):
                digest.update(repr((example.prompt, example.reference, example.key, dict(example.meta))).encode())
print(digest.hexdigest())
"""


def test_another_process_with_another_hash_seed_draws_the_same():
    prints = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


def test_the_dice_are_those_that_python_promises_for_ever():
    dice = Dice(0)
    assert [dice.below(10) for _ in range(8)] == [8, 7, 4, 2, 5, 4, 7, 3]
    assert dice.shuffled("abcde") == list("abdec")
    assert dice.sample("abcdefgh", 3) == ["c", "g", "e"]


def test_the_dice_are_fair():
    dice, n = Dice(1), 6000
    counts = [0] * 6
    for _ in range(n):
        counts[dice.below(6)] += 1
    assert all(abs(count - n / 6) < 120 for count in counts)  # four standard deviations
    firsts = [dice.shuffled("abc")[0] for _ in range(3000)]
    assert all(abs(firsts.count(letter) - 1000) < 105 for letter in "abc")
    assert {dice.between(3, 5) for _ in range(100)} == {3, 4, 5}


def test_a_held_out_set_has_every_problem_once_and_all_that_a_small_level_has():
    examples = held_out_set([("chained_sum", 2), ("chained_sum", 4), ("word_problem", 1)], 24, seed=0)
    assert [sum(e.level == level and e.family == "chained_sum" for e in examples) for level in (2, 4)] == [10, 24]
    assert len({example.key for example in examples}) == len(examples) == 58
    assert all(split_of(example.key) == "held_out" for example in examples)
    assert examples == held_out_set([("chained_sum", 2), ("chained_sum", 4), ("word_problem", 1)], 24, seed=0)


def test_a_problem_that_two_families_share_is_held_out_once():
    examples = held_out_set([("addition", 2), ("chained_sum", 9)], 300, seed=0)
    assert len({example.key for example in examples}) == len(examples)


def test_a_mixture_draws_evenly_from_its_parts_and_from_one_side():
    examples = list(islice(mixed([("chained_sum", 3), ("letters", 1), ("largest", 4)], "train", seed=0), 900))
    for name in ("chained_sum", "letters", "largest"):
        assert 240 < sum(example.family == name for example in examples) < 360
    assert all(split_of(example.key) == "train" for example in examples)


def test_an_unknown_family_or_level_is_a_user_error_with_the_remedy():
    with pytest.raises(UserError, match="did you mean chained_sum"):
        find_task("chain_sum")
    with pytest.raises(UserError, match="choose from chained_sum, addition"):
        find_task("qqq")
    with pytest.raises(UserError, match="chained_sum has no level 1; choose one of 2, 3"):
        TASKS["chained_sum"].examples("train", 0, 1)
    with pytest.raises(UserError, match="no level 99"):
        mixed([("letters", 99)], "train", 0)


def test_the_examples_are_those_of_the_first_release():
    """Held-out results of different versions can be compared only while this holds."""
    digest = blake2b(digest_size=8)
    for name, level in (pair for pair in LEVELS if pair[0] != "code"):
        for example in islice(TASKS[name].examples("held_out", 7, level), 10):
            digest.update(repr((example.prompt, example.reference, example.key)).encode())
    assert digest.hexdigest() == "01464a61f2684e66"
