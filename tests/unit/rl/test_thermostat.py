"""The temperature rises while the policy is too sure, falls while it is not, and stays within its bounds."""

import math

import pytest

from smallpress.rl.thermostat import FALL, RISE, Thermostat


def temperatures(entropies, target=0.2, lowest=1.0, highest=1.5):
    heat, found = Thermostat(lowest, highest, target), []
    for entropy in entropies:
        heat.observe(entropy)
        found.append(heat.temperature)
    return found


def test_it_rises_below_the_target_and_falls_at_or_above_it():
    wanted = [RISE, RISE**2, RISE**2 / FALL, RISE**2 / FALL**2]
    assert temperatures([0.1, 0.0, 0.2, 0.9]) == pytest.approx(wanted)


def test_it_stays_within_its_bounds():
    assert temperatures([0.9] * 3) == [1.0] * 3
    assert temperatures([0.0] * 40)[-1] == 1.5


def test_without_a_target_it_never_moves():
    assert temperatures([0.0, 5.0, 0.0], target=0.0) == [1.0] * 3


def test_an_entropy_that_is_no_number_does_not_make_the_temperature_one():
    assert all(math.isfinite(temperature) for temperature in temperatures([0.1, math.nan, 0.1]))
