"""FP8 weights as DeepSeek-V3 stores them: E4M3 codes, one fp32 scale a block of 128 x 128; the last ones may be cut.

Source: DeepSeek-V3, section 3.3, and README_WEIGHTS of its repository.
"""

import numpy as np
from numpy.typing import NDArray


def _e4m3() -> NDArray[np.float32]:
    """The 256 values: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, all ones are NaN."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10))
    values = np.where(codes >> 7, -size, size)
    return np.where((codes & 127) == 127, np.nan, values).astype(np.float32)


E4M3 = _e4m3()


def dequantize(codes: NDArray[np.uint8], scales: NDArray[np.float32], block: tuple[int, int]) -> NDArray[np.float32]:
    """[o, i] fp32: each code's value times the scale of its block; scales are [ceil(o / rows), ceil(i / columns)].

    >>> dequantize(np.array([[0x38, 0xC0, 0x7E]], np.uint8), np.array([[2.0, 0.5]], np.float32), (128, 2)).tolist()
    [[2.0, -4.0, 224.0]]
    """
    values = E4M3[codes]
    n_rows, n_columns = codes.shape
    columns = np.repeat(scales, block[1], axis=1)[:, :n_columns]
    for i, row_of_scales in enumerate(columns):  # a block's height at a time: no second array of the weight's size
        values[i * block[0] : min((i + 1) * block[0], n_rows)] *= row_of_scales
    return values
