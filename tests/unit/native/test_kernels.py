"""Every instruction set against numpy and against the scalar reference, on lengths that fill no register."""

import numpy as np
import pytest

from smallpress import _native

SETS = [pytest.param(name, marks=pytest.mark.skipif(not _native.can_run(name), reason="not on this processor"))
        for name in ("scalar", "neon", "dotprod", "i8mm", "avx2", "avx512", "amx")]  # fmt: skip
LENGTHS = (1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 576)
PAGES = [(1, 4, 1, 4), (5, 20, 3, 4), (16, 64, 3, 16), (17, 64, 9, 16), (200, 64, 3, 16), (33, 80, 2, 7),
         (75, 64, 3, 32), (50, 20, 1, 20)]  # fmt: skip
"""Tokens, head_dim, query heads of a kv head, tokens of a page."""
HALF_STEP = 0.5 + 2e-2
"""Of a scale: how far rounding moves a value. fp32 itself has 24 bits, 12 of which a code takes."""
LARGEST_CODE = {8: 127, 4: 127 * 16}
"""Of activations beside weights in so many bits."""
FP32 = 3e-6
"""Relative: sums in another order, an exponential good to 2 ulp."""
BF16 = 2.0**-8


@pytest.fixture
def normal():
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)


def blocks(x: np.ndarray, n: int = 64) -> np.ndarray:
    """The last axis in blocks of n, filled up with zeros."""
    padded = np.zeros((*x.shape[:-1], -(-x.shape[-1] // n) * n), dtype=np.float32)
    padded[..., : x.shape[-1]] = x
    return padded.reshape(*x.shape[:-1], -1, n)


def turned(x: np.ndarray, weight: bool = False) -> np.ndarray:
    """Its spans times the Hadamard matrix over 8, filled up with zeros; a weight's whole ones over 16. What is turned
    as the one and then as the other is as before.
    """
    x = blocks(x).reshape(*x.shape[:-1], -1).astype(np.float32)
    hadamard = np.ones((1, 1), dtype=np.float32)
    while len(hadamard) < 128:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])

    def turn(span: np.ndarray) -> np.ndarray:
        n = span.shape[-1]
        return span @ hadamard[:n, :n] * np.float32(1 / 16 if weight and n == 128 else 1 / 8)

    return np.concatenate([turn(span) for span in np.split(x, range(128, x.shape[-1], 128), axis=-1)], axis=-1)


def halved(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


def encoded(parts: np.ndarray, scales: np.ndarray, lowest: int, highest: int) -> np.ndarray:
    return np.clip(np.rint(np.divide(parts, scales, out=np.zeros_like(parts), where=scales > 0)), lowest, highest)


def rounded_q8(w: np.ndarray) -> np.ndarray:
    """What the packed weight stands for: turned, fp16 scales of 128 columns, whole codes."""
    parts = blocks(turned(w, weight=True), 128)
    scales = halved(np.abs(parts).max(-1, keepdims=True) / np.float32(127))
    codes = (encoded(parts, scales, -127, 127) * scales).reshape(*w.shape[:-1], -1)
    return turned(codes[..., : blocks(w).size // len(w)])[..., : w.shape[-1]]


def rounded_q4(w: np.ndarray) -> np.ndarray:
    """In 4 bits: fp16 scales and minima of half a block."""
    parts = blocks(w).reshape(*w.shape[:-1], -1, 32)
    minima = parts.min(-1, keepdims=True)
    scales = halved((parts.max(-1, keepdims=True) - minima) / np.float32(15))
    minima = halved(minima)
    return (encoded(parts - minima, scales, 0, 15) * scales + minima).reshape(*w.shape[:-1], -1)[..., : w.shape[-1]]


def rounded_bf16(w: np.ndarray) -> np.ndarray:
    """To nearest, ties to even."""
    bits = w.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


ROUNDED = {4: rounded_q4, 8: rounded_q8, 16: rounded_bf16}


def rounded_activations(name: str, x: np.ndarray, bits: int) -> np.ndarray:
    """What the codes stand for, which a test of their own holds against x."""
    if bits == 16:
        return rounded_bf16(x)
    columns = 128 if bits == 8 else blocks(x[:1]).size  # of a scale
    found = [_native.quantize(name, row, bits)[:2] for row in x]
    rounded = np.array([codes * np.repeat(scales, columns)[: len(codes)] for codes, scales in found])
    return (turned(rounded, weight=True) if bits == 8 else rounded)[:, : x.shape[-1]]


def product(name: str, x: np.ndarray, w: np.ndarray, bits: int = 8, **how) -> np.ndarray:
    return _native.product(name, x, _native.pack(name, w, bits), **how)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("bits", (4, 8))
@pytest.mark.parametrize("n", LENGTHS)
def test_quantized_values_are_within_half_a_step(name, bits, n, normal):
    values = normal(n)
    codes, scales, sums = _native.quantize(name, values, bits)
    assert np.abs(codes).max() == LARGEST_CODE[bits]
    values = turned(values) if bits == 8 else blocks(values).ravel()
    scale = np.repeat(scales, 128)[: len(codes)] if bits == 8 else scales
    assert (np.abs(codes * scale - values) <= HALF_STEP * scale).all()
    assert sums.tolist() == (codes.reshape(-1, 32).sum(-1).tolist() if bits == 4 else [])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("bits", (4, 8))
def test_zeros_stay_zeros_and_the_largest_keeps_its_sign(name, bits):
    codes, scales, sums = _native.quantize(name, np.zeros(40, dtype=np.float32), bits)
    assert not codes.any() and not scales.any() and not sums.any()
    ends = np.array([-3.0, 3.0, *[0.0] * 62], dtype=np.float32)
    codes, _, _ = _native.quantize(name, turned(ends, weight=True) if bits == 8 else ends, bits)
    assert codes[:3].tolist() == [-LARGEST_CODE[bits], LARGEST_CODE[bits], 0]


@pytest.mark.parametrize("name", SETS)
def test_every_code_is_the_sum_of_its_two_bytes(name):
    whole = np.arange(-127 * 16, 127 * 16 + 1, dtype=np.float32)
    assert (_native.quantize(name, whole, 4)[0][: len(whole)] == whole).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("bits", (4, 8, 16))
@pytest.mark.parametrize(("N", "K"), ((1, 1), (16, 32), (17, 33), (97, 20), (40, 576)))
def test_a_weight_is_packed_to_the_nearest_codes(name, bits, N, K, normal):
    w = normal(N, K)
    found, wanted = _native.pack(name, w, bits).numbers(), ROUNDED[bits](w)
    # A value halfway between two codes may go either way: numpy divides, the kernel multiplies by the inverse.
    assert np.mean(~np.isclose(found, wanted, rtol=0, atol=FP32 * np.abs(w).max())) < {4: 0.01, 8: 0.1, 16: 1e-9}[bits]
    step = np.abs(turned(w) if bits == 8 else w).max() / {4: 7, 8: 127, 16: 256}[bits]
    # Turned back, errors of a span add up in size: 128 of at most half a step, over the root of 128.
    np.testing.assert_allclose(found, w, atol=0.51 * step * (128**0.5 if bits == 8 else 1), rtol=0)
    assert np.sqrt(np.mean((found - w) ** 2)) < 0.51 * step


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("bits", (4, 8, 16))
@pytest.mark.parametrize("M", (1, 2, 3, 7, 8, 9, 13, 16, 17, 80))
@pytest.mark.parametrize(("N", "K"), ((1, 1), (16, 32), (17, 33), (97, 20), (64, 576), (130, 200)))
def test_a_product_is_that_of_the_rounded_factors(name, bits, M, N, K, normal):
    x, w = normal(M, K), normal(N, K)
    panels = _native.pack(name, w, bits)
    wanted = rounded_activations(name, x, bits).astype(np.float64) @ panels.numbers().astype(np.float64).T
    scale = np.abs(wanted).max() + 1.0
    found = _native.product(name, x, panels)
    np.testing.assert_allclose(found, wanted, atol=(2e-3 if bits == 16 else 3e-4) * scale, rtol=0)
    np.testing.assert_allclose(_native.product(name, x, panels, add=True), found + 1, atol=FP32 * scale, rtol=0)
    np.testing.assert_allclose(found, _native.product("scalar", x, panels), atol=FP32 * scale)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("M", (5, 40))
def test_a_product_of_numbers_of_8_bits_is_exact(name, M):
    generator = np.random.default_rng(1)
    x, w = generator.integers(-127, 128, (M, 320)), generator.integers(-127, 128, (40, 320))
    x[:, ::128] = w[:, ::128] = 127  # every span's scale is 1
    assert (product(name, turned(x, weight=True), turned(w)) == x @ w.T).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("M", (5, 40))
def test_a_product_of_12_and_4_bit_numbers_is_exact(name, M):
    generator = np.random.default_rng(1)
    x, w = generator.integers(-2032, 2033, (M, 128)), generator.integers(-3, 13, (40, 128))
    x[:, 0], w[:, ::32], w[:, 1::32] = 2032, -3, 12  # every scale is 1, every minimum -3
    assert (product(name, x.astype(np.float32), w.astype(np.float32), 4) == x @ w.T).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("bits", (4, 8, 16))
def test_a_row_alone_and_among_others_is_the_same_to_the_bit(name, bits, normal):
    x, w = normal(70, 200), normal(130, 200)
    together = product(name, x, w, bits)
    alone = np.concatenate([product(name, x[i : i + 1], w, bits) for i in range(len(x))])
    assert (together == alone).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("n", LENGTHS)
def test_norm_and_gate(name, n, normal):
    x, y = 3 * normal(n), normal(n)
    norm = x / np.sqrt((x.astype(np.float64) ** 2).mean() + 1e-5) * y
    np.testing.assert_allclose(_native.rms_norm(name, x, y, 1e-5), norm, rtol=FP32, atol=FP32)
    silu = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64))) * y
    np.testing.assert_allclose(_native.swiglu(name, x, y), silu, rtol=FP32, atol=FP32)


@pytest.mark.parametrize("name", SETS)
def test_the_gate_at_its_ends(name):
    gate = np.array([-1e4, -200.0, -88.0, 0.0, 88.0, 1e4], dtype=np.float32)
    found = _native.swiglu(name, gate, np.ones_like(gate))
    np.testing.assert_allclose(found, [0, 0, 0, 0, 88, 1e4], atol=1e-30, rtol=FP32)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", PAGES)
@pytest.mark.parametrize("eight_bits", (False, True))
def test_attention_over_pages(name, shape, eight_bits, normal):
    S, D, group, page_size = shape
    q, k, v = normal(group, D), normal(S, D), normal(S, D)
    plain = k, v
    if eight_bits:  # a code for every number, a scale for every token
        k, v = ((x / (scale := np.abs(x).max(-1, keepdims=True) / 127)).round() * scale for x in plain)
    scores = q.astype(np.float64) @ k.T / np.sqrt(D)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    wanted = weights / weights.sum(-1, keepdims=True) @ v
    found = _native.attend(name, q, *plain, page_size, eight_bits)
    np.testing.assert_allclose(found, wanted, atol=4 * BF16)
    # A weight of the softmax may be rounded to bf16 the other way.
    np.testing.assert_allclose(found, _native.attend("scalar", q, *plain, page_size, eight_bits), atol=BF16 / 4)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("n", (1, 16, 255, 256, 257, 1000))
def test_weights_of_the_sampler(name, n, normal):
    x = 10 * normal(n)
    best, weights, total = _native.weigh(name, x, 0.7)
    assert best == x.max()
    wanted = np.exp((x.astype(np.float64) - best) / 0.7)
    np.testing.assert_allclose(weights, wanted, rtol=1e-5, atol=1e-36)
    assert total == pytest.approx(wanted.sum(), rel=1e-6)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
def test_what_is_not_finite_is_seen(name, value, normal):
    x = normal(50)
    x[37] = value
    assert np.isnan(_native.weigh(name, x, 1.0)[0])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("bits", (4, 8, 16))
@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_what_is_no_number_makes_none_of_its_own_row_alone(name, bits, value, normal):
    x, w = normal(3, 100), normal(20, 100)
    x[1, 70] = value
    found = product(name, x, w, bits)
    assert not np.isfinite(found[1]).any() and np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("name", SETS)
def test_what_is_too_small_to_divide_by_counts_as_zero(name):
    codes, scales, _ = _native.quantize(name, np.array([1e-38, -1e-38], dtype=np.float32))
    assert not codes.any() and not scales.any()


def test_a_name_without_kernels_is_refused():
    with pytest.raises(ValueError, match="no kernels named abacus"):
        _native.rms_norm("abacus", np.ones(3, dtype=np.float32), np.ones(3, dtype=np.float32), 0.0)
