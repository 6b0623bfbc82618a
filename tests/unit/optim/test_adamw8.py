"""AdamW in 8 bits: the native step against the plain one, the plain one against torch's, and a resume to the bit."""

import copy

import pytest
import torch

from smallpress.lowbit.dynamic_map import QUANT_BLOCK, dynamic_map
from smallpress.lowbit.native_core import native_core
from smallpress.optim.adamw8 import MIN_8BIT_SIZE, AdamW8
from smallpress.run.errors import UserError

FP32 = 4e-7
"""Relative: a few operations fused, or not."""
NEAR_A_TIE = 2e-4
"""Of the distance of two codes: where between them the one or the other is the nearest."""
MOMENTS = pytest.mark.parametrize("moments", ["float32", "bfloat16", "8bit"])
NATIVE = pytest.mark.skipif(native_core() is None, reason="there is no native core")
RUNS = native_core().can_run if native_core() else lambda name: False
KERNELS = [pytest.param(name, marks=pytest.mark.skipif(not RUNS(name), reason="not on this processor"))
           for name in ("scalar", "avx2", "avx512", "amx")]  # fmt: skip


def parameters(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(params, step, scale=1.0):
    """Uneven ones: a few values a thousand times the others."""
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = (
            scale * torch.randn(p.shape, generator=generator) * 10 ** (3 * torch.rand(p.shape, generator=generator))
        )


def train(optimizer, params, steps):
    for step in steps:
        give_gradients(params, step)
        optimizer.step()


def assert_same_state(ours, theirs):
    for mine, other in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            assert mine[name].dtype == other[name].dtype and torch.equal(mine[name], other[name]), name


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("plain", [True, False])
def test_with_fp32_moments_a_step_is_torchs_adamw(plain, weight_decay):
    ours, theirs = parameters((70, 100), (17,)), parameters((70, 100), (17,))
    options = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": weight_decay}
    mine = AdamW8(ours, moments="float32", plain=plain, **options)
    torchs = torch.optim.AdamW(theirs, **options)
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        mine.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@NATIVE
@MOMENTS
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", [4096, 4097, 5000, 4096 + QUANT_BLOCK - 1])
def test_one_native_step_is_the_plain_one(monkeypatch, moments, kernels, size):
    """From one state and one gradient: parameters to rounding, codes to the same or, near a tie, the next."""
    core = native_core()
    monkeypatch.setattr(core, "adamw", lambda *args, adamw=core.adamw, **how: adamw(*args, **how, kernels=kernels))
    (ours,), (theirs,) = parameters((size,)), parameters((size,))
    native, plain = AdamW8([ours], moments=moments), AdamW8([theirs], moments=moments, plain=True)
    train(plain, [theirs], range(3))
    ours.data.copy_(theirs)
    native.load_state_dict(copy.deepcopy(plain.state_dict()))
    train(native, [ours], [3])
    train(plain, [theirs], [3])
    torch.testing.assert_close(ours, theirs, rtol=FP32, atol=FP32)
    for name, other in plain.state[theirs].items():
        found = native.state[ours][name]
        if other.dtype == torch.uint8:
            assert_codes_are_the_nearest(found, other)
        else:
            rounding = 2**-7 if other.dtype == torch.bfloat16 else FP32
            room = rounding * other.abs() + (FP32 * ours.grad.abs() if name == "exp_avg" else 0)
            assert ((found - other).abs() <= room).all(), name


def assert_codes_are_the_nearest(found, wanted):
    """Where two codes differ they are neighbours: the plain one chose between the same two, within NEAR_A_TIE."""
    difference = (found.int() - wanted.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 2 * NEAR_A_TIE, "values near a tie are that rare"


@NATIVE
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("signed", [True, False])
def test_the_kernel_finds_the_nearest_code_of_every_value(kernels, signed):
    """beta = 0 stores the gradient itself, or its square: all midpoints, a little below and above, and the values."""
    values = dynamic_map(signed).double()
    steps = values.diff()
    below, above = values[:-1] + steps * (0.5 - NEAR_A_TIE), values[:-1] + steps * (0.5 + NEAR_A_TIE)
    places, wanted = torch.cat([values, below, above]), torch.arange(256)
    wanted = torch.cat([wanted, wanted[:-1], wanted[1:]])
    if not signed:
        wanted[256] = 1  # below the middle between 0 and the first value, yet above 0
    blocks = torch.zeros(2 * 12, QUANT_BLOCK, dtype=torch.float64)
    blocks[:12, 0], blocks[12:, 0] = 1.0, 2.0  # the scale of each block, a power of two: dividing by it is exact
    room = blocks[:, 1 : 1 + 64].reshape(2, -1)
    room[:, : len(places)] = places
    blocks[:12, 1:65], blocks[12:, 1:65] = room[0].view(12, 64), 2 * room[1].view(12, 64)
    gradient = (blocks if signed else blocks.sqrt()).float().view(-1)
    parameter = torch.nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient
    optimizer = AdamW8([parameter], betas=(0.0, 0.0), n_threads=1)
    step_of(optimizer, kernels)
    codes = optimizer.state[parameter]["exp_avg" if signed else "exp_avg_sq"].view(24, QUANT_BLOCK)[:, 1:65]
    for found in codes.reshape(2, -1):
        assert torch.equal(found[: len(wanted)].long(), wanted)


def step_of(optimizer, kernels):
    core = native_core()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "adamw", lambda *args, adamw=core.adamw, **how: adamw(*args, **how, kernels=kernels))
        optimizer.step()


@NATIVE
@MOMENTS
def test_the_result_does_not_depend_on_the_threads(moments):
    found = []
    for n_threads in (1, 2, 3, 7):
        params = parameters((130, 41), (4097,), (3,), (64, 64))
        optimizer = AdamW8(params, moments=moments, n_threads=n_threads)
        train(optimizer, params, range(3))
        found.append((params, optimizer))
    for params, optimizer in found[1:]:
        assert all(torch.equal(p, q) for p, q in zip(params, found[0][0], strict=True))
        assert_same_state(optimizer, found[0][1])


@pytest.mark.parametrize("plain", [True, False])
@MOMENTS
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_restored_optimizer_goes_on_bit_for_bit(plain, moments, taken):
    unbroken = parameters((70, 100), (17,))
    optimizer = AdamW8(unbroken, moments=moments, plain=plain)
    train(optimizer, unbroken, range(taken))
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in unbroken]
    saved = copy.deepcopy(optimizer.state_dict())
    train(optimizer, unbroken, range(taken, 5))

    other = AdamW8(resumed, moments=moments, plain=plain)
    other.load_state_dict(saved)
    train(other, resumed, range(taken, 5))
    assert all(torch.equal(p, q) for p, q in zip(resumed, unbroken, strict=True))
    assert_same_state(other, optimizer)


