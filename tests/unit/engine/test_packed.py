"""The fast forward pass against the plain one."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from smallpress.engine.packed import Linear, PackedLinear, PackedTransformer, can_pack
from smallpress.model.transformer import Transformer

BF16_ROUNDING = 2.0**-7
"""Relative: a product rounded to 8 bits twice."""


def packs() -> bool:
    return can_pack(torch.bfloat16, torch.device("cpu"))


def causal(_layer: int, q_NHD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q_NHD, k_NKD, v_NKD))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1).contiguous()


@torch.no_grad()
@pytest.mark.parametrize("shape", [{}, {"n_kv_heads": 9}, {"tied_head": False, "bias": True}])
def test_packed_equals_plain_in_fp32(build_model: Callable[..., Transformer], shape: dict[str, int | bool]):
    plain = build_model(**shape)
    fast = PackedTransformer(plain.config, torch.float32, dict(plain.named_parameters()))
    ids, positions = torch.arange(40) * 7 % 97, torch.arange(40)
    wanted = plain.logits(plain(ids, positions, causal))
    torch.testing.assert_close(fast.logits(fast(ids, positions, causal)), wanted, atol=5e-5, rtol=1e-5)


@torch.no_grad()
def test_packed_bf16_is_no_farther_from_fp32_than_the_plain_model_in_bf16(build_model: Callable[..., Transformer]):
    plain = build_model(tied_head=False, bias=True)
    fast = PackedTransformer(plain.config, torch.bfloat16, dict(plain.named_parameters()))
    ids, positions = torch.arange(90) * 7 % 97, torch.arange(90)
    truth = plain.logits(plain(ids, positions, causal))
    narrow = build_model(tied_head=False, bias=True).bfloat16()
    gap = (fast.logits(fast(ids, positions, causal)).float() - truth).square().mean().sqrt()
    plain_gap = (narrow.logits(narrow(ids, positions, causal)).float() - truth).square().mean().sqrt()
    assert 0 < gap < 1.1 * plain_gap


@pytest.mark.skipif(not packs(), reason="this processor or torch has no packed bf16 products")
@pytest.mark.parametrize("n_rows", [1, 3, 64, 130])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_packed_product_equals_the_plain_one(n_rows: int, with_bias: bool):
    generator = torch.Generator().manual_seed(0)
    x, weight, other = (
        torch.randn(n, m, generator=generator).bfloat16() for n, m in ((n_rows, 48), (80, 48), (n_rows, 80))
    )
    bias = torch.randn(80, generator=generator).bfloat16() if with_bias else None
    packed, plain = PackedLinear(weight, bias), Linear(weight, bias)
    for got, wanted in (
        (packed(x), plain(x)),
        (packed.silu(x), plain.silu(x)),
        (packed.times(x, other), plain.times(x, other)),
    ):
        torch.testing.assert_close(got, wanted, rtol=BF16_ROUNDING, atol=2e-2)
