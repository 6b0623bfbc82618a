"""A linear layer in 8 bits beside torch's: its three products, its gradients, and a model that computes so."""

import copy

import pytest
import torch

from smallpress.lowbit.linear8 import Arithmetic, linear8, set_backward, use
from smallpress.lowbit.native_core import native_core
from smallpress.lowbit.product8 import native_int8, simulated
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.token_logprobs import token_logprobs
from smallpress.optim.master import MasterWeights

PRODUCTS = [simulated("int8"), simulated("fp8")] + ([native_int8()] if native_core() else [])


def gradients(function, x, weight, bias):
    given = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
    y = function(*given)
    (y * torch.linspace(-1, 1, y.shape[-1])).square().sum().backward()
    return [y.detach(), *(t.grad for t in given if t is not None)]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 96), (2, 20, 96)])
def test_in_high_precision_it_is_torchs_linear(shape, with_bias):
    x, weight, bias = torch.randn(shape), torch.randn(50, 96), torch.randn(50) if with_bias else None
    ours = gradients(lambda x, w, b: linear8(x, w, b, Arithmetic()), x, weight, bias)
    theirs = gradients(torch.nn.functional.linear, x, weight, bias)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("product", PRODUCTS)
def test_in_8_bits_output_and_gradients_are_within_few_percent(product):
    x, weight, bias = torch.randn(200, 300), torch.randn(150, 300), torch.randn(150)
    ours = gradients(lambda x, w, b: linear8(x, w, b, Arithmetic.all_in(product)), x, weight, bias)
    theirs = gradients(torch.nn.functional.linear, x, weight, bias)
    for found, wanted in zip(ours, theirs, strict=True):
        assert (found - wanted).norm() < 0.06 * wanted.norm()


def test_each_product_is_the_one_given_for_it():
    """x [N, M], weight [O, M]: y = x w^T, dx = dy w, dw = dy^T x; blocks where a weight is a factor."""
    seen = []

    def noted(left, right, in_blocks):
        seen.append((tuple(left.shape), tuple(right.shape), in_blocks))
        return left @ right.T

    x, weight = torch.randn(4, 3), torch.randn(2, 3)
    gradients(lambda x, w, _: linear8(x, w, None, Arithmetic.all_in(noted)), x, weight, None)
    assert seen == [((4, 3), (2, 3), True), ((4, 2), (3, 2), True), ((2, 4), (3, 4), False)]


def test_what_needs_no_gradient_is_not_computed():
    def never(*_):
        raise AssertionError

    weight = torch.randn(5, 3, requires_grad=True)
    linear8(torch.randn(4, 3), weight, None, Arithmetic(input_gradient=never)).sum().backward()
    x = torch.randn(4, 3, requires_grad=True)
    linear8(x, weight.detach(), None, Arithmetic(weight_gradient=never)).sum().backward()
    assert weight.grad is not None and x.grad is not None


def loss_of(model):
    ids = torch.randint(0, 32, (33,), generator=torch.Generator().manual_seed(0))
    tree = TokenTree((Group(32),))
    hidden = model(ids[:-1], tree.positions(), PackedCausal(tree, model.head_weight.dtype))
    return -token_logprobs(hidden, model.head_weight, ids[1:])[0].mean()


@pytest.mark.parametrize("biases", ["", "qkvo"])
def test_a_model_told_so_computes_all_linear_layers_of_its_blocks_in_8_bits(tiny_model, biases):
    model, plain = tiny_model(biases=biases, tied_head=False), tiny_model(biases=biases, tied_head=False)
    calls = []

    def noted(left, right, in_blocks):
        calls.append(in_blocks)
        return simulated("int8")(left, right, in_blocks)

    changed = use(Arithmetic.all_in(noted), model.layers)
    assert len(changed) == 2 * 7 and "0.attn.q" in changed and "1.mlp.down" in changed
    ours, theirs = loss_of(model), loss_of(plain)
    assert len(calls) == 14, "one product each"
    ours.backward()
    theirs.backward()
    assert len(calls) == 3 * 14
    assert 0 < abs(ours - theirs) < 0.02 * theirs
    assert model.state_dict().keys() == plain.state_dict().keys()
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad - q.grad).norm() < 0.15 * q.grad.norm() + 1e-4, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tiny_model_learns_in_8_bits_what_it_learns_without(tiny_model, dtype):
    """Ten steps on one sequence, fp32 weights behind both."""
    first, losses = loss_of(tiny_model()).item(), []
    for arithmetic in (Arithmetic(), Arithmetic.all_in(simulated("int8"))):
        weights = MasterWeights(tiny_model(), dtype)
        use(arithmetic, weights.model.layers)
        for _ in range(10):
            loss = loss_of(weights.model)
            loss.backward()
            weights.step(lr=3e-3, max_norm=1.0)
        losses.append(loss.item())
    assert losses[0] < first / 2 and losses[1] == pytest.approx(losses[0], rel=0.05)


def test_with_gradients_alone_in_8_bits_the_model_says_what_it_said(tiny_model):
    model, plain = tiny_model(), tiny_model()
    set_backward("int8", model.layers)
    set_backward("same", plain.layers)
    ours, theirs = loss_of(model), loss_of(plain)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    ours.backward()
    theirs.backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad - q.grad).norm() < 0.05 * q.grad.norm() + 1e-5, name
    rounded = model.layers[0].mlp.up.weight.grad
    assert not torch.equal(rounded, plain.layers[0].mlp.up.weight.grad)


def test_a_copy_of_such_a_model_moves_alone(tiny_model):
    model = tiny_model()
    use(Arithmetic.all_in(simulated("int8")), model.layers)
    twin = copy.deepcopy(model)
    before = loss_of(model).item()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert loss_of(model).item() == before != loss_of(twin).item()


def test_routers_stay_in_high_precision():
    layers = torch.nn.ModuleDict({"router": torch.nn.Linear(4, 4), "up": torch.nn.Linear(4, 4)})
    assert use(Arithmetic.all_in(simulated("int8")), layers) == ["up"]
