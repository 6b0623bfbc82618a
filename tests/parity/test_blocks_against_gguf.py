"""Our block decoders and encoders against those of the gguf library: equal bit for bit."""

import gguf
import numpy as np
import pytest

from smallpress.lowbit.blocks import FORMATS, NOT_READ, dequantize
from smallpress.lowbit.encode import ENCODERS, LARGEST_F16, quantize

TYPES = {int(kind): kind for kind in gguf.GGMLQuantizationType}


@pytest.mark.parametrize("type_id", FORMATS, ids=lambda type_id: FORMATS[type_id].name)
def test_random_blocks_decode_to_the_same_bits(type_id):
    block_format = FORMATS[type_id]
    rng = np.random.default_rng(type_id)
    raw = rng.integers(0, 256, (2048, block_format.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf.dequantize(raw, TYPES[type_id]).reshape(-1)
    ours = dequantize(block_format, raw.reshape(-1))
    both_nan = np.isnan(ours) & np.isnan(theirs)  # random scales are sometimes no number; which NaN has no meaning
    assert (both_nan | (ours.view(np.uint32) == theirs.view(np.uint32))).all()
    assert not both_nan.all()


SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108]}
SCALES |= {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64]}
"""Where each block keeps its f16."""
ODD_HALVES = [0.0, -0.0, np.inf, -np.inf, np.nan, 6e-8, -6e-8, 6.1e-5, 65504.0, -65504.0, 1.0, -1 / 3]


@pytest.mark.parametrize("name", SCALES)
def test_odd_scales_over_telling_codes_decode_to_the_same_bits(name):
    """Every pair of odd f16 in the places of the scales, over blocks of one byte all through, and over random ones."""
    type_id = int(gguf.GGMLQuantizationType[name])
    size, draw = FORMATS[type_id].block_bytes, np.random.default_rng(0)
    fills = [np.full(size, byte, np.uint8) for byte in (0, 1, 0x0F, 0x80, 0xAA, 0xF0, 0xFF)]
    fills += list(draw.integers(0, 256, (5, size), dtype=np.uint8))
    pairs = np.array([(a, b) for a in ODD_HALVES for b in ODD_HALVES], dtype="<f2").view(np.uint8).reshape(-1, 2, 2)
    raw = np.repeat(np.stack(fills), len(pairs), axis=0)
    for which, at in enumerate(SCALES[name]):
        raw[:, at : at + 2] = np.tile(pairs[:, which], (len(fills), 1))
    with np.errstate(all="ignore"):
        theirs = gguf.dequantize(raw, TYPES[type_id]).reshape(-1)
    ours = dequantize(FORMATS[type_id], raw.reshape(-1))
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    number = ~np.isnan(ours)
    assert np.array_equal(ours[number].view(np.uint32), theirs[number].view(np.uint32))
    assert number.any() and not number.all()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_the_library_quantizes_comes_back_within_half_a_step(name):
    kind = gguf.GGMLQuantizationType[name]
    values = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    ours = dequantize(FORMATS[int(kind)], gguf.quantize(values, kind).reshape(-1)).reshape(values.shape)
    levels = {"Q4_0": 8, "Q4_1": 15, "Q5_0": 16, "Q5_1": 31, "Q8_0": 127}[name]
    whole = np.abs(values).max(1) if name in ("Q4_0", "Q5_0", "Q8_0") else np.ptp(values, axis=1)
    # The signed formats reach levels on one side only, so the far end may be a whole step off.
    assert (np.abs(ours - values).max(1) <= 1.01 * whole / levels).all()


def awkward_values():
    """Random ones of many sizes, zeros of both signs, equal magnitudes, and halves between codes."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=(300, 256)) * np.exp2(draw.integers(-30, 16, (300, 1)))
    halves = draw.integers(-16, 17, (40, 256)) / 2
    signs = draw.choice([-1.0, 1.0], (20, 256))
    zeros = np.where(draw.random((3, 256)) < 0.5, 0.0, -0.0)
    steep = draw.uniform(-LARGEST_F16, LARGEST_F16, (20, 256))
    return np.clip(np.concatenate((values, halves, signs, zeros, steep)), -LARGEST_F16, LARGEST_F16).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in ENCODERS if not name.endswith("_K")])
def test_values_become_the_same_bytes(name):
    values, kind = awkward_values(), gguf.GGMLQuantizationType[name]
    ours = np.concatenate(list(quantize(FORMATS[int(kind)], values, name)))
    theirs = gguf.quantize(values, kind).reshape(-1).view(np.uint8)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K"])
def test_the_library_decodes_our_k_formats_as_we_do(name):
    values, kind = awkward_values(), gguf.GGMLQuantizationType[name]
    raw = np.concatenate(list(quantize(FORMATS[int(kind)], values, name)))
    theirs = gguf.dequantize(raw.reshape(len(values), -1), kind)
    assert np.array_equal(dequantize(FORMATS[int(kind)], raw), theirs.reshape(-1))


def test_the_table_has_the_librarys_numbers():
    for type_id, block_format in FORMATS.items():
        assert TYPES[type_id].name == block_format.name
        assert gguf.GGML_QUANT_SIZES[TYPES[type_id]] == (block_format.block_elements, block_format.block_bytes)
    assert {TYPES[type_id].name for type_id in NOT_READ} == set(NOT_READ.values())
    assert set(FORMATS) | set(NOT_READ) == set(TYPES)
