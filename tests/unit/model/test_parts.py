"""Norm, rotation, feed-forward and the config, by numbers one can work out on paper."""

import math

import pytest
import torch
from pydantic import ValidationError

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.mlp import GatedMLP
from smallpress.model.norm import RMSNorm
from smallpress.model.rope import rope_tables, rotate

BF16_RELATIVE = 2**-7  # one step of 8 bits of mantissa


def test_the_norm_divides_by_the_root_mean_square():
    norm = RMSNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    rms = math.sqrt((3**2 + 4**2) / 2)
    torch.testing.assert_close(norm(torch.tensor([[3.0, -4.0]])), torch.tensor([[3 / rms, -40 / rms]]))


def test_eps_keeps_a_row_of_zeros_at_zero_and_its_gradient_finite():
    x = torch.zeros(1, 4, requires_grad=True)
    out = RMSNorm(4, eps=1e-5)(x)
    out.sum().backward()
    assert out.abs().max() == 0 and x.grad.isfinite().all()


@pytest.mark.parametrize("n", [0, 1, 5])
def test_the_norms_gradient_is_that_of_its_formula(n):
    norm, x, cotangent = RMSNorm(6, eps=1e-2), torch.randn(n, 6, requires_grad=True), torch.randn(n, 6)
    with torch.no_grad():
        norm.weight.add_(torch.randn(6))
    formula = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
    found = torch.autograd.grad(norm(x), (x, norm.weight), cotangent)
    wanted = torch.autograd.grad(formula, (x, norm.weight), cotangent)
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_the_norms_gradient_in_bf16_is_that_of_fp32_within_its_rounding():
    norm, x = RMSNorm(64, eps=1e-5), torch.randn(8, 64)
    cotangent = torch.randn(8, 64).bfloat16()
    narrow = x.bfloat16().requires_grad_()
    wide = narrow.detach().float().requires_grad_()
    norm(wide).backward(cotangent.float())
    norm.bfloat16()(narrow).backward(cotangent)
    assert narrow.grad.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.grad.float(), wide.grad, rtol=BF16_RELATIVE, atol=BF16_RELATIVE)


def test_the_norm_of_bf16_takes_its_mean_in_fp32():
    """256 squares of 1/16 are 1; added in bf16 one by one they would stop growing at half of that."""
    x = torch.full((1, 256), 1 / 16, dtype=torch.bfloat16)
    out = RMSNorm(256, eps=0.0).to(torch.bfloat16)(x)
    assert out.dtype == torch.bfloat16 and out.eq(1).all()


def test_rotation_turns_the_first_half_against_the_second():
    """Head dim 4, theta 100: pair (0, 2) turns by the position, pair (1, 3) by a tenth of it."""
    tables = rope_tables(torch.tensor([2]), head_dim=4, theta=100.0, dtype=torch.float32)
    x = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    expected = torch.tensor([[[math.cos(2), -math.sin(0.2), math.sin(2), math.cos(0.2)]]])
    torch.testing.assert_close(rotate(x, tables), expected)


def test_position_zero_turns_nothing():
    x = torch.randn(1, 3, 8)
    assert torch.equal(rotate(x, rope_tables(torch.zeros(1), 8, 10_000.0, torch.float32)), x)


def test_scores_depend_on_the_distance_only():
    q, k = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)

    def score(i, j):
        tables = rope_tables(torch.tensor([i, j]), 8, 100.0, torch.float64)
        turned = rotate(torch.stack((q, k))[:, None], tables)[:, 0]
        return float(turned[0] @ turned[1])

    assert score(5, 2) == pytest.approx(score(45, 42), abs=1e-5)  # the angles are fp32
    assert score(5, 2) == pytest.approx(score(3, 0), abs=1e-5)
    assert score(5, 2) != pytest.approx(score(2, 5), abs=1e-2)  # the sign of the distance counts


def test_rotation_keeps_lengths_and_its_gradient_is_that_of_finite_differences():
    tables = rope_tables(torch.arange(3) * 100, 4, 10_000.0, torch.float64)
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(rotate(x, tables).norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert torch.autograd.gradcheck(lambda x: rotate(x, tables), x)


def test_swiglu_gates_what_it_lets_up():
    mlp = GatedMLP(Dense(inter_dim=1), dim=2)
    with torch.no_grad():
        for linear, row in ((mlp.gate, [[1.0, 0.0]]), (mlp.up, [[0.0, 1.0]]), (mlp.down, [[2.0], [-1.0]])):
            linear.weight.copy_(torch.tensor(row))
    hidden = 3.0 / (1 + math.exp(-3.0)) * 5.0  # silu(3) * 5
    torch.testing.assert_close(mlp(torch.tensor([[3.0, 5.0]])), torch.tensor([[2 * hidden, -hidden]]))
    assert mlp.down.bias is None and GatedMLP(Dense(inter_dim=1, bias=True), dim=2).down.bias is not None


def test_swiglus_gradient_is_that_of_finite_differences():
    mlp = GatedMLP(Dense(inter_dim=5, bias=True), dim=3).double()
    assert torch.autograd.gradcheck(mlp, torch.randn(2, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_heads": 4, "n_kv_heads": 3, "head_dim": 8}, "n_heads=4 is not a multiple of n_kv_heads=3"),
        ({"n_heads": 4, "n_kv_heads": 2, "head_dim": 7}, "multiple of 2"),
        ({"n_heads": 0, "n_kv_heads": 2, "head_dim": 8}, "greater than 0"),
        ({"n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "bias": True}, "Extra inputs"),
    ],
)
def test_a_config_cannot_contradict_itself(wrong, says):
    with pytest.raises(ValidationError, match=says):
        GQA(**wrong)


def test_a_config_survives_json(tiny_model):
    config = tiny_model(biases="qk").config
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
