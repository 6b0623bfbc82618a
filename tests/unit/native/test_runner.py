"""What the native runner does beyond the engine's own tests: its sampler, its processors, its threads."""

import os

import numpy as np
import pytest
import torch

from smallpress import _native
from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner
from smallpress.engine.randomness import uniforms
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.sampler import sample
from smallpress.model.config import Window
from smallpress.run.errors import UserError

PROMPT = (1, 5, 599, 33, 33, 2, 471, 18, 7, 5, 9)


def one_step(runner, rows: int):
    """Run PROMPT once and leave logits of its last `rows` tokens."""
    n = len(PROMPT)
    numbers = np.arange(n)
    runner.core.forward(np.array(PROMPT), numbers, numbers[:3], np.zeros(n, dtype=np.int64), numbers[n - rows :])


PARAMS = [
    SamplingParams(temperature=t, top_p=p, top_k=k, min_p=m, seed=seed)
    for seed, (t, p, k, m) in enumerate(
        [(1.0, 1.0, 0, 0.0), (0.0, 1.0, 0, 0.0), (0.7, 0.9, 0, 0.0), (1.3, 1.0, 5, 0.0), (1.0, 0.5, 40, 0.02),
         (2.0, 1.0, 0, 0.1), (1.0, 1.0, 1, 0.0), (0.3, 0.999, 599, 0.0)]
    )
]  # fmt: skip


def test_the_sampler_draws_what_the_torch_sampler_draws(runner):
    core = runner()
    one_step(core, rows=8)
    logits = torch.from_numpy(core.core.logits())
    for turn in range(200):
        indices = [turn] * len(PARAMS)
        wanted_ids, wanted_logprobs = sample(logits, PARAMS, indices)
        ids, logprobs = core.core.sample(
            list(range(8)),
            [p.temperature for p in PARAMS],
            [p.top_k for p in PARAMS],
            [p.top_p for p in PARAMS],
            [p.min_p for p in PARAMS],
            uniforms([p.seed for p in PARAMS], indices).tolist(),
        )
        assert ids == wanted_ids
        assert logprobs == pytest.approx(wanted_logprobs, abs=1e-5)


@pytest.mark.parametrize("uniform", (0.0, 1.0 - 2.0**-53))
def test_the_ends_of_the_draw_are_ids_that_can_be_drawn(runner, uniform):
    core = runner()
    one_step(core, rows=1)
    weights = np.exp(core.core.logits()[0].astype(np.float64))
    (id,), (logprob,) = core.core.sample([0], [1.0], [0], [1.0], [0.0], [uniform])
    assert 0 <= id < len(weights) and np.isfinite(logprob)
    (id,), _ = core.core.sample([0], [1.0], [3], [1.0], [0.0], [uniform])
    assert weights[id] in sorted(weights)[-3:]


@pytest.mark.parametrize("kernels", ("neon", "dotprod", "i8mm", "avx2", "avx512", "amx"))
def test_every_instruction_set_gives_the_references_logits(runner, kernels):
    if not _native.can_run(kernels):
        pytest.skip(f"this processor has no {kernels}")
    found = []
    for name in ("scalar", kernels):
        core = runner(name)
        assert core.core.kernels == name
        one_step(core, rows=8)
        found.append(core.core.logits())
    # A code that rounding puts elsewhere moves a logit by a thousandth of the largest, which is about 10.
    np.testing.assert_allclose(found[1], found[0], atol=0.05)


def test_a_cache_in_8_bits_is_half_as_large_and_hardly_moves_a_logit(runner):
    wide, narrow = runner(packing="bfloat16"), runner(packing="bfloat16", cache="int8")
    # A page of a head: 16 lanes x 16 numbers of 2 bytes, or of 1 byte with 16 scales of 4.
    assert (wide.page_bytes, narrow.page_bytes) == (8 * 16 * 16 * 2, 8 * (16 * 16 + 16 * 4))
    assert wide.page_form != narrow.page_form
    for core in (wide, narrow):
        one_step(core, rows=8)
    difference = np.abs(narrow.core.logits() - wide.core.logits())
    assert 0 < difference.mean() < 0.05  # of 10


