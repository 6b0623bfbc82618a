"""The dynamic map of 8-bit optimizers, and tensors as its codes with one fp32 scale for each block.

A code stands for a value in [-1, 1]: a decimal exponent from 10^-6 to 1, finer fractions the larger it is. A block of
values x is its scale max|x| and the codes nearest to x / scale, so the largest value keeps more than two digits and one
a million times smaller is not lost. Dettmers, Lewis, Shleifer and Zettlemoyer, "8-bit Optimizers via Block-wise
Quantization" (arXiv 2110.02861); the map is that of the authors' library, bit for bit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

QUANT_BLOCK = 256
"""Values that share a scale: the paper has 2048, its authors' library today 256."""

N_DECADES = 7

TINY = 1e-36
"""A block whose largest value is below this counts as zero: the inverse of its scale might be no number."""


def dynamic_map(signed: bool) -> Tensor:
    """fp32 [256], ascending: what each code stands for. Signed for first moments, unsigned for second ones.

    Decade i of 7 spans 10^(i-7) to 10^(i-6) and is cut into 2^i equal cells, twice as many where no bit is spent on a
    sign; their middles are values, as are their negatives, 0 and 1. There is no -1.

    >>> [round(float(dynamic_map(signed=True)[code]), 8) for code in (0, 127, 128, 255)]
    [-0.99296874, 0.0, 5.5e-07, 1.0]
    >>> [round(float(dynamic_map(signed=False)[code]), 9) for code in (0, 1, 254, 255)]
    [0.0, 3.25e-07, 0.996484399, 1.0]
    """
    values = [torch.tensor([0.0, 1.0])]
    for decade in range(N_DECADES):
        n_cells = 2**decade if signed else 2 ** (decade + 1)
        bounds = torch.linspace(0.1, 1.0, n_cells + 1, dtype=torch.float32)
        middles = 10.0 ** (decade + 1 - N_DECADES) * ((bounds[:-1] + bounds[1:]) / 2.0)
        values += [middles, -middles] if signed else [middles]
    return torch.cat(values).sort().values


@dataclass(frozen=True, slots=True)
class Codes:
    """A tensor in 8 bits: `codes` uint8 of its shape; `scales` fp32, one for each QUANT_BLOCK of its values."""

    codes: Tensor
    scales: Tensor


def quantize(values: Tensor, signed: bool) -> Codes:
    """The nearest codes; of two equally near the lower. A block with a value that is not finite has the scale NaN.

    Unsigned, what is above 0 becomes no 0 but the value above it: a second moment of 0 beside a first one that is not
    makes the next step as long as that gradient is small (Li, Chen and Zhu, arXiv 2309.01507).

    >>> found = quantize(torch.tensor([2.0, 1.0, 0.0]), signed=False)
    >>> found.codes.tolist(), found.scales.tolist()
    ([255, 183, 0], [2.0])
    """
    table = dynamic_map(signed).to(values.device)
    blocks = _blocks(values.float())
    scales = blocks.abs().amax(1)
    scales = torch.where(scales.isfinite(), scales, torch.nan)
    inverse = torch.where(scales > TINY, 1.0 / scales, 0.0)
    places = (blocks * inverse[:, None]).nan_to_num_(nan=0.0)
    codes = torch.bucketize(places, (table[:-1] + table[1:]) / 2.0).to(torch.uint8)
    if not signed:
        codes.clamp_(min=(places > 0).to(torch.uint8))
    codes = codes.view(-1)[: values.numel()]
    return Codes(codes.view(values.shape), torch.where(scales <= TINY, 0.0, scales))


def dequantize(quantized: Codes, signed: bool) -> Tensor:
    """fp32 of the codes' shape: scale * map[code].

    >>> [round(x, 6) for x in dequantize(quantize(torch.tensor([-4.0, 0.0, 4.0]), signed=True), signed=True).tolist()]
    [-3.971875, 0.0, 4.0]
    """
    values = dynamic_map(signed).to(quantized.codes.device)[quantized.codes.long()]
    return (_blocks(values) * quantized.scales[:, None]).view(-1)[: values.numel()].view(values.shape)


def n_blocks(n_values: int) -> int:
    """
    >>> [n_blocks(n) for n in (0, 1, 256, 257)]
    [0, 1, 1, 2]
    """
    return -(-n_values // QUANT_BLOCK)


def _blocks(values: Tensor) -> Tensor:
    """[n_blocks, QUANT_BLOCK], the last filled up with zeros."""
    n = values.numel()
    return torch.nn.functional.pad(values.reshape(-1), (0, n_blocks(n) * QUANT_BLOCK - n)).view(-1, QUANT_BLOCK)
