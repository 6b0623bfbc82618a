"""Uniform numbers that depend on (request seed, index of the new token) and on nothing else.

Counter-based: the n-th number of a seed is computed without the ones before it, so a draw does not depend on which
other requests share the batch, on preemption, or on the process. The mixer is splitmix64's finaliser (Steele, Lea and
Flood 2014), applied to the seed and then to seed and index together.
"""

from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def uniforms(seeds: Sequence[int], indices: Sequence[int]) -> np.ndarray:
    """One float64 in [0, 1) for each pair, with 53 random bits.

    >>> uniforms([7, 7, 8], [0, 1, 0]).round(6).tolist() == uniforms([7, 7, 8], [0, 1, 0]).round(6).tolist()
    True
    """
    seed = np.asarray(seeds, dtype=np.uint64)
    index = np.asarray(indices, dtype=np.uint64)
    bits = _mix(_mix(seed + _GOLDEN) + (index + np.uint64(1)) * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
