"""Adapters begin as nothing, are the only parameters, and equal the merged weight; low-bit codes stand in for W."""

import numpy as np
import pytest
import torch

from smallpress.lowbit.blocks import FORMATS, dequantize
from smallpress.lowbit.encode import q4_0, q8_0
from smallpress.lowbit.frozen import NF4, FrozenMatrix, FrozenProduct
from smallpress.model.attention import Group, TokenTree
from smallpress.model.hidden_rows import hidden_rows
from smallpress.model.low_rank import LowRankLinear, adapt, adapter_scale, without_adapters
from smallpress.run.errors import UserError

FP32_REASSOCIATION = 2e-5
IDS = torch.tensor([1, 5, 9, 2, 7])


def hidden(model):
    return hidden_rows(model, TokenTree((Group(5),)), IDS, torch.arange(5))


def test_a_fresh_adapter_changes_nothing_and_is_all_there_is_to_train(tiny_model):
    plain, adapted = tiny_model(biases="qkv"), tiny_model(biases="qkv")
    layers = adapt(adapted, ("q", "down"), rank=2, scale=4.0)
    assert layers == [f"layers.{n}.{name}" for n in (0, 1) for name in ("attn.q", "mlp.down")]
    assert {name for name, _ in adapted.named_parameters()} == {f"{layer}.{part}" for layer in layers for part in "ab"}
    torch.testing.assert_close(hidden(adapted), hidden(plain), atol=FP32_REASSOCIATION, rtol=0)


def test_an_adapter_is_the_merged_weight_and_so_is_its_gradient(tiny_model):
    """dL/dB = scale (dL/dW) A^T and dL/dA = scale B^T (dL/dW)."""
    adapted, merged = tiny_model(), tiny_model()
    layers = adapt(adapted, ("q", "k", "v", "o", "gate", "up", "down"), rank=3, scale=adapter_scale(3, 6.0, False))
    generator = torch.Generator().manual_seed(5)
    for name in layers:
        layer = adapted.get_submodule(name)
        with torch.no_grad():
            layer.b.normal_(0.0, 0.1, generator=generator)
            merged.get_submodule(name).weight += layer.scale * layer.b @ layer.a
    torch.testing.assert_close(hidden(adapted), hidden(merged), atol=1e-4, rtol=1e-4)
    for model in (adapted, merged):
        hidden(model).square().sum().backward()
    for name in layers:
        layer, grad = adapted.get_submodule(name), merged.get_submodule(name).weight.grad
        torch.testing.assert_close(layer.b.grad, layer.scale * grad @ layer.a.T, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(layer.a.grad, layer.scale * layer.b.T @ grad, atol=1e-2, rtol=1e-3)
    with without_adapters(adapted):
        torch.testing.assert_close(hidden(adapted), hidden(tiny_model()), atol=FP32_REASSOCIATION, rtol=0)
    assert adapted.get_submodule(layers[0]).scale == 2.0


@pytest.mark.parametrize(("format", "encode", "number"), [("q8_0", q8_0, 8), ("q4_0", q4_0, 2)])
def test_the_numbers_of_our_formats_are_those_of_a_gguf(format, encode, number):
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    raw = encode(weight.numpy().reshape(-1, 32))
    theirs = dequantize(FORMATS[number], np.ascontiguousarray(raw).reshape(-1)).reshape(6, 64)
    assert np.array_equal(FrozenMatrix(weight, format, "w").matrix(torch.float32).numpy(), theirs)


def test_nf4_takes_the_nearest_level_of_each_block():
    levels = torch.tensor(NF4)
    block = torch.cat((levels, levels * 0.5, torch.zeros(16), torch.full((16,), 0.9)))  # largest: 1
    matrix = FrozenMatrix(torch.stack((block, block * 4)), "nf4", "w")
    found = matrix.matrix(torch.float32)
    nearest = levels[(block[:, None] - levels).abs().argmin(1)]
    assert torch.equal(found, torch.stack((nearest, nearest * 4))) and matrix.nbytes() == 2 * (32 + 2)
    assert FrozenMatrix(torch.zeros(1, 64), "nf4", "w").matrix(torch.bfloat16).count_nonzero() == 0


def test_a_product_with_frozen_codes_has_the_gradient_of_the_numbers_they_stand_for():
    matrix = FrozenMatrix(torch.randn(6, 64, generator=torch.Generator().manual_seed(0)), "nf4", "w")
    x = torch.randn(3, 64, requires_grad=True)
    y = FrozenProduct.apply(x, matrix)
    numbers = matrix.matrix(torch.float32)
    assert torch.equal(y, x @ numbers.T)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones(3, 6) @ numbers)


def test_what_cannot_be_frozen_is_named(tiny_model):
    with pytest.raises(UserError, match=r"layers\.0\.attn\.q has rows of 32, and nf4 has blocks of 64"):
        adapt(tiny_model(), ("q",), 2, 1.0, "nf4")
    with pytest.raises(UserError, match="w holds a number that is not finite"):
        FrozenMatrix(torch.full((1, 32), torch.nan), "q8_0", "w")


def test_an_adapted_layer_in_codes_has_no_other_weight():
    linear = torch.nn.Linear(64, 8)
    layer = LowRankLinear(linear, 2, 1.0, "q8_0", "w", torch.Generator())
    assert [name for name, _ in layer.named_parameters()] == ["a", "b"] and layer.weight is None
    torch.testing.assert_close(layer(torch.ones(1, 64)), linear(torch.ones(1, 64)), atol=0.05, rtol=0.05)
