"""Blockwise number formats of GGUF files: bytes in, fp32 out.

A quantized row is cut into blocks of 32 or 256 elements; a block holds its scales and one small code per element. All
numbers are little-endian. A decoder takes `raw`, uint8 [n_blocks, block bytes], and fills `out`, fp32 [n_blocks, block
elements]. It does the same fp32 operations in the same order as ggml's reference: the results are equal bit for bit.

Sources: ggml-common.h (layouts) and ggml-quants.c (`dequantize_row_*`) of llama.cpp; Q4_0 to Q8_0 hold one scale a
block, the K formats (Q2_K to Q6_K) 256 elements whose 8 or 16 sub-blocks have small integer scales of their own. The
codes of IQ4_NL and IQ4_XS are indices of 16 levels that lie closer together around zero, those of TQ1_0 and TQ2_0 are
-1, 0 and 1. docs/formats.md has them byte by byte.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

CHUNK_ELEMENTS = 1 << 16
"""Decoded at a time, so that codes, scales and results of a chunk stay in the processor's cache."""


def _half(raw: Bytes, at: int) -> Floats:
    """The f16 at byte `at` of each block, as fp32 [n_blocks, 1]."""
    return raw[:, at : at + 2].copy().view("<f2").astype(np.float32)


def f32(raw: Bytes, out: Floats) -> None:
    """4 bytes: the number itself."""
    out[:] = raw.view("<f4")


def f16(raw: Bytes, out: Floats) -> None:
    """2 bytes: IEEE half precision."""
    out[:] = raw.view("<f2")


def bf16(raw: Bytes, out: Floats) -> None:
    """2 bytes: the upper half of an fp32."""
    np.left_shift(raw.view("<u2"), 16, out=out.view(np.uint32), dtype=np.uint32)


def q8_0(raw: Bytes, out: Floats) -> None:
    """f16 scale, 32 signed bytes: x = scale * code."""
    np.multiply(raw[:, 2:].view(np.int8), _half(raw, 0), out=out)


def q4_0(raw: Bytes, out: Floats) -> None:
    """f16 scale, 16 bytes of codes: x = scale * (code - 8). Low nibbles are elements 0-15, high nibbles 16-31."""
    scale, codes = _half(raw, 0), raw[:, 2:]
    np.multiply((codes & 15).view(np.int8) - 8, scale, out=out[:, :16])
    np.multiply((codes >> 4).view(np.int8) - 8, scale, out=out[:, 16:])


def q4_1(raw: Bytes, out: Floats) -> None:
    """f16 scale, f16 minimum, 16 bytes of codes as in Q4_0: x = scale * code + minimum."""
    scale, minimum, codes = _half(raw, 0), _half(raw, 2), raw[:, 4:]
    np.multiply(codes & 15, scale, out=out[:, :16])
    np.multiply(codes >> 4, scale, out=out[:, 16:])
    out += minimum


def _five_bits(fifth: Bytes, nibbles: Bytes) -> Bytes:
    """[n_blocks, 32] codes: 16 bytes of nibbles, and 4 bytes whose bit i is the fifth bit of element i."""
    codes: Bytes = np.unpackbits(fifth, axis=1, bitorder="little") << np.uint8(4)
    codes[:, :16] |= nibbles & 15
    codes[:, 16:] |= nibbles >> 4
    return codes


def q5_0(raw: Bytes, out: Floats) -> None:
    """f16 scale, 4 bytes of fifth bits, 16 bytes of nibbles: x = scale * (code - 16)."""
    np.multiply(_five_bits(raw[:, 2:6], raw[:, 6:]).view(np.int8) - 16, _half(raw, 0), out=out)


def q5_1(raw: Bytes, out: Floats) -> None:
    """f16 scale, f16 minimum, 4 bytes of fifth bits, 16 bytes of nibbles: x = scale * code + minimum."""
    np.multiply(_five_bits(raw[:, 4:8], raw[:, 8:]), _half(raw, 0), out=out)
    out += _half(raw, 2)


