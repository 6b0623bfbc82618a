"""What a person is told, and which steps are not taken."""

import json
import math

import pytest

from smallpress.optim.spike_guard import SpikeGuard
from smallpress.rl.alarms import Alarms, repeated_share


def steps(n, length=10.0, reward=0.5, **more):
    return [{"completions/mean_length": length, "reward": reward, **more}] * n


def said(alarms, metrics):
    return [sentence for step in metrics for sentence in alarms.check(step)]


def test_a_steady_run_is_quiet():
    assert said(Alarms(), steps(60, skipped=0.0, skipped_groups=0)) == []


def test_answers_that_double_without_more_reward_are_a_blow_up():
    found = said(Alarms(), steps(10, length=10) + steps(10, length=21))
    assert found == ["answers grew from 10 to 21 tokens and the reward did not: length blow-up"]


def test_answers_that_double_while_the_reward_rises_are_thinking():
    assert said(Alarms(), steps(10, length=10) + steps(10, length=30, reward=0.6)) == []


def test_loops_are_told():
    assert "loops" in said(Alarms(), steps(1, **{"completions/repeated_share": 0.51}))[0]
    assert said(Alarms(), steps(1, **{"completions/repeated_share": 0.5})) == []


def test_skipped_steps_are_counted():
    found = said(Alarms(), steps(1, skipped=1.0) + steps(3) + steps(1, skipped=0.5))
    assert [sentence[-8:] for sentence in found] == ["1 so far", "2 so far"]


def test_groups_left_out_are_told_and_their_nan_is_not_remembered():
    alarms = Alarms()
    assert "3 groups were left out" in said(alarms, steps(1, reward=math.nan, skipped_groups=3))[0]
    json.dumps(alarms.state(), allow_nan=False)


def test_reward_that_rises_while_held_out_accuracy_falls_is_hacking():
    accuracies = [0.5, 0.48, 0.44]
    alarms, found = Alarms(), []
    for i, accuracy in enumerate(accuracies):
        found += said(alarms, steps(9, reward=0.1 * i) + steps(1, reward=0.1 * i, **{"eval/accuracy": accuracy}))
    assert found == ["the reward rises while held-out accuracy fell from 0.50 to 0.44: reward hacking"]


def test_a_fall_within_five_points_or_with_the_reward_is_noise():
    for accuracies, gain in (([0.5, 0.5, 0.46], 0.1), ([0.5, 0.4, 0.3], -0.1), ([0.5, 0.3, 0.6], 0.1)):
        alarms = Alarms()
        metrics = [steps(1, reward=0.5 + gain * i, **{"eval/accuracy": a})[0] for i, a in enumerate(accuracies)]
        assert said(alarms, metrics) == []


def test_restored_alarms_say_what_unbroken_ones_say():
    unbroken, resumed = Alarms(), Alarms()
    said(unbroken, steps(12, length=10) + steps(1, skipped=1.0, **{"eval/accuracy": 0.5}))
    said(resumed, steps(7, length=500))  # whatever it saw before is forgotten
    resumed.restore(json.loads(json.dumps(unbroken.state())))
    later = steps(10, length=50) + steps(1, skipped=1.0)
    assert said(resumed, later) == said(unbroken, later) != []
    assert resumed.state() == unbroken.state()


def test_repeats_are_counted_over_four_ids_in_a_row():
    assert repeated_share([1, 2, 3]) == 0.0  # no four in a row
    assert repeated_share([1, 2, 3, 4]) == 0.0
    assert repeated_share([1, 2] * 4) == 1 - 2 / 5
    assert repeated_share([1, 1, 1, 1], n=1) == 0.75


@pytest.mark.parametrize("length", [math.nan, math.inf, -math.inf])
def test_no_step_on_what_is_no_number_and_it_is_not_remembered(length):
    guard = SpikeGuard(1.0)
    assert not guard.admits(length) and guard.lengths == []


def test_a_spike_is_twenty_times_the_median_once_ten_are_known():
    guard = SpikeGuard(1.0)
    assert all(guard.admits(length) for length in (2.0,) * 9 + (1000.0,))  # too few known to call it a spike
    assert guard.admits(40.0) and not guard.admits(40.1)


def test_a_gradient_that_grew_for_good_becomes_the_rule():
    guard = SpikeGuard(1.0, [2.0] * 50)
    verdicts = [guard.admits(100.0) for _ in range(50)]
    assert verdicts == [False] * 25 + [True] * 25


def test_steps_of_nearly_nothing_do_not_make_spikes_of_all_others():
    """While every group agrees only the KL term pulls, and at the reference not even that: lengths of 0."""
    guard = SpikeGuard(1.0, [0.0] * 50)
    assert guard.admits(1.0) and guard.admits(20.0) and not guard.admits(20.1)


def test_only_the_last_fifty_lengths_are_kept():
    guard = SpikeGuard(1.0)
    for length in range(80):
        guard.admits(float(length))
    assert guard.lengths == [float(length) for length in range(30, 80)]
