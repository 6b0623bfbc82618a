"""A rating on Codeforces' scale from which problems were solved: how likely a player of rating r solves difficulty d is

    P(solved) = 1 / (1 + 10^((d - r) / 400))

and the rating is the r under which the outcomes are likeliest: sum of solved = sum of P. Problems outside the contests
are no contest, so this places a model among problems, not among the people whose percentile is named beside it.
"""

from collections.abc import Sequence
from math import exp, log

import numpy as np

from smallpress.evaluate.intervals import Estimate, Frozen

LOWEST, HIGHEST = 0.0, 4000.0
"""Bounds for a model that solves nothing, or everything."""
N_RESAMPLES = 1000
_SCALE = log(10.0) / 400.0

SHARE_BELOW = (
    0.0,
    0.0,
    0.01,
    0.03,
    11.87,
    15.33,
    18.61,
    23.57,
    30.47,
    37.98,
    44.98,
    51.78,
    58.57,
    66.91,
    77.18,
    86.12,
    89.82,
    93.59,
    95.82,
    96.79,
    97.86,
    98.41,
    99.23,
    99.58,
    99.73,
    99.86,
    99.9,
    99.94,
    99.96,
    99.98,
    99.98,
    99.99,
    100.0,
    100.0,
    100.0,
    100.0,
    100.0,
    100.0,
    100.0,
    100.0,
    100.0,
)
"""Of 717,421 rated users, per cent with a rating below 0, 100, 200 .. 4000."""


class Rating(Frozen):
    """`bounded`: all problems or none were solved, so the likeliest rating is the end of the scale."""

    rating: Estimate
    percentile: float
    bounded: bool


def rate(difficulties: Sequence[float], shares: Sequence[float], seed: int) -> Rating:
    """From each problem's difficulty and the share of answers that solved it; 95 % interval by the bootstrap.

    >>> found = rate([1200, 1600], [1.0, 0.0], seed=0)
    >>> round(found.rating.value), found.bounded
    (1400, False)
    """
    assert len(difficulties) == len(shares) > 0
    of, solved = np.asarray(difficulties, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    value = _likeliest(of[None], solved[None])[0].item()
    drawn = np.random.default_rng(seed).integers(len(of), size=(N_RESAMPLES, len(of)))
    low, high = np.quantile(_likeliest(of[drawn], solved[drawn]), (0.025, 0.975))
    estimate = Estimate(value=value, low=min(float(low), value), high=max(float(high), value), n=len(of))
    return Rating(rating=estimate, percentile=percentile(value), bounded=float(solved.mean()) in (0.0, 1.0))


def chance(rating: float, difficulty: float) -> float:
    """P(solved).

    >>> chance(1500, 1500), round(chance(1900, 1500), 3)
    (0.5, 0.909)
    """
    return 1.0 / (1.0 + exp(-_SCALE * (rating - difficulty)))


def percentile(rating: float) -> float:
    """Per cent of rated users below, between the table's points in a straight line."""
    at = min(max(rating, LOWEST), HIGHEST - 1e-9) / 100.0
    i = int(at)
    return SHARE_BELOW[i] + (at - i) * (SHARE_BELOW[i + 1] - SHARE_BELOW[i])


def _likeliest(difficulties: np.ndarray, solved: np.ndarray) -> np.ndarray:
    """By bisection, row by row: the expected number of solved problems rises with the rating."""
    low, high = np.full(len(solved), LOWEST), np.full(len(solved), HIGHEST)
    for _ in range(40):
        middle = (low + high) / 2
        expected = (1.0 / (1.0 + np.exp(-_SCALE * (middle[:, None] - difficulties)))).sum(axis=1)
        above = expected > solved.sum(axis=1)
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return (low + high) / 2
