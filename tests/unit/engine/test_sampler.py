import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from smallpress.engine.request import SamplingParams
from smallpress.engine.sampler import BLOCK, FIRST_SORTED, sample
from smallpress.run.errors import UserError

PLAIN = SamplingParams()


def draws(probs: list[float], n: int, params: SamplingParams = PLAIN) -> list[int]:
    """n draws from one distribution: one row, one seed, n indices."""
    logits = torch.tensor(probs).log().expand(n, -1)
    return sample(logits, [params] * n, range(n))[0]


def counts(ids: list[int], n_words: int) -> list[int]:
    return torch.bincount(torch.tensor(ids), minlength=n_words).tolist()


def test_draws_follow_the_distribution():
    """Chi-square with 9 degrees of freedom: above 27.9 once in a thousand."""
    probs = [0.28, 0.2, 0.16, 0.12, 0.08, 0.06, 0.04, 0.03, 0.02, 0.01]
    n = 20_000
    seen = counts(draws(probs, n), 10)
    assert sum((k - n * p) ** 2 / (n * p) for k, p in zip(seen, probs, strict=True)) < 27.9


@pytest.mark.parametrize("n_words", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 37])
def test_draws_are_uniform_over_words_that_are_equally_likely_whatever_the_block_they_fall_in(n_words: int):
    n = 4000
    logits = torch.full((n, n_words), -3.0)
    ids, logprobs = sample(logits, [PLAIN] * n, range(n))
    assert min(ids) >= 0 and max(ids) < n_words
    # The mean of n uniform draws from 0..V-1 is within 5 standard errors of the middle.
    assert abs(sum(ids) / n - (n_words - 1) / 2) <= 5 * n_words / math.sqrt(12 * n)
    assert logprobs == pytest.approx([-math.log(n_words)] * n, abs=1e-6)


def test_the_draw_is_the_inverse_of_the_cumulative_distribution(monkeypatch: pytest.MonkeyPatch):
    targets = [0.0, 0.0999, 0.1001, 0.2999, 0.3001, 0.9999999]
    monkeypatch.setattr("smallpress.engine.sampler.uniforms", lambda *_: np.array(targets))
    logits = torch.tensor([0.1, 0.2, 0.0, 0.7]).log().expand(6, -1)
    assert sample(logits, [PLAIN] * 6, range(6))[0] == [0, 0, 1, 1, 3, 3]


def test_a_forbidden_word_is_never_drawn_not_even_at_the_ends(monkeypatch: pytest.MonkeyPatch):
    for target, expected in ((0.0, 1), (1 - 2.0**-53, 400)):
        monkeypatch.setattr("smallpress.engine.sampler.uniforms", lambda *_, t=target: np.array([t]))
        logits = torch.full((1, 700), -torch.inf)
        logits[0, [1, 400]] = 0.0
        assert sample(logits, [PLAIN], [0]) == ([expected], pytest.approx([math.log(0.5)]))


def test_logprobs_are_of_the_softmax_at_the_temperature_and_at_1_when_greedy():
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)) * 3
    params = [replace(PLAIN, temperature=t) for t in (0.0, 0.5, 2.0)]
    ids, logprobs = sample(logits, params, [0, 1, 2])
    assert ids[0] == logits[0].argmax()
    for row, t in enumerate((1.0, 0.5, 2.0)):
        assert logprobs[row] == pytest.approx((logits[row] / t).log_softmax(-1)[ids[row]].item(), abs=2e-6)


def test_top_k_keeps_the_k_likeliest_and_does_not_change_logprobs():
    ids, logprobs = sample(
        torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log().expand(500, -1), [replace(PLAIN, top_k=2)] * 500, range(500)
    )
    seen = counts(ids, 4)
    assert seen[0] == seen[2] == 0
    assert abs(seen[1] / 500 - 4 / 7) < 0.1
    assert {round(math.exp(lp), 4) for lp in logprobs} == {0.4, 0.3}


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    for top_p, expected in ((0.39, {1}), (0.41, {1, 3}), (0.69, {1, 3}), (0.71, {1, 2, 3}), (0.95, {0, 1, 2, 3})):
        assert set(draws([0.1, 0.4, 0.2, 0.3], 300, replace(PLAIN, top_p=top_p))) == expected


