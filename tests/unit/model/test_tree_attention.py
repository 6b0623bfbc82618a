"""Attention over a token tree in the native core beside torch's, by every table of kernels and number of threads."""

import numpy as np
import pytest
import torch

from smallpress.lowbit.native_core import native_core
from smallpress.model import attention
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import Window

pytestmark = pytest.mark.skipif(native_core() is None, reason="of the native core")

RUNS = native_core().can_run if native_core() else lambda name: False
KERNELS = [pytest.param(name, marks=pytest.mark.skipif(not RUNS(name), reason="not on this processor"))
           for name in ("scalar", "avx2", "avx512", "amx", "neon", "dotprod", "i8mm")]  # fmt: skip
FP32 = 1e-5
"""Of the largest number, or of 1: gradients are differences of numbers of that size."""

TREES = {
    "one token": TokenTree((Group(1),)),
    "one long sequence": TokenTree((Group(300),)),
    "many sequences": TokenTree(tuple(Group(n) for n in (1, 15, 16, 17, 40, 3))),
    "answers, some of none": TokenTree((Group(2, (0, 3, 0, 1)), Group(33, (17, 64)))),
    "prefix, three groups": TokenTree((Group(2, (5, 1, 33)), Group(1, (0, 7)), Group(4, ())), 19),
    "all of the first prompt is prefix": TokenTree((Group(0, (2, 30)), Group(2, (1,))), 4),
    "a prefix and twenty groups": TokenTree(tuple(Group(n, (n, 20 - n)) for n in range(20)), 5),
    "only a prefix": TokenTree((), 5),
}
SHAPES = [(1, 1, 16, 16), (6, 2, 32, 48), (9, 3, 64, 64)]
"""H, K, D, W."""


def arrays(tree, shape, seed=0):
    """Queries, keys, values, and a gradient of the output."""
    (H, K, D, W), generator = shape, torch.Generator().manual_seed(seed)
    return [torch.randn(tree.n_tokens, *of, generator=generator) for of in ((H, D), (K, D), (K, W), (H, W))]


def attended(tree, given):
    """Output and the gradients of what is given, through autograd."""
    q, k, v = (x.clone().requires_grad_() for x in given[:3])
    out = PackedCausal(tree)(0, q, k, v)
    out.backward(given[3])
    return [out.detach(), q.grad, k.grad, v.grad]


def by_the_core(tree, given, kernels="", n_threads=2):
    q, k, v, gradient = (x.numpy() for x in given)
    (N, H, D), W = q.shape, v.shape[-1]
    out, lse = np.full((N, H, W), np.nan, np.float32), np.full((N, H), np.nan, np.float32)
    grads = [np.full_like(q, np.nan), np.zeros_like(k), np.zeros_like(v)]
    core, segments = native_core(), tree.segments()
    core.tree_attention(n_threads, segments, q, k, v, D**-0.5, out, lse, kernels)
    core.tree_attention_backward(n_threads, segments, q, k, v, D**-0.5, out, lse, gradient, *grads, kernels)
    return [torch.from_numpy(x) for x in (out, *grads)]


def assert_close(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=FP32 * max(1.0, theirs.abs().max().item()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_it_is_torchs_in_value_and_gradient(tree, shape, monkeypatch):
    given = arrays(tree, shape)
    ours = attended(tree, given)
    monkeypatch.setattr(attention, "runs_natively", lambda *_: False)
    assert_close(ours, attended(tree, given))


@pytest.mark.parametrize("kernels", KERNELS)
def test_every_table_computes_the_same(kernels):
    tree = TREES["prefix, three groups"]
    given = arrays(tree, SHAPES[1])
    assert_close(by_the_core(tree, given, kernels), attended(tree, given))


@pytest.mark.parametrize("name", ["prefix, three groups", "a prefix and twenty groups", "many sequences"])
def test_the_number_of_threads_changes_no_bit(name):
    given = arrays(TREES[name], SHAPES[2])
    alone = by_the_core(TREES[name], given, n_threads=1)
    for n_threads in (2, 3, 7):
        for ours, theirs in zip(by_the_core(TREES[name], given, n_threads=n_threads), alone, strict=True):
            assert torch.equal(ours, theirs)


def test_large_scores_do_not_overflow():
    tree = TREES["answers, some of none"]
    given = arrays(tree, SHAPES[0])
    given[0] *= 1e4
    assert all(x.isfinite().all() for x in attended(tree, given))


def test_layers_with_a_window_other_dtypes_and_odd_heads_are_left_to_torch(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(attention, "tree_attention", never)
    tree = TREES["many sequences"]
    q, k, v, _ = arrays(tree, SHAPES[0])
    PackedCausal(tree, window=Window(length=3, layers=(0,)))(0, q, k, v)
    PackedCausal(tree, torch.bfloat16)(0, q.bfloat16(), k.bfloat16(), v.bfloat16())
    PackedCausal(tree)(0, q[..., :6], k[..., :6], v)
    with pytest.raises(AssertionError):
        PackedCausal(tree)(0, q, k, v)


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ([(0, 3, -1, 0)], "hold all tokens"),
        ([(0, 2, -1, 0), (3, 2, -1, 1)], "misplaced"),
        ([(0, 2, -1, 0), (2, 3, 1, 0)], "misplaced"),
        ([(0, 2, -1, 0), (2, 3, -1, -1)], "first"),
        ([(0, 2, -1, 1), (2, 3, -1, 0)], "side by side"),
        ([(0, 2, -1, 0), (2, 3, 0, 1)], "another unit"),
        ([(0, 1, -1, 0), (1, 1, 0, 0), (2, 1, 1, 0), (3, 2, 2, 0)], "too many ancestors"),
    ],
)
def test_segments_that_are_no_tree_are_refused(segments, said):
    q, k, v, _ = (x.numpy() for x in arrays(TokenTree((Group(5),)), SHAPES[0]))
    out, lse = np.empty((5, 1, 16), np.float32), np.empty((5, 1), np.float32)
    with pytest.raises(ValueError, match=said):
        native_core().tree_attention(1, np.array(segments, np.int64), q, k, v, 1.0, out, lse)


def test_arrays_that_do_not_fit_are_refused():
    tree = TokenTree((Group(5),))
    q, k, v, _ = (x.numpy() for x in arrays(tree, SHAPES[1]))
    N, H, W = 5, 6, 48
    out, lse = np.empty((N, H, W), np.float32), np.empty((N, H), np.float32)
    run, segments = native_core().tree_attention, tree.segments()
    for wrong in (
        (q[:4].copy(), k, v, 1.0, out, lse),
        (q[:, :5].copy(), k, v, 1.0, out, lse),
        (q[..., :31].copy(), k[..., :31].copy(), v, 1.0, out, lse),
        (q, k[..., :16].copy(), v, 1.0, out, lse),
        (q, k, v, 1.0, out[..., :16].copy(), lse),
        (q, k, v, 1.0, out, lse[:3].copy()),
    ):
        with pytest.raises(ValueError):
            run(1, segments, *wrong)
