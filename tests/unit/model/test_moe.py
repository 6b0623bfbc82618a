"""Experts: who is chosen, with what weight, and that grouping does not show."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from smallpress.model.config import Dense, MoE
from smallpress.model.moe import Router, SparseMLP, choose


def moe(**changes):
    sizes = {"n_routed_experts": 8, "n_active_experts": 2, "moe_inter_dim": 3, "n_groups": 4, "n_active_groups": 2}
    return MoE(**sizes | changes)


def test_the_best_groups_are_those_whose_two_best_experts_sum_highest():
    """Groups of two: sums 1.0, 1.1, 0.9 and 0.2. The best expert of all, 0.9, is in a group that is not chosen."""
    scores = torch.tensor([[0.4, 0.6, 0.5, 0.6, 0.9, 0.0, 0.1, 0.1]])
    assert choose(scores, moe()).tolist() in ([[1, 3]], [[3, 1]])
    assert choose(scores, moe(group_score="max", n_active_groups=1)).tolist() == [[4, 5]]
    assert sorted(choose(scores, moe(n_groups=1, n_active_groups=1))[0].tolist()) in ([1, 4], [3, 4])


def test_scores_below_zero_are_still_better_than_those_of_a_closed_group():
    """A bias may push every score of the open groups below zero; masked with 0 the closed ones would win."""
    scores = torch.tensor([[-0.1, -0.2, -0.3, -0.4, -5.0, -5.0, -5.0, -5.0]])
    assert sorted(choose(scores, moe(n_active_groups=1))[0].tolist()) == [0, 1]


def test_the_bias_decides_who_is_chosen_and_not_how_much_they_weigh():
    config = moe(n_routed_experts=3, n_groups=1, n_active_groups=1, score="sigmoid", expert_bias=True, routed_scale=2.5)
    router = Router(config, 1)
    with torch.no_grad():
        router.weight.copy_(torch.tensor([[0.0], [1.0], [2.0]]))
        router.expert_bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    weights, experts, _ = router(torch.tensor([[1.0]]))
    assert experts.tolist() == [[0, 2]]
    a, b = 0.5, 1 / (1 + torch.tensor(-2.0).exp())  # sigmoids of 0 and 2
    torch.testing.assert_close(weights, 2.5 * torch.stack([a / (a + b), b / (a + b)])[None])


def test_without_normalizing_softmax_weights_stay_what_they_are():
    router = Router(moe(n_routed_experts=2, n_active_experts=1, n_groups=1, n_active_groups=1, normalize=False), 1)
    with torch.no_grad():
        router.weight.copy_(torch.tensor([[0.0], [1.0]]))
    weights, experts, _ = router(torch.tensor([[torch.tensor(3.0).log()]]))  # odds 1 to 3
    assert experts.tolist() == [[1]] and weights.item() == pytest.approx(0.75)


def one_by_one(layer, x_NM):
    """The formula, token by token and expert by expert."""
    weights_NA, experts_NA, _ = layer.router(x_NM)
    rows = []
    for x, weights, experts in zip(x_NM, weights_NA, experts_NA, strict=True):
        row = layer.shared(x[None])[0]
        for weight, e in zip(weights, experts, strict=True):
            gate, up, down = (getattr(layer.experts, name)[e] for name in ("gate", "up", "down"))
            row = row + weight * (down @ (F.silu(gate @ x) * (up @ x)))
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_active_experts": 4},
        {"n_active_experts": 8, "n_active_groups": 4},
        {"n_routed_experts": 1, "n_active_experts": 1, "n_groups": 1, "n_active_groups": 1},
        {"n_routed_experts": 64, "n_groups": 8, "n_active_experts": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 5, 40])
def test_grouped_by_expert_is_one_by_one_in_value_and_gradient(changes, n):
    layer = SparseMLP(moe(n_shared_experts=2, score="sigmoid", routed_scale=1.5, **changes), 6).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x_NM = torch.randn(n, 6, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(n, 6, dtype=torch.float64)
    inputs = [x_NM, *layer.parameters()]
    grouped, plain = layer(x_NM), one_by_one(layer, x_NM)
    torch.testing.assert_close(grouped, plain)
    for ours, theirs in zip(
        torch.autograd.grad(grouped, inputs, cotangent), torch.autograd.grad(plain, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_token_gets_the_same_whoever_stands_beside_it_and_each_time():
    layer = SparseMLP(moe(), 6)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x_NM = torch.randn(30, 6)
    out = layer(x_NM)
    assert torch.equal(layer(x_NM), out)
    torch.testing.assert_close(layer(x_NM.flip(0)).flip(0), out)
    torch.testing.assert_close(layer(x_NM[7:8]), out[7:8])
    assert layer(x_NM[:0]).shape == (0, 6)


def test_the_router_scores_in_fp32_and_keeps_its_bias_so():
    layer = SparseMLP(moe(expert_bias=True), 6)
    torch.nn.init.normal_(layer.router.weight)
    with torch.no_grad():
        layer.router.expert_bias.fill_(1 + 2**-12)  # bf16 would make it 1
    layer = layer.bfloat16()
    assert layer.router.weight.dtype == torch.bfloat16
    assert layer.router.expert_bias.tolist() == [1 + 2**-12] * 8
    assert layer.router(torch.randn(2, 6).bfloat16())[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_groups": 3}, "8 experts do not make 3 equal groups"),
        ({"n_active_groups": 5}, "5 of 4 groups"),
        ({"n_active_experts": 5}, "5 experts cannot be chosen from 4"),
        ({"dense_layers": (0,)}, "go together"),
        ({"dense": Dense(inter_dim=4)}, "go together"),
        ({"score": "tanh"}, "softmax"),
    ],
)
def test_experts_that_contradict_themselves_are_refused(changes, says):
    with pytest.raises(ValidationError, match=says):
        moe(**changes)
