"""Learning-rate factors that can be read off a ruler."""

import pytest

from smallpress.optim.schedule import schedule


def test_warmup_rises_in_equal_steps_to_the_peak_and_its_first_step_already_moves():
    factor = schedule("constant", warmup=4, total=None)
    assert [factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_without_warmup_the_first_step_is_at_the_peak():
    assert schedule("linear", warmup=0, total=10)(0) == 1.0


def test_a_line_falls_by_equal_parts_to_the_floor_and_stays_there():
    factor = schedule("linear", warmup=0, total=4, floor=0.2)
    assert [factor(step) for step in (0, 1, 2, 3, 4, 5, 1000)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])


def test_a_cosine_is_halfway_at_half_time_and_never_rises():
    factor = schedule("cosine", warmup=3, total=103, floor=0.0)
    assert factor(53) == pytest.approx(0.5) and factor(103) == pytest.approx(0.0)
    values = [factor(step) for step in range(3, 120)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_run_shorter_than_its_warmup_is_all_warmup(shape):
    factor = schedule(shape, warmup=10, total=5)
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(11) == pytest.approx(0.1)


def test_only_a_constant_rate_needs_no_end():
    with pytest.raises(AssertionError, match="a cosine schedule needs the number of steps"):
        schedule("cosine", warmup=2, total=None)
