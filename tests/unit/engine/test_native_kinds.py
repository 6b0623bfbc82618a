"""The native runner on every kind of model, in every packing, beside the torch model of the same rounded weights."""

import copy

import numpy as np
import pytest
import torch

from smallpress import _native
from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import BITS, NativeRunner
from smallpress.engine.pages import page_bytes
from smallpress.engine.request import Request, SamplingParams
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import GQA, MLA, Dense, ModelConfig, MoE

GAPS = {"bfloat16": 0.03, "int8": 0.15, "int4": 0.15}
"""Of the logits' spread, in the middle row: what rounding the activations does. Where two experts are as good, a row
may go to the other one; in few bits rows do so more often than not somewhere, and only half of them must not."""

SIZES = {"vocab_size": 61, "dim": 24, "n_layers": 2, "norm_eps": 1e-5, "rope_theta": 1e4, "max_seq_len": 2048}
ENDS = {
    "one expert": MoE(n_routed_experts=1, n_active_experts=1, moe_inter_dim=9),
    "all experts": MoE(n_routed_experts=5, n_active_experts=5, moe_inter_dim=9, normalize=False, score="sigmoid"),
}
LATENT = MLA(n_heads=17, kv_lora_rank=11, qk_nope_head_dim=3, qk_rope_head_dim=2, v_head_dim=5)
"""More heads than are computed together; a row of 13 numbers."""


@torch.no_grad()
def one_pass(model, ids):
    attend = PackedCausal(TokenTree((Group(len(ids)),)), window=model.config.attention.window)
    return model.logits(model(torch.tensor(ids), torch.arange(len(ids)), attend)).numpy()


def native_logits(model, ids, packing, page_size=4):
    n_pages = -(-len(ids) // page_size)
    runner = NativeRunner(model.config, dict(model.named_parameters()), page_size, n_pages, packing=packing)
    place = np.arange(len(ids))
    runner.core.forward(np.array(ids), place, np.arange(n_pages), np.zeros_like(place), place)
    return runner.core.logits()


def middle_gap(found, wanted):
    return np.median(np.sqrt(((found - wanted) ** 2).mean(-1))) / wanted.std()


@torch.no_grad()
def rounded(model, bits):
    """The same model with its matrices as the core has them."""

    def numbers(rows):
        return torch.from_numpy(_native.pack("", rows.contiguous().numpy(), bits).numbers())

    other = copy.deepcopy(model)
    for name, weight in other.named_parameters():
        if name.endswith("kv_b.weight"):  # the keys' part of each head lies turned
            mla = model.config.attention
            k_HPC, v_HWC = weight.view(mla.n_heads, -1, weight.shape[1]).split(
                (mla.qk_nope_head_dim, mla.v_head_dim), 1
            )
            for k_PC, v_WC in zip(k_HPC, v_HWC, strict=True):
                k_PC.copy_(numbers(k_PC.T).T)
                v_WC.copy_(numbers(v_WC))
        elif weight.ndim == 3:
            for matrix in weight:
                matrix.copy_(numbers(matrix))
        elif weight.ndim == 2 and "router" not in name:
            weight.copy_(numbers(weight))
    return other


@pytest.mark.parametrize("packing", GAPS)
def test_logits_are_the_torch_models_of_the_same_weights(odd_model, prompt, packing):
    ids = prompt(37)
    found = native_logits(odd_model, ids, packing)
    assert middle_gap(found, one_pass(rounded(odd_model, BITS[packing]), ids)) < GAPS[packing]


@pytest.mark.parametrize("name", ENDS)
def test_one_expert_and_all_of_them(random_model, prompt, name):
    config = ModelConfig(
        family="qwen3_moe", attention=GQA(n_heads=3, n_kv_heads=1, head_dim=6), ffn=ENDS[name], **SIZES
    )
    model, ids = random_model(config), [id % 61 for id in prompt(20)]
    assert middle_gap(native_logits(model, ids, "bfloat16"), one_pass(model, ids)) < GAPS["bfloat16"]


def test_a_long_text_of_latents_read_in_spans(random_model, prompt, monkeypatch):
    """Three spans of 512 tokens. At once a prompt takes the plain form; in few rows a step it is absorbed, and then, of
    the last rows, one by one by several threads: the same bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    config = ModelConfig(family="deepseek_v2", attention=LATENT, ffn=Dense(inter_dim=20), tied_head=True, **SIZES)
    model, ids = random_model(config), [id % 61 for id in prompt(1100)]
    wanted, found = one_pass(model, ids), native_logits(model, ids, "bfloat16", page_size=12)
    assert middle_gap(found, wanted) < GAPS["bfloat16"]
    runner = NativeRunner(config, dict(model.named_parameters()), 12, 92, packing="bfloat16")
    place, table = np.arange(1100), np.arange(92)

    def step(first, end):
        n = end - first
        runner.core.forward(np.array(ids[first:end]), place[first:end], table, np.zeros_like(place[:n]), place[:n])
        return runner.core.logits()

    absorbed = np.concatenate([step(first, first + 50) for first in range(0, 1100, 50)])
    assert middle_gap(absorbed, wanted) < GAPS["bfloat16"]
    assert not np.array_equal(absorbed[-1], found[-1])
    assert np.array_equal(np.concatenate([step(n, n + 1) for n in range(1095, 1100)]), absorbed[-5:])


def test_greedy_ids_are_torchs_where_its_margins_are_wide(odd_model, mixed):
    """Groups that share prompts, longer than the windows, decoded together with prompts in pieces."""
    runner = NativeRunner(odd_model.config, dict(odd_model.named_parameters()), 4, 300, packing="bfloat16")
    greedy = [Request(r.prompt_ids, SamplingParams(max_tokens=9, temperature=0.0)) for r in mixed]
    n_wide = n_other = 0
    for request, completion in zip(greedy, Engine(runner, token_budget=24).generate(greedy), strict=True):
        logits = one_pass(odd_model, request.prompt_ids + completion.ids)[len(request.prompt_ids) - 1 : -1]
        second, best = np.sort(logits, -1)[:, -2:].T
        wide = best - second > 0.3 * logits.std()
        n_wide += wide.sum()
        n_other += (logits.argmax(-1) != completion.ids)[wide].sum()
    assert n_wide > 40
    routed = isinstance(odd_model.config.ffn, MoE)  # a row may have gone to another expert
    assert n_other <= (0.05 * n_wide if routed else 0), f"{n_other} of {n_wide}"


def test_a_request_says_alone_what_it_says_among_others_and_preempted(odd_model, mixed):
    def run(requests, n_pages, **settings):
        runner = NativeRunner(odd_model.config, dict(odd_model.named_parameters()), 4, n_pages)
        engine = Engine(runner, **settings)
        said = [(c.ids, c.logprobs) for c in engine.generate(requests)]
        engine.check_integrity()
        return said, engine.stats()

    together, stats = run(mixed, 300)
    assert stats.cached_tokens > 0
    crowded, stats = run(mixed, 17, token_budget=8)  # too few pages for all at once
    assert stats.n_preempted > 0
    assert together == crowded == [run([one], 300, share_prefixes=False)[0][0] for one in mixed]


def test_the_cache_of_latents_is_as_large_as_the_formula_says(config_of, random_model):
    config = config_of["latent, experts, mtp"]
    runner = NativeRunner(config, dict(random_model(config).named_parameters()), page_size=16, n_pages=10)
    assert runner.core.cache_bytes == 10 * page_bytes(config, 16, 16)