def q2_k(raw: Bytes, out: Floats) -> None:
    """16 bytes of sub-scales, 64 bytes of codes, f16 d, f16 dmin; 16 sub-blocks of 16 elements.

    Low nibble of sub-scale s: scale = d * nibble; high nibble: minimum = dmin * nibble; x = scale * code - minimum.
    Each half of 128 elements has 32 bytes of codes: bits 0-1 are its first 32 elements, bits 2-3 the next, and so on.
    """
    n = len(raw)
    subs, codes, grid = raw[:, :16], raw[:, 16:80].reshape(n, 2, 32), out.reshape(n, 2, 4, 2, 16)
    scale = (_half(raw, 80) * (subs & 15)).reshape(n, 2, 4, 2, 1)
    minimum = (_half(raw, 82) * (subs >> 4)).reshape(n, 2, 4, 2, 1)
    for quarter in range(4):
        two_bits = (codes >> (2 * quarter)) & 3
        np.multiply(two_bits.reshape(n, 2, 2, 16), scale[:, :, quarter], out=grid[:, :, quarter])
    grid -= minimum


def q3_k(raw: Bytes, out: Floats) -> None:
    """32 bytes of high bits, 64 bytes of codes as in Q2_K, 12 bytes of sub-scales, f16 d; 16 sub-blocks of 16 elements.

    Bit b of high byte i belongs to element 32 b + i; 4 is taken off the code where it is *clear*: x = scale * code.
    Sub-scale s has 6 bits, less 32: four in bytes 0-7 (s < 8 low nibbles, else high ones), two in byte 8 + s % 4 at bit
    2 * (s // 4).
    """
    n = len(raw)
    high, codes, packed = raw[:, :32], raw[:, 32:96].reshape(n, 2, 32), raw[:, 96:108]
    grid = out.reshape(n, 2, 4, 2, 16)
    subs = np.concatenate((packed[:, :8] & 15, packed[:, :8] >> 4), axis=1)
    for group in range(4):
        subs[:, 4 * group : 4 * group + 4] |= ((packed[:, 8:] >> (2 * group)) & 3) << 4
    scale = (_half(raw, 108) * (subs.view(np.int8) - 32)).reshape(n, 2, 4, 2, 1)
    for half in range(2):
        for quarter in range(4):
            kept = ((high >> (4 * half + quarter)) & 1) << 2
            values = (((codes[:, half] >> (2 * quarter)) & 3) | kept).view(np.int8) - 4
            np.multiply(values.reshape(n, 2, 16), scale[:, half, quarter], out=grid[:, half, quarter])


def _scales_and_minima(raw: Bytes) -> tuple[Floats, Floats]:
    """The head of Q4_K and Q5_K: f16 d, f16 dmin, 12 bytes of eight 6-bit (scale, minimum) pairs; both [n, 4, 2, 1].

    Pairs 0-3: scale in the low 6 bits of byte j, minimum in those of byte j + 4. Pairs 4-7: low four bits in the
    nibbles of byte j + 4 (scale low, minimum high), upper two in the top bits of bytes j - 4 and j.
    """
    first, second, third = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scales = np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)
    minima = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    shape = (len(raw), 4, 2, 1)
    return (_half(raw, 0) * scales).reshape(shape), (_half(raw, 2) * minima).reshape(shape)


def q4_k(raw: Bytes, out: Floats) -> None:
    """Head as in `_scales_and_minima`, 128 bytes of nibbles; 8 sub-blocks of 32: x = scale * code - minimum.

    32 bytes serve 64 elements: low nibbles the first sub-block, high nibbles the second.
    """
    n = len(raw)
    scale, minimum = _scales_and_minima(raw)
    codes, grid = raw[:, 16:].reshape(n, 4, 32), out.reshape(n, 4, 2, 32)
    np.multiply(codes & 15, scale[:, :, 0], out=grid[:, :, 0])
    np.multiply(codes >> 4, scale[:, :, 1], out=grid[:, :, 1])
    grid -= minimum


