"""Chunked log-probabilities are log softmax, in value and gradient."""

import math

import pytest
import torch

from smallpress.model import token_logprobs as module
from smallpress.model.token_logprobs import token_logprobs

FP32 = 1e-5
BF16_LOGPROBS = 0.05  # nats, for logits within about 4 of zero


@pytest.fixture(autouse=True, params=["kept", "made again"])
def _probabilities(request, monkeypatch):
    """Of few rows they are kept for the backward pass, of many not."""
    if request.param == "made again":
        monkeypatch.setattr(module, "KEPT", 0)


def random_case(n=7, dim=5, vocab_size=11, scale=1.0):
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(n, dim, generator=generator) * scale
    head = torch.randn(vocab_size, dim, generator=generator)
    ids = torch.randint(0, vocab_size, (n,), generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), ids


def reference(hidden, head, ids, temperature):
    logprobs = (hidden.double() @ head.double().T / temperature).log_softmax(-1)
    return logprobs.gather(-1, ids[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("chunk", [1, 3, 7, 512])
@pytest.mark.parametrize("temperature", [0.25, 1.0, 1.7])
def test_they_are_log_softmax_in_value_and_gradient(monkeypatch, chunk, temperature):
    monkeypatch.setattr(module, "CHUNK", chunk)
    hidden, head, ids = random_case()
    ours, entropy = token_logprobs(hidden, head, ids, temperature)
    plain, plain_entropy = reference(hidden, head, ids, temperature)
    assert ours.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(ours.double(), plain, rtol=FP32, atol=FP32)
    torch.testing.assert_close(entropy.double(), plain_entropy, rtol=FP32, atol=FP32)

    cotangent = torch.randn(7)
    found = torch.autograd.grad(ours, (hidden, head), cotangent)
    wanted = torch.autograd.grad(plain, (hidden, head), cotangent.double())
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=FP32)


def test_two_words_on_paper():
    """Logits ln 3 and 0: probabilities 3/4 and 1/4; at temperature 1/2 they are 9/10 and 1/10."""
    hidden, head = torch.tensor([[1.0], [1.0]]), torch.tensor([[math.log(3)], [0.0]])
    logprobs, entropy = token_logprobs(hidden, head, torch.tensor([0, 1]))
    assert logprobs.exp().tolist() == pytest.approx([3 / 4, 1 / 4])
    assert entropy.tolist() == pytest.approx([-(3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4))] * 2)
    assert token_logprobs(hidden, head, torch.tensor([0, 1]), 0.5)[0].exp().tolist() == pytest.approx([9 / 10, 1 / 10])


def test_huge_logits_do_not_overflow():
    hidden, head = torch.tensor([[1e4]], requires_grad=True), torch.tensor([[1.0], [0.0]], requires_grad=True)
    logprobs, entropy = token_logprobs(hidden, head, torch.tensor([1]))
    logprobs.sum().backward()
    assert logprobs.item() == -1e4 and entropy.item() == 0.0
    assert hidden.grad.tolist() == [[-1.0]] and head.grad.tolist() == [[-1e4], [1e4]]


def test_the_entropy_carries_no_gradient():
    hidden, head, ids = random_case()
    assert not token_logprobs(hidden, head, ids)[1].requires_grad


def test_no_rows_give_no_numbers_and_a_gradient_of_zero():
    hidden, head, ids = random_case(n=0)
    logprobs, entropy = token_logprobs(hidden, head, ids)
    logprobs.sum().backward()
    assert logprobs.shape == entropy.shape == (0,)
    assert hidden.grad.shape == (0, 5) and head.grad.abs().max() == 0


def test_bf16_stays_within_its_budget_and_its_gradients_keep_its_dtype():
    hidden, head, ids = random_case(n=50, dim=8, scale=0.5)
    narrow = [x.detach().bfloat16().requires_grad_() for x in (hidden, head)]
    logprobs, _ = token_logprobs(*narrow, ids)
    logprobs.sum().backward()
    gap = (logprobs - reference(*narrow, ids, 1.0)[0]).abs().max().item()
    assert logprobs.dtype == torch.float32 and 0 < gap < BF16_LOGPROBS, gap
    assert narrow[0].grad.dtype == narrow[1].grad.dtype == torch.bfloat16
