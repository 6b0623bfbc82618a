"""The encoders, on numbers one can work out on paper and on those that break arithmetic."""

import numpy as np
import pytest

from smallpress.lowbit.blocks import CHUNK_ELEMENTS, FORMATS, dequantize
from smallpress.lowbit.encode import ENCODERS, LARGEST, LARGEST_F16, quantize
from smallpress.run.errors import UserError

BY_NAME = {block_format.name: block_format for block_format in FORMATS.values()}
BLOCKS = [name for name in ENCODERS if BY_NAME[name].block_elements > 1]
K_FORMATS = ["Q4_K", "Q6_K"]


def encode(name, values):
    chunks = list(quantize(BY_NAME[name], np.asarray(values, np.float32), "x"))
    assert all(chunk.dtype == np.uint8 and chunk.ndim == 1 for chunk in chunks)
    return np.concatenate(chunks)


def there_and_back(name, values):
    return dequantize(BY_NAME[name], encode(name, values)).reshape(np.shape(values))


def error(name, values):
    return float(((there_and_back(name, values) - values) ** 2).sum())


def repeated(*values, n):
    return np.resize(np.array(values, np.float32), n)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("F32", [0.1, -2.5]),
        ("F16", [0.5, -65504.0]),
        ("BF16", [0.5, -(2.0**127)]),
        ("Q8_0", np.arange(-127, 128, 8)),
        ("Q4_0", repeated(*range(-8, 8), n=32)),
        ("Q4_1", repeated(*range(-3, 13), n=32)),
        ("Q5_0", np.arange(-16, 16)),
        ("Q4_K", repeated(*range(-5, 11), n=256)),
        ("Q6_K", repeated(*range(-32, 32, 4), n=256)),
    ],
    ids=ENCODERS,
)
def test_what_a_format_can_say_comes_back_almost_exactly(name, values):
    values = np.array(values, np.float32)
    back = there_and_back(name, values)
    assert np.abs(back - values).max() <= 1e-3 * np.abs(values).max()
    if name not in K_FORMATS:  # whose d is scale / 63 or / 128, rounded to f16
        assert np.array_equal(back, values)


def test_q8_0_rounds_halves_away_from_zero():
    codes = encode("Q8_0", [127.0, 0.5, -0.5, 1.5, 0.49] + [0.0] * 27)
    assert codes[:2].tobytes() == np.float16(1.0).tobytes()
    assert codes[2:7].view(np.int8).tolist() == [127, 1, -1, 2, 0]


def test_q4_0_takes_its_sign_from_the_first_of_the_largest():
    for first, scale in ((8.0, -1.0), (-8.0, 1.0)):
        raw = encode("Q4_0", [first, -first] + [0.0] * 30)
        assert raw[:2].tobytes() == np.float16(scale).tobytes()
        assert (raw[2] & 15, raw[3] & 15) == (0, 15)  # the other end has no code: 7 stands for 8


def test_q4_k_gives_each_sub_block_its_own_scale_and_minimum():
    values = np.zeros((8, 32), np.float32)
    values[3] = repeated(*range(16), n=32)  # scale 1, minimum 0
    values[5] = repeated(*range(-15, 1), n=32) / 3  # scale 1/3, minimum 5
    back = there_and_back("Q4_K", values.reshape(1, 256)).reshape(8, 32)
    assert not back[[0, 1, 2, 4, 6, 7]].any()
    assert np.abs(back - values).max() < 0.01


def test_all_equal_blocks_come_back():
    for name in BLOCKS:
        for value in (0.3, -0.3, 1e-3):
            values = np.full((2, 256), value, np.float32)
            assert np.abs(there_and_back(name, values) - value).max() <= 4e-3 * abs(value), (name, value)


@pytest.mark.parametrize("name", ENCODERS)
def test_zeros_stay_zeros(name):
    assert not there_and_back(name, np.zeros((2, 256), np.float32)).any()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-30, 1e-9])
