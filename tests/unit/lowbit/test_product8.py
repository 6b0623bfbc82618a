"""Products in 8 bits: the native kernels and FP8's against the plain form, and the plain form against paper."""

import pytest
import torch

from smallpress.lowbit.native_core import native_core
from smallpress.lowbit.product8 import SPAN, WHOLE_ROW, encode, native_int8, scaled_mm_fp8, simulated

FP32 = 2e-6
"""Of the largest product: spans added up with and without a rounding between product and sum."""
RUNS = native_core().can_run if native_core() else lambda name: False
KERNELS = [pytest.param(name, marks=pytest.mark.skipif(not RUNS(name), reason="not on this processor"))
           for name in ("scalar", "avx2", "avx512", "amx")]  # fmt: skip
SHAPES = [(1, 1, 1), (3, 5, 20), (16, 32, 64), (17, 33, 129), (40, 130, 576), (130, 48, 300)]
"""M, N, K."""


def factors(M, N, K, dtype=torch.float32, left_turned=False, right_turned=False):
    """Rows a thousand times larger than others, and a column of outliers."""
    left = torch.randn(M, K) * 10.0 ** torch.randint(-2, 2, (M, 1))
    right = torch.randn(N, K)
    left[:, K // 2] *= 50
    left, right = left.to(dtype), right.to(dtype)
    left = left.T.contiguous().T if left_turned else left
    return left, right.T.contiguous().T if right_turned else right


def test_int8_spans_have_the_scale_of_their_largest():
    """Three spans: 254 and 2 have the scale 2; 127 the scale 1; zeros the scale 0."""
    x = torch.zeros(1, 300)
    x[0, 0], x[0, 1], x[0, 130] = 254.0, -2.0, 127.0
    coded = encode(x, "int8", SPAN, in_blocks=False)
    assert coded.scales.tolist() == [[2.0, 1.0, 0.0]]
    assert coded.codes[0, :2].tolist() == [127.0, -1.0] and coded.codes[0, 130] == 127.0


def test_blocks_are_128_rows_with_one_scale():
    x = torch.ones(300, 128)
    x[0, 0], x[299, 5] = 127.0, 254.0
    scales = encode(x, "int8", SPAN, in_blocks=True).scales[:, 0]
    assert scales[:128].eq(1).all() and scales[256:].eq(2).all()
    torch.testing.assert_close(scales[128:256], torch.full((128,), 1 / 127))


def test_fp8_values_are_those_of_e4m3():
    """448 is the largest; three bits follow the first, so that 17, halfway between 16 and 18, goes to 16."""
    codes = encode(torch.tensor([[448.0, 17.0, 19.0, 0.001]]), "fp8", SPAN, in_blocks=False).codes
    assert codes[0, :3].tolist() == [448.0, 16.0, 20.0]
    assert codes[0, 3] == 2**-9, "the smallest, of which 0.001 is more than half"


@pytest.mark.parametrize("format", ["int8", "fp8"])
@pytest.mark.parametrize("span", [SPAN, WHOLE_ROW])
def test_a_product_of_whole_numbers_within_the_codes_is_exact(format, span):
    """Small whole numbers are codes in both formats once a span's largest makes its scale 1."""
    left, right = (torch.randint(-8, 9, (n, 256)).float() for n in (6, 7))
    for x in (left, right):
        x[:, ::128] = 127.0 if format == "int8" else 448.0
    assert torch.equal(simulated(format, span)(left, right, False), left @ right.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("span", [64, SPAN, WHOLE_ROW])
def test_the_native_product_is_the_simulated_one(kernels, shape, span, dtype):
    for turned in ((False, False), (True, False), (False, True), (True, True)):
        left, right = factors(*shape, dtype, *turned)
        for in_blocks in (False, True):
            wanted = simulated("int8", span)(left.float(), right.float(), in_blocks)
            found = native_int8(span, 1, kernels)(left, right, in_blocks)
            assert found.dtype == dtype
            size = wanted.abs().amax(1, keepdim=True) + 1e-30
            room = FP32 if dtype == torch.float32 else FP32 + 2**-8
            assert ((found.float() - wanted).abs() <= room * size).all(), (turned, in_blocks)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_product_does_not_depend_on_the_threads(kernels):
    left, right = factors(70, 200, 300)
    found = [native_int8(SPAN, n, kernels)(left, right, True) for n in (1, 2, 3)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("kernels", KERNELS)
def test_what_is_no_number_makes_none_of_its_own_row_alone(kernels):
    left, right = factors(5, 20, 200)
    left[2, 150] = torch.nan
    for product in (native_int8(SPAN, 1, kernels), simulated("int8")):
        found = product(left, right, True)
        assert found[2].isnan().all() and found[[0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("kernels", KERNELS)
def test_nothing_is_left_of_a_larger_product_before(kernels):
    large, small = factors(64, 64, 640), factors(17, 18, 70)
    wanted = native_int8(SPAN, 1, kernels)(*small, False)
    native_int8(SPAN, 1, kernels)(*large, True)
    assert torch.equal(native_int8(SPAN, 1, kernels)(*small, False), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_fp8_by_scaled_mm_is_the_simulated_one(shape):
    left, right = factors(*shape)
    for in_blocks in (False, True):
        wanted = simulated("fp8")(left, right, in_blocks)
        found = scaled_mm_fp8()(left, right, in_blocks)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_an_outlier_spoils_its_own_span_alone():
    """A value 1000 times the others leaves them an eighth of a code in its span, and all of theirs elsewhere."""
    torch.manual_seed(0)
    left, right = torch.randn(1, 1024), torch.randn(64, 1024)
    left[0, 3] = 3000.0
    right[:, 3] = 0.0
    wanted = left @ right.T
    errors = {span: float((simulated("int8", span)(left, right, False) - wanted).norm()) for span in (SPAN, WHOLE_ROW)}
    assert 2 * errors[SPAN] < errors[WHOLE_ROW]


def test_factors_that_do_not_fit_are_refused():
    if native_core():
        with pytest.raises(ValueError, match="the same columns"):
            native_int8()(torch.zeros(2, 3), torch.zeros(2, 4), False)