def test_top_p_is_measured_within_what_top_k_keeps():
    # Of the two kept, 0.4 is 57 %.
    assert set(draws([0.1, 0.4, 0.2, 0.3], 300, replace(PLAIN, top_k=2, top_p=0.5))) == {1}
    assert set(draws([0.1, 0.4, 0.2, 0.3], 300, replace(PLAIN, top_k=2, top_p=0.6))) == {1, 3}


def test_min_p_is_relative_to_the_likeliest():
    assert set(draws([0.1, 0.4, 0.2, 0.3], 300, replace(PLAIN, min_p=0.49))) == {1, 2, 3}
    assert set(draws([0.1, 0.4, 0.2, 0.3], 300, replace(PLAIN, min_p=0.51))) == {1, 3}


def test_top_p_over_a_flat_distribution_wider_than_what_is_sorted_first():
    n_words = 4 * FIRST_SORTED
    logits = torch.linspace(0.0, 0.1, n_words).expand(400, -1)
    ids, _ = sample(logits, [replace(PLAIN, top_p=0.5)] * 400, range(400))
    assert min(ids) > 0.45 * n_words and min(ids) < 0.6 * n_words


def test_filters_at_their_widest_change_nothing():
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    wide = replace(PLAIN, top_k=300, top_p=1.0, min_p=1e-30)
    assert sample(logits, [wide] * 50, range(50)) == sample(logits, [PLAIN] * 50, range(50))


def test_rows_with_different_params_in_one_call_equal_the_rows_alone():
    kinds = [PLAIN, replace(PLAIN, temperature=0.0), replace(PLAIN, top_k=3, seed=4), replace(PLAIN, temperature=0.3)]
    kinds += [replace(PLAIN, top_p=0.4, temperature=1.7), replace(PLAIN, min_p=0.3), replace(PLAIN, top_k=1, seed=9)]
    params = kinds * 6  # more rows than are done at once
    logits = torch.randn(len(params), 333, generator=torch.Generator().manual_seed(0)) * 2
    ids, logprobs = sample(logits, params, range(len(params)))
    for row, p in enumerate(params):
        one_id, one_logprob = sample(logits[row : row + 1], [p], [row])
        assert (one_id, one_logprob) == ([ids[row]], pytest.approx([logprobs[row]], abs=1e-6))


def test_bf16_logits_are_sampled_as_the_values_they_hold():
    logits = (torch.randn(20, 300, generator=torch.Generator().manual_seed(0)) * 4).bfloat16()
    assert sample(logits, [PLAIN] * 20, range(20)) == sample(logits.float(), [PLAIN] * 20, range(20))


def test_the_logits_are_left_as_they_were():
    logits = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    sample(logits, [replace(PLAIN, top_k=2, temperature=0.5)] * 2, [0, 0])
    assert torch.equal(logits, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [PLAIN, replace(PLAIN, temperature=0.0), replace(PLAIN, top_p=0.5)])
def test_logits_that_are_not_numbers_are_a_loud_error(bad: float, params: SamplingParams):
    logits = torch.zeros(3, 50)
    logits[1, 7] = bad
    with pytest.raises(UserError, match="row 1 of 3"):
        sample(logits, [params] * 3, [0] * 3)


def test_a_row_that_forbids_every_word_is_a_loud_error():
    with pytest.raises(UserError, match="row 0 of 1"):
        sample(torch.full((1, 50), -torch.inf), [PLAIN], [0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": 1e-9},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2.0},
        {"max_tokens": 0},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_parameters_out_of_range_are_named(wrong: dict[str, float]):
    with pytest.raises(UserError, match=next(iter(wrong))):
        SamplingParams(**wrong)
