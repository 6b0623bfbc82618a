"""Changed logits, and the likeliest tokens beside the one drawn."""

from dataclasses import replace

import numpy as np
import pytest

from smallpress.engine.adjust import changed_logits, draw, likeliest, log_softmax
from smallpress.engine.request import Request, SamplingParams
from smallpress.run.errors import UserError

GREEDY = SamplingParams(max_tokens=6, temperature=0.0)


def test_bias_and_penalties_add_up():
    params = SamplingParams(logit_bias=((0, 2.0), (9, 1.0)), presence_penalty=0.5, frequency_penalty=0.25)
    changed = changed_logits(np.zeros(4, np.float32), params, [1, 1, 3])
    assert changed.tolist() == [2.0, -1.0, 0.0, -0.75]


def test_equal_logits_are_log_a_quarter_each():
    logprobs = log_softmax(np.zeros(4, np.float32), 0.5)
    assert np.allclose(logprobs, np.log(0.25))
    assert [id for id, _ in likeliest(logprobs, 3)] == [0, 1, 2]
    assert likeliest(logprobs, 0) == () and len(likeliest(logprobs, 20)) == 4


@pytest.mark.parametrize(
    ("params", "possible"),
    [
        (SamplingParams(top_k=2), {2, 3}),
        (SamplingParams(top_p=0.5), {3}),
        (SamplingParams(min_p=0.3), {2, 3}),
        (SamplingParams(temperature=0.0), {3}),
        (SamplingParams(), {0, 1, 2, 3}),
    ],
)
def test_the_filters_leave_what_they_say(params, possible):
    logits = np.log(np.array([0.05, 0.15, 0.2, 0.6], np.float32))
    assert {draw(logits, replace(params, seed=seed), 0) for seed in range(200)} == possible


def test_a_drawn_row_equals_the_runners_own_draw(make_engine, prompt):
    """A bias of zero goes the long way and must change nothing."""
    for params in (SamplingParams(max_tokens=8, seed=5), SamplingParams(max_tokens=8, seed=6, top_p=0.8, top_k=20)):
        plain = make_engine().generate([prompt(9)], params)[0]
        biased = make_engine().generate([prompt(9)], replace(params, logit_bias=((0, 0.0),)))[0]
        assert plain.ids == biased.ids
        assert np.allclose(plain.logprobs, biased.logprobs, atol=1e-4)


def test_a_bias_forces_and_a_penalty_forbids_repetition(make_engine, prompt):
    forced = make_engine().generate([prompt(5)], replace(GREEDY, logit_bias=((7, 100.0),)))[0]
    assert forced.ids == (7,) * 6
    both = replace(GREEDY, logit_bias=((7, 40.0), (8, 39.5)), presence_penalty=2.0)
    assert set(make_engine().generate([prompt(5)], both)[0].ids[:2]) == {7, 8}


def test_pieces_name_the_likeliest_tokens_and_the_greedy_one_is_first(make_engine, prompt):
    engine = make_engine()
    engine.submit(Request(prompt(5), replace(GREEDY, n_top=3)))
    engine.submit(Request(prompt(6), GREEDY))
    pieces = [piece for _ in range(6) for piece in engine.step()]
    asked, plain = ([piece for piece in pieces if piece.request_id == id] for id in (0, 1))
    assert all(len(piece.top) == 3 and piece.top[0] == (piece.id, piece.logprob) for piece in asked)
    assert all(piece.top == () for piece in plain)


@pytest.mark.parametrize(
    "wrong",
    [{"logit_bias": ((-1, 1.0),)}, {"logit_bias": ((1, 101.0),)}, {"presence_penalty": 2.1}, {"n_top": 21},
     {"frequency_penalty": float("nan")}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        SamplingParams(**wrong)