def q5_k(raw: Bytes, out: Floats) -> None:
    """As Q4_K with 32 bytes of fifth bits before the nibbles: bit s of byte i is that of element i of sub-block s."""
    n = len(raw)
    scale, minimum = _scales_and_minima(raw)
    fifth, nibbles, grid = raw[:, 16:48], raw[:, 48:].reshape(n, 4, 32), out.reshape(n, 4, 2, 32)
    for pair in range(4):
        for side, codes in enumerate((nibbles[:, pair] & 15, nibbles[:, pair] >> 4)):
            codes |= ((fifth >> (2 * pair + side)) & 1) << 4
            np.multiply(codes, scale[:, pair, side], out=grid[:, pair, side])
    grid -= minimum


def q6_k(raw: Bytes, out: Floats) -> None:
    """128 bytes of low nibbles, 64 of upper bit pairs, 16 signed sub-scales, f16 d: x = d * sub-scale * (code - 32).

    Each half of 128 elements has 64 + 32 bytes; its quarter q takes low nibbles (q < 2) or high ones of the bytes
    32 * (q % 2) onwards and bits 2q, 2q + 1 of the upper pairs. 16 sub-blocks of 16 elements.
    """
    n = len(raw)
    low, upper, grid = raw[:, :128].reshape(n, 2, 2, 32), raw[:, 128:192].reshape(n, 2, 32), out.reshape(n, 2, 4, 2, 16)
    scale = (_half(raw, 208) * raw[:, 192:208].view(np.int8)).reshape(n, 2, 4, 2, 1)
    for quarter in range(4):
        nibbles = (low[:, :, quarter % 2] >> (4 * (quarter // 2))) & 15
        codes = (nibbles | (((upper >> (2 * quarter)) & 3) << 4)).view(np.int8) - 32
        np.multiply(codes.reshape(n, 2, 2, 16), scale[:, :, quarter], out=grid[:, :, quarter])


LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int8)
"""What a code of IQ4_NL and IQ4_XS stands for."""


def iq4_nl(raw: Bytes, out: Floats) -> None:
    """f16 scale, 16 bytes of codes as in Q4_0: x = scale * LEVELS[code]."""
    scale, codes = _half(raw, 0), raw[:, 2:]
    np.multiply(LEVELS[codes & 15], scale, out=out[:, :16])
    np.multiply(LEVELS[codes >> 4], scale, out=out[:, 16:])


def iq4_xs(raw: Bytes, out: Floats) -> None:
    """f16 d, u16 of upper and 4 bytes of lower bits of sub-scales, 128 bytes of codes; 8 sub-blocks of 32 elements.

    Sub-scale s has 6 bits, less 32: four in a nibble of byte s // 2 (low where s is even), two at bit 2s of the u16.
    A sub-block's 16 bytes are as in Q4_0: x = d * sub-scale * LEVELS[code].
    """
    n = len(raw)
    upper = (raw[:, 2:4].copy().view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    lower = np.stack((raw[:, 4:8] & 15, raw[:, 4:8] >> 4), axis=2).reshape(n, 8)
    scale = (_half(raw, 0) * ((lower | upper.astype(np.uint8) << 4).view(np.int8) - 32)).reshape(n, 8, 1)
    codes, grid = raw[:, 8:].reshape(n, 8, 16), out.reshape(n, 8, 2, 16)
    np.multiply(LEVELS[codes & 15], scale, out=grid[:, :, 0])
    np.multiply(LEVELS[codes >> 4], scale, out=grid[:, :, 1])


def tq1_0(raw: Bytes, out: Floats) -> None:
    """48 bytes of five codes each, 4 bytes of four, f16 scale: x = scale * (code - 1), codes 0 to 2.

    A byte is the fraction 0.c0 c1 c2 ... in base three, as 256ths: code n is the whole part of 3 * (byte * 3^n mod 256)
    / 256. Bytes 0-31 have elements 0-159, their first codes, then their second ones; 32-47 elements 160-239; 48-51 the
    rest.
    """
    scale, at = _half(raw, 52), 0
    for first, last, n_codes in ((0, 32, 5), (32, 48, 5), (48, 52, 4)):
        for n in range(n_codes):
            fraction = raw[:, first:last] * np.uint8(3**n)
            codes = (fraction.astype(np.uint16) * 3 >> 8).astype(np.int8) - 1
            np.multiply(codes, scale, out=out[:, at : at + last - first])
            at += last - first


def tq2_0(raw: Bytes, out: Floats) -> None:
    """64 bytes of codes as in Q2_K, f16 scale: x = scale * (code - 1)."""
    scale, codes, grid = _half(raw, 64)[:, None], raw[:, :64].reshape(-1, 2, 32), out.reshape(-1, 2, 4, 32)
    for quarter in range(4):
        np.multiply(((codes >> (2 * quarter)) & 3).view(np.int8) - 1, scale, out=grid[:, :, quarter])


@dataclass(frozen=True, slots=True)
class BlockFormat:
    name: str
    block_bytes: int
    block_elements: int
    decode: Callable[[Bytes, Floats], None]


FORMATS: dict[int, BlockFormat] = {
    0: BlockFormat("F32", 4, 1, f32),
    1: BlockFormat("F16", 2, 1, f16),
    2: BlockFormat("Q4_0", 18, 32, q4_0),
    3: BlockFormat("Q4_1", 20, 32, q4_1),
    6: BlockFormat("Q5_0", 22, 32, q5_0),
    7: BlockFormat("Q5_1", 24, 32, q5_1),
    8: BlockFormat("Q8_0", 34, 32, q8_0),
    10: BlockFormat("Q2_K", 84, 256, q2_k),
    11: BlockFormat("Q3_K", 110, 256, q3_k),
    12: BlockFormat("Q4_K", 144, 256, q4_k),
    13: BlockFormat("Q5_K", 176, 256, q5_k),
    14: BlockFormat("Q6_K", 210, 256, q6_k),
    20: BlockFormat("IQ4_NL", 18, 32, iq4_nl),
    23: BlockFormat("IQ4_XS", 136, 256, iq4_xs),
    30: BlockFormat("BF16", 2, 1, bf16),
    34: BlockFormat("TQ1_0", 54, 256, tq1_0),
    35: BlockFormat("TQ2_0", 66, 256, tq2_0),
}
"""GGUF's tensor type number -> format: the whole list of what can be read."""

NOT_READ: dict[int, str] = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""Types that exist but have no decoder here, so that a refusal can name them."""


def dequantize(block_format: BlockFormat, raw: Bytes) -> Floats:
    """fp32 [n_elements] of whole blocks laid one after another in `raw`, one-dimensional uint8.

    A damaged scale may be infinite or not a number; it decodes to such values without a warning.

    >>> one_block = np.array([0x00, 0x3C] + [1, 255] * 16, dtype=np.uint8)  # f16 1.0, then 1, -1, 1, -1, ...
    >>> dequantize(FORMATS[8], one_block)[:4].tolist()
    [1.0, -1.0, 1.0, -1.0]
    """
    assert raw.ndim == 1 and raw.size % block_format.block_bytes == 0, f"{raw.shape=} {block_format.name=}"
    blocks = raw.reshape(-1, block_format.block_bytes)
    out = np.empty((len(blocks), block_format.block_elements), dtype=np.float32)
    rows = CHUNK_ELEMENTS // block_format.block_elements
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(blocks), rows):
            block_format.decode(blocks[start : start + rows], out[start : start + rows])
    return out.reshape(-1)
