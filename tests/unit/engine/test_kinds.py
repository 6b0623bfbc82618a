"""The torch runner on every kind of model: what the pages hold must not show in what comes out."""

import pytest
import torch

from smallpress.engine.drafts import PromptLookup
from smallpress.engine.engine import Engine
from smallpress.engine.pages import page_bytes
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.torch_runner import TorchRunner
from smallpress.model.attention import Group, PackedCausal, TokenTree

REASSOCIATION = 2e-4
"""Of log-probabilities of logits up to 10, absorbed latents against plain ones."""


@torch.no_grad()
def one_pass(model, ids):
    attend = PackedCausal(TokenTree((Group(len(ids)),)), window=model.config.attention.window)
    return model.logits(model(torch.tensor(ids), torch.arange(len(ids)), attend))


def assert_says_what_one_pass_says(model, request, completion):
    n = len(request.prompt_ids)
    logits = one_pass(model, request.prompt_ids + completion.ids)[n - 1 : -1]
    logprobs = (logits / (request.params.temperature or 1.0)).log_softmax(-1)
    said = logprobs.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
    assert said.tolist() == pytest.approx(completion.logprobs, abs=REASSOCIATION)
    if request.params.temperature == 0.0:
        assert list(completion.ids) == logits.argmax(-1).tolist()


def test_pages_equal_one_pass_for_groups_long_and_short(odd_model, mixed):
    """Rollouts that share prompts, longer than the windows, decoded together."""
    engine = Engine(TorchRunner(odd_model, page_size=4, n_pages=300, dtype=torch.float32))
    for request, completion in zip(mixed, engine.generate(mixed), strict=True):
        assert_says_what_one_pass_says(odd_model, request, completion)
    engine.check_integrity()


def test_a_prompt_in_pieces_and_a_preempted_request_equal_one_pass(odd_model, prompt):
    requests = [Request(prompt(n, seed=n), SamplingParams(max_tokens=12, temperature=0.0)) for n in (9, 14, 23, 30)]
    runner = TorchRunner(odd_model, page_size=4, n_pages=17, dtype=torch.float32)  # too few for all at once
    for request, completion in zip(requests, Engine(runner, token_budget=8).generate(requests), strict=True):
        assert_says_what_one_pass_says(odd_model, request, completion)


def test_guessed_text_changes_nothing(odd_model, prompt):
    """Several tokens of one sequence in a step, behind a cache, some of them thrown away."""
    request = Request(prompt(5) * 4, SamplingParams(max_tokens=20, temperature=0.0))
    engine = Engine(TorchRunner(odd_model, page_size=4, n_pages=60, dtype=torch.float32), drafter=PromptLookup)
    assert_says_what_one_pass_says(odd_model, request, engine.generate([request])[0])


def test_new_weights_are_taken_over(odd_model, random_model, prompt):
    other = random_model(odd_model.config)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    engine = Engine(TorchRunner(odd_model, page_size=4, n_pages=60, dtype=torch.float32))
    request = Request(prompt(8), SamplingParams(max_tokens=6, temperature=0.0))
    engine.update_weights(dict(other.named_parameters()))
    assert_says_what_one_pass_says(other, request, engine.generate([request])[0])


def test_it_runs_in_bf16_with_its_selection_bias_in_fp32(odd_model, mixed):
    runner = TorchRunner(odd_model, page_size=4, n_pages=300, dtype=torch.bfloat16)
    completions = Engine(runner).generate(mixed)
    assert all(len(c.ids) == r.params.max_tokens for r, c in zip(mixed, completions, strict=True))
    if odd_model.config.family == "deepseek_v3":
        for name, parameter in runner.model.model.named_parameters():
            assert parameter.dtype == (torch.float32 if name.endswith("expert_bias") else torch.bfloat16), name


def test_the_cache_of_latents_is_as_large_as_the_formula_says(config_of, random_model):
    config = config_of["latent, experts, mtp"]
    runner = TorchRunner(random_model(config), page_size=4, n_pages=10, dtype=torch.bfloat16)
    assert page_bytes(config, 4, 16) == 3 * 4 * (12 + 4) * 2  # layers, tokens, latent and rotated key, bytes
    assert runner.kv.nbytes == 10 * page_bytes(config, 4, 16)
