"""Low-rank adapters beside the weights: the model they would be merged into, row by row, with prefixes of their own."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from smallpress.engine.drafts import PromptLookup
from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner
from smallpress.engine.pages import root_key
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.torch_runner import TorchRunner
from smallpress.run.errors import UserError
from smallpress.weights.adapter import Adapter

PARTS = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
LOGITS_BF16 = 0.5
"""Between fp32 and weights, adapters and activations in bf16; logits reach 15, adapters change some by over 2.5."""


def adapter_of(model, seed, rank=5, parts=PARTS):
    """Of a scale that moves every logprob by some tenths."""
    draw, named = np.random.default_rng(seed), dict(model.named_parameters())
    pairs = {}
    for layer in (f"layers.{i}.{part}" for i in range(2) for part in parts):
        n_out, n_in = named[f"{layer}.weight"].shape
        a, b = (draw.normal(0, 1, shape).astype("f4") for shape in ((rank, n_in), (n_out, rank)))
        pairs[layer] = a * n_in**-0.5, b * rank**-0.5
    return Adapter(pairs, dict.fromkeys(pairs, 0.5))


def merged(model, adapter):
    whole = deepcopy(model)
    with torch.no_grad():
        for layer in adapter.pairs:
            whole.get_submodule(layer).weight += torch.from_numpy(adapter.change(layer))
    return whole


@pytest.fixture
def asked(prompt):
    """Of the model and two adapters: prompts of one token and of more, greedy and sampled."""
    params = SamplingParams(max_tokens=6, temperature=0.0)
    return [
        Request(prompt(n, seed=n), params if n % 2 else replace(params, temperature=0.8, seed=n), adapter=adapter)
        for n, adapter in zip((1, 9, 30, 9, 17, 1, 8, 30, 5), (1, 0, 2, 2, 1, 2, 0, 1, 0), strict=True)
    ]


def test_what_an_adapter_adds_is_what_it_changes_when_merged(model, make_engine, asked, assert_equals_one_pass):
    adapters = [adapter_of(model, 1), adapter_of(model, 2, rank=3, parts=PARTS[2:6])]
    engine = make_engine()
    assert [engine.add_adapter(adapter) for adapter in adapters] == [1, 2]
    models = [model, *(merged(model, adapter) for adapter in adapters)]
    for request, completion in zip(asked, engine.generate(asked), strict=True):
        assert_equals_one_pass(models[request.adapter], request, completion)


def test_models_without_a_packed_form_add_the_same(model, asked, monkeypatch):
    found = []
    for packed in (True, False):
        monkeypatch.setattr("smallpress.engine.torch_runner.has_packed_form", lambda _, packed=packed: packed)
        engine = Engine(TorchRunner(model, 4, 200, torch.float32))
        for seed in (1, 2):
            engine.add_adapter(adapter_of(model, seed))
        found.append(engine.generate(asked))
    assert [one.ids for one in found[0]] == [one.ids for one in found[1]]


@pytest.mark.parametrize("kernels", ["scalar", ""])
def test_the_core_adds_them_as_exactly_as_bf16_is(model, full_logits, prompt, kernels):
    """With weights in bf16, so that the codes' error does not hide the adapters'."""
    adapter, ids = adapter_of(model, 1), prompt(23)
    runner = NativeRunner(model.config, dict(model.named_parameters()), 4, 8, kernels, "bfloat16")
    n = np.arange(len(ids))

    def logits(adapters_N):
        runner.core.forward(np.array(ids), n, np.arange(6), np.zeros_like(n), n, adapters_N)
        return torch.from_numpy(runner.core.logits())

    assert runner.add_adapter(adapter) == 1
    plain, adapted = full_logits(model, ids), full_logits(merged(model, adapter), ids)
    assert (plain - adapted).abs().amax(-1).min() > 5 * LOGITS_BF16
    torch.testing.assert_close(logits(np.ones_like(n)), adapted, atol=LOGITS_BF16, rtol=0)
    torch.testing.assert_close(logits(np.zeros_like(n)), plain, atol=LOGITS_BF16, rtol=0)
    with pytest.raises(ValueError, match="there is no such adapter"):
        logits(np.full_like(n, 2))


def test_a_mixed_batch_gives_each_request_what_it_gets_alone(model, make_engine, asked, runner_kind):
    def engine(**settings):
        made = make_engine(**settings)
        for seed in (1, 2):
            made.add_adapter(adapter_of(model, seed))
        return made

    alone = [engine().generate([request])[0] for request in asked]
    for settings in ({}, {"token_budget": 11}, {"drafter": PromptLookup}):
        together = engine(**settings).generate(asked)
        assert [one.ids for one in together] == [one.ids for one in alone]
        logprobs = [np.concatenate([one.logprobs for one in many]) for many in (together, alone)]
        np.testing.assert_allclose(*logprobs, atol=0 if runner_kind == "native" else 5e-5)


def test_prefixes_are_shared_within_an_adapter_only(model, make_engine, prompt):
    engine = make_engine()
    for seed in (1, 2):
        engine.add_adapter(adapter_of(model, seed))
    asked = [Request(prompt(21), SamplingParams(max_tokens=2), adapter=adapter) for adapter in (0, 1, 2)]
    assert [done.n_cached for request in asked for done in engine.generate([request])] == [0, 0, 0]
    assert [done.n_cached for request in asked for done in engine.generate([request])] == [20, 20, 20]
    together = engine.generate([*asked, *asked])
    assert together[0].ids == together[3].ids and together[1].ids == together[4].ids != together[0].ids


def test_prefixes_on_disk_are_named_by_the_adapters_numbers_and_the_salt(model):
    marks = [adapter_of(model, seed).mark() for seed in (1, 1, 2)]
    assert marks[0] == marks[1] != marks[2]
    roots = [root_key(salt, mark) for salt in (b"", b"secret") for mark in (b"", marks[0], marks[2])]
    assert len(set(roots)) == 6


def test_an_adapter_of_a_layer_that_is_run_in_another_form_is_refused(model):
    pairs = {"layers.0.mlp.router": (np.ones((1, 20), "f4"), np.ones((8, 1), "f4"))}
    runners = TorchRunner(model, 4, 8, torch.float32), NativeRunner(model.config, dict(model.named_parameters()), 4, 8)
    for runner in runners:
        with pytest.raises(UserError, match=r"layers\.0\.mlp\.router, which is run in another form"):
            runner.add_adapter(Adapter(pairs, dict.fromkeys(pairs, 1.0)))