def test_groups_choose_their_moments_and_small_tensors_keep_fp32():
    large, small, narrow = parameters((64, 64), (MIN_8BIT_SIZE - 1,), (64, 64))
    optimizer = AdamW8([{"params": [large, small]}, {"params": [narrow], "moments": "bfloat16"}])
    train(optimizer, [large, small, narrow], [0])
    dtypes = [optimizer.state[p]["exp_avg_sq"].dtype for p in (large, small, narrow)]
    assert dtypes == [torch.uint8, torch.float32, torch.bfloat16]
    assert optimizer.state_bytes() == 2 * (4096 + 16 * 4) + 8 * 4095 + 4 * 4096


def test_a_parameter_without_a_gradient_stays_and_takes_no_step():
    moved, still = parameters((64, 64), (64, 64))
    before = still.detach().clone()
    optimizer = AdamW8([moved, still], weight_decay=0.5)
    train(optimizer, [moved], range(2))
    assert torch.equal(still, before) and still not in optimizer.state
    give_gradients([still], 0)
    optimizer.step()
    assert [int(optimizer.state[p]["step"]) for p in (moved, still)] == [3, 1]


@pytest.mark.parametrize("plain", [True, False])
def test_a_gradient_laid_out_otherwise_is_read_aright(plain):
    (straight,), (turned,) = parameters((64, 96)), parameters((64, 96))
    give_gradients([straight], 0)
    turned.grad = straight.grad.T.contiguous().T
    for parameter in (straight, turned):
        AdamW8([parameter], plain=plain).step()
    assert torch.equal(straight, turned)


@pytest.mark.parametrize("plain", [True, False])
def test_what_is_no_number_is_not_hidden_and_stays_in_its_block(plain):
    (parameter,) = parameters((2 * MIN_8BIT_SIZE,))
    parameter.grad = torch.ones_like(parameter)
    parameter.grad[5] = torch.nan
    optimizer = AdamW8([parameter], plain=plain)
    optimizer.step()
    assert parameter.isnan().nonzero().tolist() == [[5]]
    scales = optimizer.state[parameter]["exp_avg_scales"]
    assert scales.isnan().nonzero().tolist() == [[0]]


@pytest.mark.parametrize("plain", [True, False])
def test_a_second_moment_too_small_for_its_block_makes_no_long_step(plain):
    """Beside a gradient of 1 one of 1e-4 has a square 1e-8 times as large, less than half the smallest value. Were it
    stored as 0, a gradient of 0 after it would make a step of 1e-5 / eps = 1000 rates; so it is at most one."""
    (parameter,) = parameters((MIN_8BIT_SIZE,))
    optimizer = AdamW8([parameter], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, plain=plain)
    for small in (1e-4, 0.0):
        parameter.grad = torch.ones_like(parameter)
        parameter.grad[7] = small
        before = parameter.detach().clone()
        optimizer.step()
    assert 0 < (parameter - before)[7].abs() < 1e-3


def test_the_closure_is_called_with_gradients_on():
    (parameter,) = parameters((64, 64))

    def closure():
        parameter.grad = None
        loss = parameter.square().sum()
        loss.backward()
        return loss

    optimizer = AdamW8([parameter], lr=1e-2)
    assert optimizer.step(closure) > optimizer.step(closure) > optimizer.step(closure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moments": "4bit"}, "no moments '4bit'"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"betas": (0.9, 1.0)}, "betas=\\(0.9, 1.0\\)"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        AdamW8(parameters((4,)), **options)


def test_parameters_it_cannot_move_are_refused():
    with pytest.raises(UserError, match=r"torch.bfloat16 \[4\]"):
        AdamW8([torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))])
    with pytest.raises(UserError, match="non-contiguous"):
        AdamW8([torch.nn.Parameter(torch.zeros(4, 6).T)])
    (parameter,) = parameters((4,))
    parameter.grad = torch.ones(4).to_sparse()
    with pytest.raises(UserError, match="no sparse gradients"):
        AdamW8([parameter]).step()


def test_the_state_of_another_tensor_or_of_other_moments_is_refused():
    def saved(moments, shape=(64, 64)):
        params = parameters(shape)
        optimizer = AdamW8(params, moments=moments)
        train(optimizer, params, [0])
        return optimizer.state_dict()

    for state_dict in (saved("8bit", (64, 65)), saved("float32") | {"param_groups": saved("8bit")["param_groups"]}):
        with pytest.raises(UserError, match="the optimizer's state has"):
            AdamW8(parameters((64, 64))).load_state_dict(state_dict)
