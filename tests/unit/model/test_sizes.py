"""Sizes by formula, against published models."""

import math

import pytest

from smallpress.model.config import GQA, MLA, MTP, Dense, ModelConfig, MoE, Window
from smallpress.model.sizes import (
    Parameters,
    cache_bytes,
    forward_flops,
    multiply_adds,
    parameters,
    training_flops,
)

EXPERTS = {"score": "sigmoid", "expert_bias": True, "n_groups": 8, "n_active_groups": 4, "routed_scale": 2.5}
V3 = ModelConfig(
    family="deepseek_v3",
    vocab_size=129280,
    dim=7168,
    n_layers=61,
    attention=MLA(
        n_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    ),
    ffn=MoE(
        n_routed_experts=256,
        n_active_experts=8,
        n_shared_experts=1,
        moe_inter_dim=2048,
        dense_layers=(0, 1, 2),
        dense=Dense(inter_dim=18432),
        **EXPERTS,
    ),
    norm_eps=1e-6,
    rope_theta=1e4,
    max_seq_len=163840,
    mtp=MTP(n_modules=1),
)


def dense(vocab, dim, n_layers, heads, kv_heads, inter, **attention):
    return ModelConfig(
        family="llama",
        vocab_size=vocab,
        dim=dim,
        n_layers=n_layers,
        attention=GQA(n_heads=heads, n_kv_heads=kv_heads, head_dim=128, **attention),
        ffn=Dense(inter_dim=inter),
        norm_eps=1e-5,
        rope_theta=1e4,
        max_seq_len=4096,
    )


QKV = {"q_bias": True, "k_bias": True, "v_bias": True}
PUBLISHED = {
    "Llama 2 7B": (dense(32000, 4096, 32, 32, 32, 11008), 6_738_415_616),
    "Llama 3 8B": (dense(128256, 4096, 32, 32, 8, 14336), 8_030_261_248),
    "Llama 3 70B": (dense(128256, 8192, 80, 64, 8, 28672), 70_553_706_496),
    "Mistral 7B": (dense(32000, 4096, 32, 32, 8, 14336), 7_241_732_096),
    "Yi 34B": (dense(64000, 7168, 60, 56, 8, 20480), 34_388_917_248),
    "Qwen 72B": (dense(152064, 8192, 80, 64, 64, 24576, **QKV), 72_287_920_128),
    "Qwen2.5 7B": (dense(152064, 3584, 28, 28, 4, 18944, **QKV), 7_615_616_512),
    "DeepSeek LLM 7B": (dense(102400, 4096, 30, 32, 32, 11008), 6_910_365_696),
    "DeepSeek LLM 67B": (dense(102400, 8192, 95, 64, 8, 22016), 67_425_001_472),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_dense_models_are_as_large_as_published(name):
    config, total = PUBLISHED[name]
    found = parameters(config)
    assert found == Parameters(total, total - found.embedding, 0, config.vocab_size * config.dim)


def test_deepseek_v3_is_671_billion_parameters_of_which_a_token_meets_37():
    found = parameters(V3)
    assert round(found.total / 1e9, 3) == 671.026
    assert round(found.active / 1e9, 2) == 36.63
    assert round((found.active + found.embedding) / 1e9, 2) == 37.55
    assert round(found.mtp / 1e9, 2) == 11.61


def test_deepseek_v3_keeps_70272_bytes_a_token():
    assert cache_bytes(V3) == 70_272 == 61 * 576 * 2
    assert cache_bytes(V3, 10, bits=8) == 351_360
    assert cache_bytes(PUBLISHED["Llama 3 8B"][0]) == 32 * 2 * 8 * 128 * 2


def test_every_kind_of_model_is_the_sum_of_its_weights(odd_model):
    sizes = {name: p.numel() for name, p in odd_model.named_parameters()}
    mtp = sum(size for name, size in sizes.items() if name.startswith("mtp."))
    found = parameters(odd_model.config)
    assert (found.total, found.mtp) == (sum(sizes.values()) - mtp, mtp)


SMALL = ModelConfig(
    family="qwen3_moe",
    vocab_size=3,
    dim=2,
    n_layers=2,
    attention=GQA(n_heads=2, n_kv_heads=1, head_dim=4, window=Window(length=3, layers=(1,))),
    ffn=MoE(n_routed_experts=4, n_active_experts=1, moe_inter_dim=5),
    norm_eps=1e-5,
    rope_theta=1e4,
    max_seq_len=64,
)


def test_a_token_multiplies_its_experts_and_what_its_windows_show():
    """A layer: q and o 16 each, k and v 8 each, router 8, one expert 30; head 6. A key costs 2 heads * 4 twice."""
    matrices = 2 * (48 + 8 + 30) + 6
    assert multiply_adds(SMALL, 0) == matrices
    assert multiply_adds(SMALL, 10) == matrices + 16 * (10 + 3)
    # A prompt of 4 sees 1 + 2 + 3 + 4 in the first layer, 1 + 2 + 3 + 3 in the second.
    assert forward_flops(SMALL, 4) == 2 * (4 * matrices + 16 * (10 + 9))
    assert forward_flops(SMALL, 2, n_before=2) == 2 * (2 * matrices + 16 * (7 + 6))
    assert training_flops(SMALL, 4) == 3 * forward_flops(SMALL, 4)


def test_a_prompt_in_pieces_costs_what_it_costs_at_once():
    for config in (SMALL, V3):
        whole = forward_flops(config, 9)
        assert sum(forward_flops(config, n, before) for n, before in ((2, 0), (3, 2), (4, 5))) == pytest.approx(whole)


def test_absorbed_latents_cost_more_a_key_and_spare_the_keys_of_heads():
    per_key = multiply_adds(V3, 1) - multiply_adds(V3, 0), multiply_adds(V3, 1, absorbed=False) - multiply_adds(V3, 0)
    assert per_key == (61 * 128 * (576 + 512), 61 * 128 * (192 + 128))
    assert math.isclose(multiply_adds(V3, 0), parameters(V3).active, rel_tol=1e-4)  # norms and biases aside