def test_with_a_cache_in_8_bits_a_request_generates_alone_what_it_does_among_others(config, named):
    def engine():
        return Engine(NativeRunner(config, named, page_size=4, n_pages=200, cache="int8"))

    requests = [Request(PROMPT[:n], SamplingParams(max_tokens=12, seed=n)) for n in range(1, 12, 3)]
    together = engine().generate(requests)
    assert [engine().generate([one])[0].logprobs for one in requests] == [c.logprobs for c in together]


def test_a_forked_process_starts_threads_of_its_own(runner, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    engine = Engine(runner())
    params = SamplingParams(max_tokens=8, seed=3)
    before = engine.generate([PROMPT] * 3, params)
    child = os.fork()
    if child == 0:
        same = [c.ids for c in engine.generate([PROMPT] * 3, params)] == [c.ids for c in before]
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [c.ids for c in engine.generate([PROMPT] * 3, params)] == [c.ids for c in before]


def test_the_number_of_threads_changes_nothing(runner, monkeypatch):
    completions = []
    for n in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", n)
        completions.append(Engine(runner()).generate([PROMPT, PROMPT[:3]], SamplingParams(max_tokens=20)))
    assert completions[0] == completions[1] == completions[2]


@pytest.mark.parametrize("page_size", [4, 16])
@pytest.mark.parametrize("how", [{}, {"cache": "int8"}])
@pytest.mark.parametrize("window", [None, Window(length=530, layers=(1,))])
def test_long_contexts_shared_out_among_threads_give_the_same_bits(config, named, monkeypatch, window, how, page_size):
    """With two heads of keys, more than two threads share the tokens of each."""
    heads = config.attention.model_copy(update={"window": window})
    longer = config.model_copy(update={"max_seq_len": 1024, "attention": heads})
    prompt, logits = [(7 * n + n // 11) % 600 for n in range(550)], []
    for n in ("1", "3", "8"):
        monkeypatch.setenv("OMP_NUM_THREADS", n)
        runner = NativeRunner(longer, named, page_size=page_size, n_pages=200, **how)
        logits.append(Engine(runner).generate([prompt], SamplingParams(max_tokens=6, seed=1))[0])
    assert logits[0] == logits[1] == logits[2] and len(logits[0].ids) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": np.array([600])}, "outside the vocabulary"),
        ({"ids": np.array([-1])}, "outside the vocabulary"),
        ({"positions": np.array([4])}, "beyond its page table"),
        ({"positions": np.array([-1])}, "beyond its page table"),
        ({"starts": np.array([1])}, "beyond its page table"),
        ({"tables": np.array([200])}, "no such page"),
        ({"logit_rows": np.array([1])}, "row that is not there"),
        ({"positions": np.array([0, 1])}, "differ in length"),
    ],
)
def test_arrays_that_would_read_beyond_their_end_are_refused(runner, change, message):
    zero = np.zeros(1, dtype=np.int64)
    given = {"ids": zero, "positions": zero, "tables": zero, "starts": zero, "logit_rows": zero} | change
    with pytest.raises(ValueError, match=message):
        runner().core.forward(*given.values())


def test_a_request_generates_alone_what_it_does_among_others_to_the_bit(runner):
    requests = [Request(PROMPT[:n], SamplingParams(max_tokens=12, seed=n)) for n in range(1, 12)]
    together = Engine(runner()).generate(requests)
    assert [Engine(runner()).generate([one])[0].logprobs for one in requests] == [c.logprobs for c in together]


@pytest.mark.parametrize("kernels", ["", "scalar"])
@pytest.mark.parametrize(
    ("packing", "fits", "too_large"),
    # In int8 a block of 64 is turned: one large number becomes 64 of an eighth of it.
    [("int8", 8 * 127 * 65504.0, 8 * 127 * 65536.0), ("int4", 65504.0, -65536.0), ("bfloat16", 1e30, np.inf)],
)
def test_a_weight_whose_scale_fp16_does_not_hold_is_refused_by_name(config, named, kernels, packing, fits, too_large):
    name = "layers.1.mlp.up.weight"

    def with_one(value):
        changed = named[name].copy()
        changed[79, 47] = value
        return NativeRunner(config, named | {name: changed}, 4, 4, kernels, packing)

    with_one(fits)
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up\.weight holds NaN, infinity, or a number too large"):
        with_one(too_large)
