import math

import numpy as np
import pytest

from smallpress.evaluate.intervals import (
    bootstrap_mean,
    majority,
    mean_share,
    paired_difference,
    pass_at_k,
    wilson,
)
from smallpress.tasks.answers import equal


def test_wilson_of_one_in_two_is_the_textbook_interval():
    # z = 1.96, n = 100, p = 0.5: centre 0.5, half = z sqrt(0.25/100 + z^2/40000) / (1 + z^2/100) = 0.0962
    estimate = wilson(50, 100)
    assert (estimate.low, estimate.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_wilson_of_no_success_has_a_width():
    # low = 0, high = z^2 / (n + z^2) = 3.8415 / 13.8415
    estimate = wilson(0, 10)
    assert estimate.low == 0.0
    assert estimate.high == pytest.approx(3.8415 / 13.8415, abs=1e-4)


def test_wilson_of_all_right_mirrors_wilson_of_none():
    none, all_right = wilson(0, 7), wilson(7, 7)
    assert all_right.high == 1.0
    assert all_right.low == pytest.approx(1 - none.high)


def test_wilson_never_leaves_the_unit_interval_or_its_own_value():
    for n in range(1, 60):
        for right in range(n + 1):
            estimate = wilson(right, n)
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_bootstrap_of_equal_values_does_not_claim_certainty():
    estimate = bootstrap_mean([0.5] * 20, seed=0)
    unseen = 3.8415 / 23.8415
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - unseen / 2, 0.5 + unseen / 2), abs=1e-4)


def test_bootstrap_is_the_same_for_the_same_seed_and_near_the_normal_interval_for_many_questions():
    shares = [0.25, 0.75] * 200  # sd 0.25, n 400: standard error 0.0125
    estimate = bootstrap_mean(shares, seed=3)
    assert estimate == bootstrap_mean(shares, seed=3)
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - 0.0245, 0.5 + 0.0245), abs=0.0015)


def test_bootstrap_leans_toward_the_long_tail():
    estimate = bootstrap_mean([0.0] * 45 + [1.0] * 5, seed=0)
    assert estimate.high - estimate.value > estimate.value - estimate.low


def test_order_of_questions_does_not_matter():
    shares = [0.0, 0.25, 0.5, 1.0, 0.0, 0.75]
    assert bootstrap_mean(shares, seed=1) == bootstrap_mean(shares[::-1], seed=1)


def test_right_or_wrong_questions_take_wilson_and_shares_the_bootstrap():
    assert mean_share([1.0, 0.0], seed=0) == wilson(1, 2)
    assert mean_share([1.0, 0.5], seed=0) == bootstrap_mean([1.0, 0.5], seed=0)


def test_pairing_sees_a_gain_that_separate_intervals_hide():
    before = [1.0] * 50 + [0.0] * 50
    after = [1.0] * 60 + [0.0] * 40  # ten more right, none lost
    assert wilson(50, 100).high > wilson(60, 100).low
    gain = paired_difference(before, after, seed=0)
    assert gain.value == pytest.approx(0.1)
    assert gain.low > 0


def test_no_change_on_few_questions_leaves_room_for_change_both_ways():
    same = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], seed=0)
    assert same.value == 0.0
    assert same.low == -same.high < -0.5


def test_before_and_after_swapped_turn_the_sign():
    before, after = [0.0, 0.5, 1.0, 0.0, 0.25], [1.0, 0.5, 1.0, 0.75, 0.0]
    there, back = paired_difference(before, after, seed=0), paired_difference(after, before, seed=0)
    assert there.value == -back.value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.03)


@pytest.mark.parametrize(
    ("n", "right", "k", "expected"), [(4, 1, 1, 0.25), (4, 1, 2, 0.5), (4, 2, 2, 5 / 6), (4, 3, 2, 1.0)]
)
def test_pass_at_k_counts_the_draws_that_hold_a_right_one(n, right, k, expected):
    # 4 samples, 2 right, draw 2: C(2, 2) = 1 of C(4, 2) = 6 draws holds none
    assert pass_at_k(n, right, k) == pytest.approx(expected)


def test_pass_at_k_is_exact_for_many_samples():
    assert pass_at_k(1000, 1, 500) == 0.5
    assert pass_at_k(64, 0, 64) == 0.0


def test_majority_counts_equal_numbers_as_one_answer():
    assert majority(["7", "72", "72.0", None], same=equal) == 1


def test_majority_ties_go_to_the_first_given_and_silence_never_wins():
    assert majority(["3", "4", "4", "3"], same=equal) == 0
    assert majority([None, None, "5"], same=equal) == 2
    assert majority([None, None], same=equal) is None


def test_intervals_cover_the_truth_about_as_often_as_they_promise():
    rng = np.random.default_rng(0)
    n_trials, covered = 250, {"shares": 0, "yes or no": 0, "pairs": 0}
    for trial in range(n_trials):
        chance = rng.beta(0.5, 0.5, size=60)  # difficulties of 60 questions, mean 0.5
        shares = rng.binomial(4, chance) / 4
        estimate = bootstrap_mean(shares.tolist(), seed=trial, n_resamples=400)
        covered["shares"] += estimate.low <= 0.5 <= estimate.high
        estimate = mean_share((rng.random(60) < chance).astype(float).tolist(), seed=trial)
        covered["yes or no"] += estimate.low <= 0.5 <= estimate.high
        gains = 0.25 * (rng.random(60) < 0.3)  # three in ten of the questions gain one sample of four: 0.075
        difference = bootstrap_mean(gains.tolist(), seed=trial, bounds=(-1, 1), n_resamples=400)
        covered["pairs"] += difference.low <= 0.075 <= difference.high
    # 0.95 over 250 trials has a standard deviation of 0.014; the allowance below is for small samples
    for name, count in covered.items():
        assert 0.91 <= count / n_trials <= 0.99, f"{name}: {count / n_trials}"


def test_wilson_agrees_with_its_equation():
    # the bounds solve (p - q)^2 = z^2 q (1 - q) / n
    estimate = wilson(3, 11)
    for q in (estimate.low, estimate.high):
        assert math.isclose((3 / 11 - q) ** 2, 1.959964**2 * q * (1 - q) / 11, rel_tol=1e-5)
