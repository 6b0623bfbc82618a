"""bf16 for numpy, which has no such type: its bits travel as u16."""

import numpy as np
from numpy.typing import NDArray


def bf16_to_fp32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bf16 is the upper half of an fp32.

    >>> bf16_to_fp32(np.array([0x3F80, 0xC000], dtype=np.uint16)).tolist()
    [1.0, -2.0]
    """
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


def fp32_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bf16, ties to even; values past the largest become infinite, NaN stays NaN.

    >>> [hex(bits) for bits in fp32_to_bf16(np.array([1.0, 1.00390625, 1.01171875], dtype=np.float32)).tolist()]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits  # Wraps for some NaN only, which the last step mends.
    rounded >>= 16
    narrow = rounded.astype(np.uint16)
    narrow[np.isnan(values)] = 0x7FC0
    return narrow
