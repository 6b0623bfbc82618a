"""Advantages by hand."""

import pytest

from smallpress.rl.advantage import STD_FLOOR, centered, leave_one_out, normalized
from smallpress.rl.algorithms import ALGORITHMS


def test_grpo_divides_by_the_sample_deviation():
    """Rewards 0, 1, 2: mean 1, deviation sqrt((1 + 0 + 1) / 2) = 1."""
    assert normalized([0.0, 1.0, 2.0]) == pytest.approx([-1 / (1 + STD_FLOOR), 0.0, 1 / (1 + STD_FLOOR)])


def test_one_right_of_four():
    """Mean 1/4, deviation sqrt((9/16 + 3/16) / 3) = 1/2."""
    assert normalized([1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-3)
    assert centered([1.0, 0.0, 0.0, 0.0]) == [0.75, -0.25, -0.25, -0.25]
    assert leave_one_out([1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


def test_leave_one_out_is_g_over_g_minus_one_times_centered():
    rewards = [0.3, 2.0, -1.0, 0.0, 0.7]
    assert leave_one_out(rewards) == pytest.approx([a * 5 / 4 for a in centered(rewards)])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_advantages_add_up_to_nothing_and_a_group_that_agrees_has_none(name):
    advantages = ALGORITHMS[name].advantages
    assert sum(advantages([0.3, 2.0, -1.0, 0.0])) == pytest.approx(0.0)
    assert advantages([0.7] * 4) == pytest.approx([0.0] * 4)
    assert advantages([1.0, 1.0, 1.0]) == [0.0] * 3


def test_nearly_equal_rewards_get_no_huge_advantages():
    """Two rewards a millionth apart: without the floor their advantages would be 0.7 and -0.7."""
    assert max(normalized([1.0, 1.0 + 1e-6])) < 0.01
