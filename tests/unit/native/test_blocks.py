"""Weights as files hold them: what the core makes of GGUF's blocks is what numpy's decoders say they are."""

import numpy as np
import pytest

from smallpress import _native
from smallpress.lowbit.blocks import FORMATS, dequantize

BY_NAME = {block_format.name: block_format for block_format in FORMATS.values()}


def random_blocks(name: str, n_rows: int, n_columns: int) -> np.ndarray:
    """Rows of random codes; fp16 scales between 1/256 and 1/128 wherever the format has one."""
    generator = np.random.default_rng(0)
    block = BY_NAME[name]
    blocks = generator.integers(0, 256, (n_rows, n_columns // block.block_elements, block.block_bytes), dtype=np.uint8)
    for at in {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q4_K": [0, 2], "Q6_K": [208]}.get(name, []):
        scales = generator.uniform(1 / 256, 1 / 128, blocks.shape[:2]).astype("<f2")
        blocks[..., at : at + 2] = scales[..., None].view(np.uint8)
    if name in ("F32", "F16", "BF16"):
        numbers = generator.standard_normal((n_rows, n_columns)).astype(np.float32)
        kept = {"F32": numbers, "F16": numbers.astype("<f2"), "BF16": (numbers.view("<u4") >> 16).astype("<u2")}[name]
        return kept.view(np.uint8).reshape(n_rows, -1)
    return blocks.reshape(n_rows, -1)


@pytest.mark.parametrize("name", ("F32", "F16", "BF16", "Q8_0", "Q6_K"))
def test_what_is_decoded_is_equal_to_the_bit(name):
    rows = random_blocks(name, 5, 512)
    assert _native.packed_bits(name) == 8
    assert (_native.decode(name, rows).ravel() == dequantize(BY_NAME[name], rows.ravel())).all()


@pytest.mark.parametrize(("name", "atol"), (("Q4_0", 0), ("Q4_1", 1e-7), ("Q4_K", 2e-3)))
@pytest.mark.parametrize("n_columns", (256, 512))
def test_what_keeps_its_codes_stands_for_the_same_numbers(name, atol, n_columns):
    """Q4_K's products of two scales are rounded to fp16: 15 * 63 / 128 and 63 / 128 at most, by 2^-11 of them."""
    rows = random_blocks(name, 35, n_columns)
    assert _native.packed_bits(name) == 4
    wanted = dequantize(BY_NAME[name], rows.ravel()).reshape(35, n_columns)
    np.testing.assert_allclose(_native.regroup(name, rows).numbers(), wanted, atol=atol, rtol=0)


@pytest.mark.parametrize("name", ("Q4_0", "Q4_1"))
def test_half_a_block_of_columns_at_the_end_is_filled_up(name):
    rows = random_blocks(name, 3, 96)
    panels = _native.regroup(name, rows)
    x = np.random.default_rng(1).standard_normal((2, 96)).astype(np.float32)
    wanted = x @ dequantize(BY_NAME[name], rows.ravel()).reshape(3, 96).T
    np.testing.assert_allclose(_native.product("scalar", x, panels), wanted, atol=0.02 * np.abs(wanted).max())


def test_formats_without_a_reader_say_so():
    assert _native.packed_bits("Q3_K") == 0 and _native.packed_bits("") == 0
    with pytest.raises(ValueError, match="Q3_K"):
        _native.decode("Q3_K", np.zeros((1, 110), dtype=np.uint8))