def test_what_is_too_small_becomes_small(name, size):
    values = np.random.default_rng(0).normal(size=(2, 256)).astype(np.float32) * np.float32(size)
    back = there_and_back(name, values)
    assert np.isfinite(back).all() and np.abs(back).max() <= max(2 * np.abs(values).max(), 1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_largest_numbers_stay_finite_and_near(name):
    values = np.random.default_rng(0).uniform(-1, 1, (2, 256)).astype(np.float32)
    values[:, :2] = 1, -1
    back = there_and_back(name, values * np.float32(LARGEST_F16)) / LARGEST_F16
    assert np.abs(back - values).max() < 0.15


@pytest.mark.parametrize("name", BLOCKS)
def test_one_outlier_costs_its_block_alone_and_comes_back(name):
    values = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32) * np.float32(0.01)
    alone = there_and_back(name, values)
    values[1, 77] = 3.0
    back = there_and_back(name, values)
    assert np.array_equal(back[[0, 2]], alone[[0, 2]])
    assert abs(back[1, 77] - 3.0) < 0.01
    assert np.abs(back[1]).argmax() == 77 and np.abs(np.delete(back[1], 77)).max() < 0.25


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_one_error_that_names_the_tensor(name, bad):
    values = np.ones((3, 256), np.float32)
    values[2, 255] = bad
    with pytest.raises(UserError, match=f"tensor blk.0.ffn_up.weight holds {bad}, which is no weight"):
        list(quantize(BY_NAME[name], values, "tensor blk.0.ffn_up.weight"))


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_too_large_is_one_error_that_names_the_format(name):
    values = np.ones((1, 256), np.float32)
    values[0, 9] = -LARGEST.get(name, LARGEST_F16)
    assert np.isfinite(there_and_back(name, values)).all()
    if name != "F32":
        values[0, 9] = np.nextafter(values[0, 9], np.float32(-np.inf))
        with pytest.raises(UserError, match=f"x holds .*, and {name} ends at"):
            encode(name, values)


@pytest.mark.parametrize("name", ENCODERS)
def test_chunks_do_not_show_and_equal_values_give_equal_bytes(name):
    n_blocks = CHUNK_ELEMENTS // 256 + 3
    values = np.random.default_rng(0).normal(size=(n_blocks, 256)).astype(np.float32)
    whole = encode(name, values)
    assert np.array_equal(whole, encode(name, values.copy()))
    assert np.array_equal(whole[-len(whole) // n_blocks * 5 :], encode(name, values[-5:]))


def test_rows_that_are_no_whole_blocks_are_a_fault():
    with pytest.raises(AssertionError):
        list(quantize(BY_NAME["Q8_0"], np.zeros((2, 33), np.float32), "x"))


def rounded(scales, largest):
    """The sub-scales of each block as whole numbers times an f16."""
    d = scales.max(1, keepdims=True) / largest
    return np.rint(np.divide(scales, d, out=np.zeros_like(scales), where=d > 0)) * np.float32(np.float16(d))


def simple_q4_k(values):
    """Scale and minimum from the smallest and the largest value, with the sub-scales' rounding."""
    x = values.reshape(-1, 8, 32)
    low, high = np.minimum(x.min(2), 0), np.maximum(x.max(2), 0)
    scale, minimum = (rounded(exact, 63)[..., None] for exact in ((high - low) / 15, -low))
    codes = np.clip(np.rint(np.divide(x + minimum, scale, out=np.zeros_like(x), where=scale > 0)), 0, 15)
    return (scale * codes - minimum).reshape(values.shape)


def simple_q6_k(values):
    """Scale = max |x| / 31, with the sub-scales' rounding."""
    x = values.reshape(-1, 16, 16)
    scale = rounded(np.abs(x).max(2) / 31, 127)[..., None]
    codes = np.clip(np.rint(np.divide(x, scale, out=np.zeros_like(x), where=scale > 0)), -32, 31)
    return (scale * codes).reshape(values.shape)


def drawn(kind, n=200):
    draw = np.random.default_rng(0)
    values = {
        "normal": draw.normal(size=(n, 256)) * 0.02,
        "heavy tails": draw.standard_t(4, size=(n, 256)) * 0.02,
        "uniform": draw.uniform(-1, 1, (n, 256)),
        "positive": draw.exponential(size=(n, 256)),
        "sub-blocks of many sizes": draw.normal(size=(n, 8, 32)) * np.exp2(-draw.integers(0, 9, (n, 8, 1))),
        "an outlier in each block": np.where(np.arange(256) == 100, 3.0, draw.normal(size=(n, 256)) * 0.01),
    }[kind]
    return values.astype(np.float32).reshape(n, 256)


KINDS = ["normal", "heavy tails", "uniform", "positive", "sub-blocks of many sizes", "an outlier in each block"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "simple"), [("Q4_K", simple_q4_k), ("Q6_K", simple_q6_k)], ids=K_FORMATS)
def test_the_fitted_scales_beat_those_of_the_extremes(name, simple, kind):
    values = drawn(kind)
    baseline = float(((simple(values) - values) ** 2).sum())
    print(f"{name} on {kind}: {error(name, values) / baseline:.3f} of the simple error")
    assert error(name, values) <= baseline
