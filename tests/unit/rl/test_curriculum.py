"""Problems are chosen where groups disagree; levels open one by one."""

import json
from collections import Counter

import pytest

from smallpress.rl.curriculum import FLOOR, HOPE, MEMORY, Curriculum

RIGHT, WRONG = [True] * 4, [False] * 4


def two_families(**given):
    return Curriculum([("sum", 3), ("sum", 1), ("sum", 2), ("sort", 1)], **({"unlock_at": 0.6} | given))


def test_only_the_lowest_level_of_each_family_is_open_at_first():
    assert sorted(two_families().open_pairs()) == [("sort", 1), ("sum", 1)]


def test_without_a_curriculum_all_levels_are_open_and_equally_likely():
    curriculum = two_families(enabled=False)
    assert len(curriculum.open_pairs()) == 4
    curriculum.observe(("sum", 1), RIGHT)
    curriculum.observe(("sum", 1), RIGHT)
    drawn = Counter(level for family, level in curriculum.choose(6000, seed=0, step=0) if family == "sum")
    assert all(abs(drawn[level] - 1000) < 150 for level in (1, 2, 3))


def test_a_level_opens_when_the_one_below_has_been_good_enough_twice():
    curriculum = two_families()
    curriculum.observe(("sum", 1), RIGHT)
    assert ("sum", 2) not in curriculum.open_pairs()  # one group may be luck
    curriculum.observe(("sum", 1), RIGHT)
    assert ("sum", 2) in curriculum.open_pairs() and ("sum", 3) not in curriculum.open_pairs()


def test_only_the_highest_open_level_opens_the_next_and_none_closes():
    curriculum = two_families()
    for _ in range(2):
        curriculum.observe(("sum", 1), RIGHT)
    for _ in range(9):
        curriculum.observe(("sum", 1), RIGHT)  # level 2 is the border now
    assert ("sum", 3) not in curriculum.open_pairs()
    for _ in range(9):
        curriculum.observe(("sum", 1), WRONG)
    assert ("sum", 2) in curriculum.open_pairs()
    for _ in range(9):
        curriculum.observe(("sum", 2), RIGHT)
        curriculum.observe(("sort", 1), RIGHT)
    assert len(curriculum.open_pairs()) == 4  # and what is above the last level stays out of reach


def test_accuracy_is_a_running_mean_that_starts_at_the_first_group():
    curriculum = two_families()
    curriculum.observe(("sum", 1), [True, False, False, False])
    assert curriculum.accuracy["sum", 1] == 0.25
    curriculum.observe(("sum", 1), RIGHT)
    assert curriculum.accuracy["sum", 1] == pytest.approx(MEMORY * 0.25 + (1 - MEMORY) * 1.0)


def test_levels_are_drawn_by_the_variance_of_their_answers():
    """Half right: 1/4 + floor; always right: floor alone."""
    curriculum = two_families()
    curriculum.n_open["sum"] = 3
    curriculum.accuracy = {("sum", 1): 1.0, ("sum", 2): 0.5}
    weights = {1: FLOOR, 2: 0.25 + FLOOR, 3: HOPE * (1 - HOPE) + FLOOR}
    drawn = Counter(level for family, level in curriculum.choose(8000, seed=0, step=0) if family == "sum")
    for level, weight in weights.items():
        assert drawn[level] / 4000 == pytest.approx(weight / sum(weights.values()), abs=0.03)


def test_families_take_turns():
    curriculum = Curriculum([(name, 1) for name in "abc"], unlock_at=0.6)
    for step in range(5):
        families = [family for family, _ in curriculum.choose(7, seed=0, step=step)]
        assert families[:3] == families[3:6] and sorted(families[:3]) == ["a", "b", "c"]
    firsts = {curriculum.choose(1, seed=0, step=step)[0][0] for step in range(40)}
    assert firsts == {"a", "b", "c"}  # fewer prompts than families: each still gets its steps


def test_the_choice_depends_on_seed_step_and_what_was_seen_alone():
    one, other = two_families(), two_families()
    one.n_open["sum"] = other.n_open["sum"] = 3
    one.choose(50, seed=1, step=1)  # choosing leaves no trace
    assert one.choose(20, seed=1, step=2) == other.choose(20, seed=1, step=2)
    assert one.choose(20, seed=1, step=2) != one.choose(20, seed=2, step=2)


def test_restored_from_json_it_goes_on_as_if_unbroken():
    unbroken, resumed = two_families(), two_families()
    for correct in (RIGHT, WRONG, RIGHT, RIGHT, RIGHT):
        unbroken.observe(("sum", 1), correct)
    resumed.restore(json.loads(json.dumps(unbroken.state())))
    assert resumed.open_pairs() == unbroken.open_pairs() and resumed.accuracy == unbroken.accuracy
    for curriculum in (unbroken, resumed):
        curriculum.observe(("sum", 2), RIGHT)
    assert resumed.state() == unbroken.state()
    assert resumed.choose(30, seed=0, step=9) == unbroken.choose(30, seed=0, step=9)
