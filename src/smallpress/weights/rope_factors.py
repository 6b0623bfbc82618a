"""Llama 3.1's scaling as a GGUF has it: a tensor of what each pair's frequency is divided by, and no settings.

A frequency keeps the share k of itself and has 1 - k of it divided by the factor; k climbs in a straight line from the
slow turns to the fast ones. Where it begins and ends follows from the line, but for a length that multiplies both.
"""

import math

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import Llama3
from smallpress.model.frequencies import frequencies
from smallpress.run.errors import UserError

TOLERANCE = 1e-5
"""Relative, of a factor; files have them in fp32."""
MAX_PAIRS = 1 << 12


def rope_factors(dim: int, theta: float, scaling: Llama3) -> NDArray[np.float32]:
    """[dim / 2]: the tensor of this scaling.

    >>> scaling = Llama3(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_seq_len=8192)
    >>> rope_factors(4, 1e8, scaling).tolist()
    [1.0, 8.0]
    """
    return (frequencies(dim, theta) / frequencies(dim, theta, scaling)).astype(np.float32)


def llama3_from_factors(factors: NDArray[np.float32], dim: int, theta: float, source: str) -> dict[str, object] | None:
    """The scaling that makes these factors, as settings; None where they are all 1. Slow is fewer than one turn.

    Raises UserError for factors that no such scaling makes.
    """
    if factors.shape == (dim // 2,) and np.isfinite(factors).all() and factors.min() >= 1:
        if factors.max() == 1:
            return None
        for scaling in _candidates(factors.astype(np.float64), dim, theta):
            made = rope_factors(dim, theta, scaling)
            if np.abs(made / factors - 1).max() < TOLERANCE:
                return scaling.model_dump()
    raise UserError(f"{source}: rope_freqs.weight holds no scaling of Llama 3.1's kind for heads of {dim}")


def _candidates(factors: NDArray[np.float64], dim: int, theta: float) -> list[Llama3]:
    """The published one with this factor, and that of the line through the shares between 0 and 1."""
    factor = float(f"{factors.max():.6g}")
    found = [Llama3(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)]
    kept = (1 / factors - 1 / factor) / (1 - 1 / factor)
    between = (kept > 1e-4) & (kept < 1 - 1e-4)
    if between.sum() >= 2:
        turns_a_token = frequencies(dim, theta)[between] / (2 * math.pi)
        slope, begin = np.polyfit(turns_a_token, kept[between], 1)
        if slope > 0 > begin:
            high, length = 1.0 + float(f"{-1 / begin:.5g}"), max(1, round(-slope / begin))
            found.append(Llama3(factor=factor, low_freq_factor=1.0, high_freq_factor=high, original_max_seq_len=length))
    return found
