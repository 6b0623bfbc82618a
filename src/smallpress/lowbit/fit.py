"""The scales of the K formats: least squares, from a few ways of rounding.

For given codes the best scale of a sub-block is a regression's slope, known in closed form; which codes are best is
not. So a few first scales, around the one at which the codes just reach the largest value, each give codes by rounding;
the codes give their best scale; the scale with the least sum (x - x')^2 is kept.

A sub-block is a column: `x` and codes are [n_elements, n_sub_blocks], so that sums run over whole rows, in the same
order on every machine; what is fitted is [n_sub_blocks].
"""

import numpy as np

from smallpress.lowbit.blocks import Floats

FLAT = 1e-3
"""Codes of a smaller variance are all equal: with one of 32 that differs it is 0.03."""


def fit_scales(x: Floats, reach: int) -> Floats:
    """The scale of x' = scale * code with codes from -reach to reach - 1; the largest |x| has a negative code."""
    peak = extreme(x, axis=0)
    least = np.full(x.shape[1], np.inf, np.float32)
    scales = np.zeros_like(least)
    for levels in range(reach - 4, reach + 1):
        codes = np.clip(np.rint(x * inverse(peak / np.float32(-levels))), -reach, reach - 1)
        scale = (x * codes).sum(axis=0) * inverse((codes * codes).sum(axis=0))
        error = ((scale * codes - x) ** 2).sum(axis=0)
        scales = np.where(error < least, scale, scales)
        least = np.minimum(error, least)
    return scales


def fit_lines(x: Floats, reach: int) -> tuple[Floats, Floats]:
    """Scale and minimum, neither negative, of x' = scale * code - minimum with codes from 0 to reach."""
    lowest = np.minimum(x.min(axis=0), 0)
    width = np.maximum(x.max(axis=0), 0) - lowest
    least = np.full(x.shape[1], np.inf, np.float32)
    scales, minima = np.zeros_like(least), np.zeros_like(least)
    for levels in np.arange(reach - 2, reach + 1.5, 0.5, dtype=np.float32):
        codes = np.clip(np.rint((x - lowest) * inverse(width / levels)), 0, reach)
        scale, minimum = best_line(x, codes)
        error = ((scale * codes - minimum - x) ** 2).sum(axis=0)
        scales, minima = np.where(error < least, scale, scales), np.where(error < least, minimum, minima)
        least = np.minimum(error, least)
    return scales, minima


def best_line(x: Floats, codes: Floats) -> tuple[Floats, Floats]:
    """The regression of x on its codes; through the origin where the minimum would be negative."""
    mean_x, mean_code = x.mean(axis=0), codes.mean(axis=0)
    products, squares = (x * codes).mean(axis=0), (codes * codes).mean(axis=0)
    variance = squares - mean_code * mean_code
    slope = np.where(variance > FLAT, (products - mean_x * mean_code) * inverse(variance), 0)
    minimum = slope * mean_code - mean_x
    scale = np.where(minimum < 0, products * inverse(squares), slope)
    return np.maximum(scale, 0), np.maximum(minimum, 0)


def sub_scales(scales: Floats, largest: int, least: int = 0) -> tuple[Floats, Floats]:
    """[n_blocks, n_sub_blocks] as d * whole numbers; d [n_blocks, 1] makes the extreme scale of a block `largest`.

    d is the nearest f16, or the next one outwards where a whole number would pass `largest`: small ones are far apart.
    No scale but 0 becomes a whole number below `least` in magnitude: a scale too coarse keeps more than none.
    """
    exact = extreme(scales, axis=1) / largest
    nearest = exact.astype(np.float16)
    passes = np.abs(exact) * abs(largest) > np.abs(nearest.astype(np.float32)) * (abs(largest) + 0.5)
    outwards = np.nextafter(nearest, np.copysign(np.float16(np.inf), nearest))
    d = np.where(passes, outwards, nearest).astype(np.float32)
    ratios = scales * inverse(d)
    whole = np.copysign(np.maximum(np.rint(np.abs(ratios)), least * (ratios != 0)), ratios)
    return d, np.clip(whole, min(largest, 0), max(largest, -largest - 1))


def extreme(values: Floats, axis: int) -> Floats:
    """The value of the largest magnitude, with its sign, the first of several; the axis stays, with length 1."""
    at = np.expand_dims(np.abs(values).argmax(axis=axis), axis)
    return np.take_along_axis(values, at, axis=axis)


def inverse(values: Floats) -> Floats:
    """1 / x; 0 where x is 0 or so small that fp32 has no inverse of it."""
    with np.errstate(divide="ignore", over="ignore"):
        inverses = np.float32(1) / values
    return np.where(np.isfinite(inverses), inverses, np.float32(0))
