"""The floor, with numbers that can be worked out on paper."""

import pytest

from smallpress.evaluate.speed import Machine, Trial, most_tokens
from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.sizes import multiply_adds

CONFIG = ModelConfig(
    family="llama", vocab_size=100, dim=8, n_layers=2, attention=GQA(n_heads=2, n_kv_heads=1, head_dim=4),
    ffn=Dense(inter_dim=16), norm_eps=1e-5, rope_theta=1e4, max_seq_len=64, tied_head=True,
)  # fmt: skip
# A layer: q and o 8 x 8, k and v 4 x 8, three of 16 x 8: 576 in all. Two of them and the head of 100 x 8: 1952.


def test_a_token_is_multiplied_by_every_weight_once_and_by_what_it_attends_to():
    assert multiply_adds(CONFIG, 0) == 1952
    assert multiply_adds(CONFIG, 10) == 1952 + 2 * 10 * 2 * 8
    untied = CONFIG.model_copy(update={"tied_head": False})
    assert multiply_adds(untied, 0) == 1952


def test_one_sequence_waits_for_memory_and_many_for_arithmetic():
    machine = Machine(bandwidth=1e6, multiply_adds=1e8)
    # 2,000 bytes of weights take 2 ms. On average 10 tokens are cached: x (k and v) x 2 bytes x 2 layers x 4 numbers.
    assert most_tokens(machine, CONFIG, 2000, Trial("", 1, 9, 2)) == pytest.approx(1e6 / 2320)
    # 1,952 multiply-adds, and 320 for the keys and values of ten tokens.
    quick = Machine(bandwidth=1e9, multiply_adds=1e8)
    assert most_tokens(quick, CONFIG, 2000, Trial("", 1000, 9, 2)) == pytest.approx(1e8 / 2272)
    # A prompt of 1,000 attends to 500 of its own tokens on average, and reads the weights once.
    assert most_tokens(quick, CONFIG, 2000, Trial("", 1, 1000, 0)) == pytest.approx(1e8 / (1952 + 2 * 500 * 2 * 8))
