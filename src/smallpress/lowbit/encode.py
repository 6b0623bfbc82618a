"""Blockwise number formats of GGUF files, the other way: fp32 in, bytes out. `blocks.py` has the layouts and decoders.

An encoder takes `values`, fp32 [n_blocks, block elements], and gives uint8 [n_blocks, block bytes]. Equal values give
equal bytes. Where the format leaves no choice, and in Q4_0 to Q8_0, the operations are those of ggml's reference
(`quantize_row_*_ref` of ggml-quants.c) in its order: the bytes are equal but for the sign of a scale of zero. The K
formats are fitted, by `fit.py`.
"""

from collections.abc import Callable, Iterator

import numpy as np

from smallpress.lowbit.bfloat16 import fp32_to_bf16
from smallpress.lowbit.blocks import CHUNK_ELEMENTS, BlockFormat, Bytes, Floats
from smallpress.lowbit.fit import best_line, extreme, fit_lines, fit_scales, inverse, sub_scales
from smallpress.run.errors import UserError

LARGEST_F16 = 65504.0
LARGEST = {"F32": float(np.finfo(np.float32).max), "BF16": float.fromhex("0x1.fep127")}
"""The largest magnitude taken; where none is given, LARGEST_F16: then no scale or minimum leaves f16's range."""


def f32(values: Floats) -> Bytes:
    return values.astype("<f4").view(np.uint8)


def f16(values: Floats) -> Bytes:
    """The nearest, ties to even."""
    return values.astype("<f2").view(np.uint8)


def bf16(values: Floats) -> Bytes:
    """The nearest, ties to even."""
    return fp32_to_bf16(values).astype("<u2", copy=False).view(np.uint8)


def q8_0(values: Floats) -> Bytes:
    """scale = max |x| / 127; codes are the nearest, halves away from zero."""
    scale = np.abs(values).max(axis=1, keepdims=True) / 127
    scaled = values * inverse(scale)
    magnitude = np.abs(scaled)
    codes = np.floor(magnitude)
    codes += magnitude - codes >= 0.5
    return np.concatenate((f16(scale), np.copysign(codes, scaled).astype(np.int8).view(np.uint8)), axis=1)


def q4_0(values: Floats) -> Bytes:
    """scale = x / -8 of the x with the largest |x|, the first of several."""
    scale = extreme(values, axis=1) / np.float32(-8)
    codes = np.minimum(values * inverse(scale) + np.float32(8.5), 15).astype(np.uint8)
    return np.concatenate((f16(scale), _nibbles(codes)), axis=1)


def q4_1(values: Floats) -> Bytes:
    """scale = (max x - min x) / 15."""
    least = values.min(axis=1, keepdims=True)
    scale = (values.max(axis=1, keepdims=True) - least) / 15
    codes = np.minimum((values - least) * inverse(scale) + np.float32(0.5), 15).astype(np.uint8)
    return np.concatenate((f16(scale), f16(least), _nibbles(codes)), axis=1)


def q5_0(values: Floats) -> Bytes:
    """scale = x / -16 of the x with the largest |x|, the first of several."""
    scale = extreme(values, axis=1) / np.float32(-16)
    codes = np.minimum(values * inverse(scale) + np.float32(16.5), 31).astype(np.uint8)
    fifth = np.packbits(codes >> 4, axis=1, bitorder="little")
    return np.concatenate((f16(scale), fifth, _nibbles(codes & np.uint8(15))), axis=1)


def _nibbles(codes: Bytes) -> Bytes:
    """The first half of each block in the low nibbles, the second in the high ones."""
    half = codes.shape[1] // 2
    return codes[:, :half] | codes[:, half:] << np.uint8(4)


def q4_k(values: Floats) -> Bytes:
    """x = d * scale * code - dmin * minimum, for 8 sub-blocks of 32.

    Scales and minima are those of `fit_lines`; d and dmin let the largest of a block be 63. Codes are then the nearest
    for the scales and minima as they are stored; a second round fits both to these codes.
    """
    n = len(values)
    x = _columns(values, 32)
    fitted = fit_lines(x, reach=15)
    for _ in range(2):
        scales, minima = (each.reshape(n, 8) for each in fitted)
        d, scale_codes = sub_scales(scales, 63, least=1)
        dmin, minimum_codes = sub_scales(minima, 63)
        scale, minimum = (d * scale_codes).reshape(-1), (dmin * minimum_codes).reshape(-1)
        codes = np.clip(np.rint((x + minimum) * inverse(scale)), 0, 15)
        fitted = best_line(x, codes)
    pairs = codes.astype(np.uint8).T.reshape(n, 4, 2, 32)
    packed = (pairs[:, :, 0] | pairs[:, :, 1] << np.uint8(4)).reshape(n, 128)
    head = _six_bits(scale_codes.astype(np.uint8), minimum_codes.astype(np.uint8))
    return np.concatenate((f16(d), f16(dmin), head, packed), axis=1)


