"""How far to draft, and what: on paper."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from smallpress.engine.drafts import ROWS, Pace, PromptLookup
from smallpress.engine.engine import Engine
from smallpress.engine.request import Request, SamplingParams


def test_the_pace_follows_what_was_right():
    pace = Pace()
    assert pace.length(1) == 2  # 1/2 and 1/4 are above a fifth, 1/8 is not
    pace.judge(3, 1)  # of three one right, one wrong, one not judged
    assert pace.chance == pytest.approx((0.5 + 0.5 / 8) * 7 / 8)
    for _ in range(100):
        pace.judge(3, 3)
    assert pace.length(1) == pace.length(ROWS - 1) == ROWS


def test_a_pace_that_does_not_pay_tries_one_id_now_and_then():
    pace = Pace()
    for _ in range(7):  # 1/2 * (7/8)^7 = 0.196 is the first below a fifth
        assert pace.length(1) > 0
        pace.judge(1, 0)
    assert [pace.length(1) for _ in range(32)] == ([0] * 15 + [1]) * 2
    pace.judge(1, 1)  # 0.196 * 7/8 + 1/8 = 0.297 pays again
    assert pace.length(1) == 1


def test_the_more_run_the_surer_an_id_must_be():
    pace = Pace()
    # Two rows give 2 ids in 1.2 of a step, so a fifth of a step must give 0.33 more; of three rows 0.43, of four 0.5.
    assert [pace.length(n_rows) for n_rows in (2, 3, 4, 15)] == [1, 1, 0, 0]
    pace.chance = 0.9
    # Of fifteen rows 0.79, which is between 0.9^2 and 0.9^3.
    assert pace.length(15) == 2


def test_drafts_that_are_never_right_stop(make_engine: Callable[..., Engine]):
    class Wrong:
        def propose(self, ids: Sequence[int], k: int) -> list[int]:
            return [never] * k

    request = Request((1, 2, 3), SamplingParams(max_tokens=60, temperature=0.0))
    (expected,) = make_engine().generate([request])
    never = min(set(range(97)) - set(expected.ids))
    engine = make_engine(drafter=Wrong)
    assert engine.generate([request])[0].ids == expected.ids
    # Two ids, then one six times; of the 51 steps that are left and can draft every sixteenth tries one.
    assert (engine.stats().n_drafted, engine.stats().n_accepted) == (8 + 3, 0)


def naive(ids: list[int], k: int) -> list[int]:
    """What PromptLookup says, found by looking everywhere."""
    for n in (4, 3, 2):
        for start in range(len(ids) - 1, n - 1, -1):
            if len(ids) > n and ids[start - n : start] == ids[-n:]:
                text = list(ids)
                for i in range(k):
                    text.append(text[start + i])
                return text[len(ids) :]
    return []


def test_looking_up_finds_the_latest_of_the_longest_repetitions():
    ids = np.random.default_rng(0).integers(0, 3, 300).tolist()
    drafter, found = PromptLookup(), 0
    for n in (0, 1, 2, 3, 4, *range(5, 300, 3)):
        draft = drafter.propose(ids[:n], 6)
        assert draft == naive(ids[:n], 6) == PromptLookup().propose(ids[:n], 6), f"after {n} ids"
        found += len(draft) == 6
    assert found > 90
    assert PromptLookup().propose(list(range(50)), 6) == []


def test_looking_up_costs_what_is_new_and_not_what_is_long():
    class Counting(list):
        n_read = 0

        def __getitem__(self, at):
            got = super().__getitem__(at)
            Counting.n_read += len(got) if isinstance(at, slice) else 1
            return got

    ids, drafter = Counting([1, 2, 3, 4, 5] * 1000), PromptLookup()
    drafter.propose(ids, 5)
    Counting.n_read = 0
    for id in (1, 2, 3, 4):
        ids.append(id)
        assert drafter.propose(ids, 5) == [(id + i) % 5 + 1 for i in range(5)]
    # For each new id the runs of 4, 3 and 2 before it, those at the end, and the five ids drafted.
    assert Counting.n_read == 4 * (9 + 9 + 5)
