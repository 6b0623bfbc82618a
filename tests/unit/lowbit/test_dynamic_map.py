"""The map of 8-bit optimizers, by its published construction, and blocks of values in its codes."""

import pytest
import torch

from smallpress.lowbit.dynamic_map import QUANT_BLOCK, Codes, dequantize, dynamic_map, n_blocks, quantize

SIGNED = pytest.mark.parametrize("signed", [True, False])


@SIGNED
def test_the_map_has_256_different_values_in_order(signed):
    values = dynamic_map(signed)
    assert values.dtype == torch.float32 and values.shape == (256,)
    assert (values.diff() > 0).all()


def test_the_signed_map_reaches_one_but_not_minus_one():
    """The last decade has 64 cells over [0.1, 1]: the middle of the last is 1 - 0.9 / 128 = 0.99296875."""
    values = dynamic_map(signed=True).tolist()
    assert values[0] == pytest.approx(-0.99296875) and values[254] == pytest.approx(0.99296875)
    assert values[127] == 0.0 and values[255] == 1.0
    assert values[128] == pytest.approx(5.5e-7), "the only cell of the first decade"


def test_the_unsigned_map_has_twice_the_cells():
    """1 - 0.9 / 256 = 0.996484375; the first decade's two cells have the middles 3.25e-7 and 7.75e-7."""
    values = dynamic_map(signed=False).tolist()
    assert values[0] == 0.0 and values[255] == 1.0
    assert values[254] == pytest.approx(0.996484375) and values[1:3] == pytest.approx([3.25e-7, 7.75e-7])


@SIGNED
def test_every_value_of_the_map_is_its_own_code(signed):
    values = dynamic_map(signed)
    found = quantize(values, signed)
    assert found.codes.tolist() == list(range(256)) and found.scales.tolist() == [1.0]
    assert torch.equal(dequantize(found, signed), values)


@SIGNED
def test_a_code_is_the_nearest_of_all(signed):
    values = torch.randn(1000).pow(3)
    values = values if signed else values.abs().clamp(min=1e-4)  # more than half the smallest value of any block
    found = quantize(values, signed)
    scaled = values / found.scales.repeat_interleave(QUANT_BLOCK)[:1000]
    errors = (scaled[:, None] - dynamic_map(signed)).abs()
    assert torch.equal(errors.gather(1, found.codes.long()[:, None])[:, 0], errors.amin(1))


def test_what_is_above_zero_stays_so_without_a_sign():
    """The smallest value is 3.25e-7 of the scale; with a sign the nearest to a tenth of 5.5e-7 is 0."""
    values = torch.tensor([1.0, 5.5e-8, 1e-30, 0.0])
    assert quantize(values, signed=False).codes.tolist() == [255, 1, 1, 0]
    assert quantize(values, signed=True).codes.tolist() == [255, 127, 127, 127]


def test_a_block_does_not_see_the_others_values():
    values = torch.full((3 * QUANT_BLOCK,), 0.01)
    values[QUANT_BLOCK] = 1e6
    found = dequantize(quantize(values, signed=True), signed=True)
    assert torch.equal(found[:QUANT_BLOCK], values[:QUANT_BLOCK]) and torch.equal(
        found[-QUANT_BLOCK:], values[:QUANT_BLOCK]
    )
    assert found[QUANT_BLOCK] == 1e6 and (found[QUANT_BLOCK + 1 : 2 * QUANT_BLOCK] == 0).all()


@SIGNED
@pytest.mark.parametrize("shape", [(0,), (1,), (255,), (257,), (3, 5, 40)])
def test_any_shape_comes_back(signed, shape):
    values = torch.rand(shape)
    found = quantize(values, signed)
    assert found.codes.shape == shape and found.scales.shape == (n_blocks(values.numel()),)
    torch.testing.assert_close(dequantize(found, signed), values, atol=0.0071 if signed else 0.0036, rtol=0)


@SIGNED
def test_zeros_stay_zeros_and_what_is_too_small_to_divide_by_becomes_one(signed):
    for value in (0.0, 1e-40):
        found = quantize(torch.full((300,), value), signed)
        assert found.scales.tolist() == [0.0, 0.0] and not dequantize(found, signed).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_makes_no_number_of_its_own_block_alone(value):
    values = torch.ones(2 * QUANT_BLOCK)
    values[3] = value
    found = dequantize(quantize(values, signed=True), signed=True)
    assert found[:QUANT_BLOCK].isnan().all() and (found[QUANT_BLOCK:] == 1).all()


def test_two_bytes_and_a_scale_for_256_values_are_what_two_moments_take():
    codes = Codes(torch.zeros(1 << 16, dtype=torch.uint8), torch.zeros(n_blocks(1 << 16)))
    n_bytes = 2 * (codes.codes.nbytes + codes.scales.nbytes)
    assert n_bytes / (1 << 16) == 2 + 2 * 4 / 256