def _six_bits(scales: Bytes, minima: Bytes) -> Bytes:
    """Eight pairs of 6-bit numbers in 12 bytes, as `_scales_and_minima` of `blocks.py` describes them."""
    first = scales[:, :4] | (scales[:, 4:] >> 4) << np.uint8(6)
    second = minima[:, :4] | (minima[:, 4:] >> 4) << np.uint8(6)
    third = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << np.uint8(4)
    return np.concatenate((first, second, third), axis=1)


def q6_k(values: Floats) -> Bytes:
    """x = d * scale * (code - 32), for 16 sub-blocks of 16.

    Scales are those of `fit_scales`; d lets the largest of a block be -128. Codes are then the nearest for the scales
    as they are stored.
    """
    n = len(values)
    x = _columns(values, 16)
    d, scale_codes = sub_scales(fit_scales(x, reach=32).reshape(n, 16), -128, least=1)
    codes = np.clip(np.rint(x * inverse((d * scale_codes).reshape(-1))), -32, 31) + 32
    quarters = codes.astype(np.uint8).T.reshape(n, 2, 4, 32)
    low = (quarters[:, :, :2] & 15) | (quarters[:, :, 2:] & 15) << np.uint8(4)
    upper = quarters >> 4 << np.array([0, 2, 4, 6], np.uint8)[:, None]
    upper = np.bitwise_or.reduce(upper, axis=2)
    scale_bytes = scale_codes.astype(np.int8).view(np.uint8)
    return np.concatenate((low.reshape(n, 128), upper.reshape(n, 64), scale_bytes, f16(d)), axis=1)


def _columns(values: Floats, n_elements: int) -> Floats:
    """[n_elements, n_sub_blocks]: a sub-block a column, so that its sums are sums of whole rows."""
    return np.ascontiguousarray(values.reshape(-1, n_elements).T)


ENCODERS: dict[str, Callable[[Floats], Bytes]] = {
    "F32": f32, "F16": f16, "BF16": bf16, "Q8_0": q8_0, "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q4_K": q4_k,
    "Q6_K": q6_k,
}  # fmt: skip
"""Name of a block format -> encoder: the whole list of what can be written."""


def quantize(block_format: BlockFormat, values: Floats, what: str) -> Iterator[Bytes]:
    """The blocks of `values`, whose rows are whole blocks, a chunk of them at a time, each one-dimensional uint8.

    Raises UserError naming `what` for a value that is not finite, or larger than the format's numbers.

    >>> from smallpress.lowbit.blocks import FORMATS
    >>> b"".join(chunk.tobytes() for chunk in quantize(FORMATS[1], np.float32([1.0, -2.0]), "x")).hex()
    '003c00c0'
    """
    assert values.dtype == np.float32 and values.shape[-1] % block_format.block_elements == 0, values.shape
    encode = ENCODERS[block_format.name]
    largest = LARGEST.get(block_format.name, LARGEST_F16)
    blocks = np.ascontiguousarray(values).reshape(-1, block_format.block_elements)
    rows = CHUNK_ELEMENTS // block_format.block_elements
    for start in range(0, len(blocks), rows):
        chunk = blocks[start : start + rows]
        peak = max(float(chunk.max()), -float(chunk.min()))
        if not peak <= largest:
            _refuse(chunk, largest, block_format.name, what)
        yield encode(chunk).reshape(-1)


def _refuse(chunk: Floats, largest: float, name: str, what: str) -> None:
    finite = np.isfinite(chunk)
    if not finite.all():
        raise UserError(f"{what} holds {chunk[~finite][0]}, which is no weight", "the model is damaged: make it again")
    peak = np.abs(chunk).max()
    raise UserError(f"{what} holds {peak:.4g}, and {name} ends at {largest:.4g}", "convert to bf16 or f32")
