"""Scaled rotations, by numbers one can work out on paper."""

import math

import numpy as np
import pytest
import torch

from smallpress.model.config import DynamicNTK, FixedNTK, Linear, Llama3, Yarn
from smallpress.model.frequencies import frequencies, ntk_theta, rope_gain, yarn_range
from smallpress.model.rope import rope_tables, rotate

V3 = Yarn(factor=40, original_max_seq_len=4096, mscale=1.0, mscale_all_dim=1.0)


def test_linear_divides_and_a_fixed_ntk_moves_the_base():
    assert frequencies(4, 100.0).tolist() == [1.0, 0.1]
    assert frequencies(4, 100.0, Linear(factor=4)).tolist() == [0.25, 0.025]
    # d / (d - 2) = 2: the base is 100 * 3^2
    assert frequencies(4, 100.0, FixedNTK(alpha=3)) == pytest.approx([1.0, 1 / 30])


def test_llama3_keeps_fast_turns_divides_slow_ones_and_mixes_between():
    """Original length 628, about 100 circles: a pair of frequency f makes 100 f turns in it, here 100, 2.5 and 0.06."""
    scaling = Llama3(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_seq_len=628)
    fast, middle, slow = frequencies(6, 64_000.0, scaling)
    plain = frequencies(6, 64_000.0)
    turns = 628 / (2 * math.pi) * plain
    assert turns[0] > 4 and 1 < turns[1] < 4 and turns[2] < 1
    assert (fast, slow) == pytest.approx((plain[0], plain[2] / 8))
    kept = (turns[1] - 1) / 3
    assert middle == pytest.approx(plain[1] * kept + plain[1] / 8 * (1 - kept))


def test_yarn_of_deepseek_v3_ramps_from_pair_10_to_pair_23():
    plain, scaled = frequencies(64, 1e4), frequencies(64, 1e4, V3)
    assert yarn_range(64, 1e4, V3) == (10, 23)
    assert scaled[:11] == pytest.approx(plain[:11]) and scaled[23:] == pytest.approx(plain[23:] / 40)
    assert scaled[14] == pytest.approx(plain[14] * (9 / 13 + 4 / 13 / 40))


def test_yarns_gain_is_one_where_both_mscales_are_equal():
    assert rope_gain(V3) == 1.0
    assert rope_gain(Yarn(factor=40, original_max_seq_len=4096)) == pytest.approx(1.36889, abs=1e-5)
    assert rope_gain(V3.model_copy(update={"attention_factor": 1.25})) == 1.25
    half = V3.model_copy(update={"mscale": 0.5})
    assert rope_gain(half) == pytest.approx((0.05 * math.log(40) + 1) / (0.1 * math.log(40) + 1))
    assert rope_gain(None) == 1.0 == rope_gain(Linear(factor=3))


def test_a_dynamic_base_grows_with_the_place_and_not_before_its_length_is_full():
    scaling = DynamicNTK(factor=2, original_max_seq_len=4)
    thetas = ntk_theta(np.array([1.0, 4.0, 6.0, 8.0]), 4, 100.0, scaling)
    assert thetas == pytest.approx([100, 100, 100 * 2**2, 100 * 3**2])  # factor n / original - factor + 1, squared


def test_a_token_turns_alike_whatever_comes_after_it():
    scaling = DynamicNTK(factor=2, original_max_seq_len=4)
    long, short = (rope_tables(torch.arange(n), 8, 100.0, torch.float32, scaling) for n in (9, 6))
    for whole, part in zip(long, short, strict=True):
        assert torch.equal(whole[:6], part)
    within = rope_tables(torch.arange(4), 8, 100.0, torch.float32)
    torch.testing.assert_close(long[0][:4], within[0])


def test_interleaved_pairs_come_out_as_halves():
    tables = rope_tables(torch.tensor([3]), 4, 100.0, torch.float32)
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    by_halves = rotate(x[..., [0, 2, 1, 3]], tables)
    assert torch.equal(rotate(x, tables, interleaved=True), by_halves)
