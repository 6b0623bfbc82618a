"""Moments in 8 bits, written in some parts and read in others."""

import pytest
import torch

from smallpress.lowbit.dynamic_map import Codes, dequantize, quantize
from smallpress.parallel.recode import recoded


def written(values, n_parts, signed):
    """Codes of all rows, and the scales of each writer."""
    parts = [quantize(rows, signed) for rows in values.chunk(n_parts)]
    return torch.cat([part.codes for part in parts]), [part.scales for part in parts]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("n_before", "n_after"), [(1, 2), (2, 1), (3, 2), (2, 4), (4, 7)])
def test_values_are_off_by_half_a_step_at_most(n_before, n_after, signed):
    """The widest step of the map is 2 / 64 of a signed block's largest value."""
    values = torch.randn(7, 300, generator=torch.Generator().manual_seed(0))
    values = values if signed else values.abs()
    codes, scales = written(values, n_before, signed)
    before = torch.cat([dequantize(Codes(*part), signed) for part in zip(codes.chunk(n_before), scales, strict=False)])
    first = 0
    for rows, wanted in zip(codes.chunk(n_after), before.chunk(n_after), strict=False):
        found = recoded(rows, first, 7, scales, signed)
        first += len(rows)
        error = (dequantize(found, signed) - wanted).abs()
        assert error.max() <= wanted.abs().max() / 64
        assert error.mean() <= 0.015 * wanted.abs().mean()


def test_blocks_that_stay_whole_keep_every_bit():
    """Where the largest value is no -1, for which the map has no code."""
    values = torch.rand(8, 256, generator=torch.Generator().manual_seed(0))
    codes, scales = written(values, 2, signed=True)
    for i in range(4):
        found = recoded(codes[2 * i : 2 * i + 2], 2 * i, 8, scales, signed=True)
        assert torch.equal(found.codes, codes[2 * i : 2 * i + 2])
        assert torch.equal(found.scales, torch.cat(scales)[2 * i : 2 * i + 2])
