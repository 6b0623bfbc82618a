"""Latent attention: its two forms, its cache, its rotation."""

import pytest
import torch

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import GQA, MLA, Dense, ModelConfig
from smallpress.model.mla import LatentAttention
from smallpress.model.rope import rope_tables

REASSOCIATION = 1e-9
"""fp64, but for angles in fp32, which both forms share."""


def make(q_lora_rank=9, **changes):
    mla = MLA(n_heads=3, q_lora_rank=q_lora_rank, kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=5)
    sizes = {"vocab_size": 7, "dim": 10, "n_layers": 1, "norm_eps": 1e-5, "rope_theta": 1e4, "max_seq_len": 64}
    config = ModelConfig(family="deepseek_v3", attention=mla, ffn=Dense(inter_dim=4), **sizes | changes)
    torch.manual_seed(0)
    return LatentAttention(config, 0).double()


def causal(n):
    return PackedCausal(TokenTree((Group(n),)), torch.float64)


def rope(n):
    return rope_tables(torch.arange(n), 4, 1e4, torch.float64)


@pytest.mark.parametrize("q_lora_rank", [9, None])
@pytest.mark.parametrize("interleaved", [True, False])
def test_the_absorbed_form_is_the_plain_one_in_value_and_gradient(q_lora_rank, interleaved):
    attention = make(q_lora_rank, rope_interleaved=interleaved)
    x_NM = torch.randn(7, 10, dtype=torch.float64, requires_grad=True)
    cotangent, found = torch.randn(7, 10, dtype=torch.float64), []
    for attention.absorbs in (False, True):
        out = attention(x_NM, rope(7), causal(7))
        found.append((out, *torch.autograd.grad(out, [x_NM, *attention.parameters()], cotangent)))
    for plain, absorbed in zip(*found, strict=True):
        torch.testing.assert_close(absorbed, plain, atol=REASSOCIATION, rtol=REASSOCIATION)


def test_what_the_absorbed_form_keeps_is_the_normed_latent_and_one_rotated_key():
    attention = make()
    attention.absorbs = True
    kept = {}

    def attend(layer, q_NHX, k_N1X, v_N1X):
        assert q_NHX.shape == (3, 3, 12 + 4) and k_N1X is v_N1X
        kept["k"] = k_N1X
        return q_NHX

    x_NM = torch.randn(3, 10, dtype=torch.float64)
    attention(x_NM, rope(3), attend)
    latent = attention.kv_a(x_NM)[:, :12]
    normed = latent / (latent.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(kept["k"][:, 0, :12], normed, atol=1e-6, rtol=1e-6)  # the norm's mean is in fp32
    angles = torch.arange(3.0)
    first, second = attention.kv_a(x_NM)[:, 12], attention.kv_a(x_NM)[:, 14]  # halves: 0 turns with 2
    torch.testing.assert_close(kept["k"][:, 0, 12], first * angles.cos() - second * angles.sin(), atol=1e-6, rtol=1e-6)


def test_a_key_without_position_is_the_same_wherever_it_stands():
    """With the rotated part of the queries at zero, the order of what came before does not matter."""
    attention = make(q_lora_rank=None)
    with torch.no_grad():
        attention.q.weight.view(3, 10, 10)[:, 6:] = 0
    x_NM = torch.randn(5, 10, dtype=torch.float64)
    turned = x_NM[[2, 0, 3, 1, 4]]
    last, again = (attention(x, rope(5), causal(5))[-1] for x in (x_NM, turned))
    torch.testing.assert_close(last, again)


def test_the_cache_of_deepseek_v3_is_57_times_smaller_than_of_full_attention():
    mla = MLA(
        n_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    )
    full = GQA(n_heads=128, n_kv_heads=128, head_dim=128)
    assert mla.cache_shape == (1, 576) and full.cache_shape == (2, 16384)
    assert pytest.approx(56.9, abs=0.05) == 2 * 16384 / 576
