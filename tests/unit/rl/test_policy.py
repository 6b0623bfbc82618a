"""The gradient of an update, against rollouts taken one by one with nothing but autograd."""

import pytest
import torch

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.optim.master import MasterWeights
from smallpress.rl.algorithms import ALGORITHMS
from smallpress.rl.loss import Leash, token_losses
from smallpress.rl.packing import Trained, TrainedGroup, pack
from smallpress.rl.policy import accumulate, frozen_logprobs

FP32_REASSOCIATION = 1e-5
GRPO = ALGORITHMS["grpo"]
TEMPERATURE = 0.8


def two_groups():
    """Prompts with a common start; rollouts of 1 to 4 tokens, sampled as this model would have at log-prob -3 each."""
    shapes = [
        ((1, 2, 3), [(4,), (5, 6, 7, 8)], (1.0, -1.0)),
        ((1, 2, 9, 9), [(10, 11), (12,), (13, 14, 15)], (2, -1, -1)),
    ]
    weights = iter(GRPO.token_weights([1, 4, 2, 1, 3], 8))
    return [
        TrainedGroup(
            prompt,
            tuple(
                Trained(ids, (-3.0,) * len(ids), advantage, next(weights))
                for ids, advantage in zip(rollouts, advantages, strict=True)
            ),
        )
        for prompt, rollouts, advantages in shapes
    ]


def grpo_loss(terms, batch, ref_P):
    return token_losses(GRPO, GRPO.clip, Leash(0.1, cap_of_sampler), terms, batch.sampler_logprobs_P, ref_P)


cap_of_sampler = 2.0


def logprobs_alone(model, prompt, ids):
    tree = TokenTree((Group(len(prompt) + len(ids)),))
    hidden = model(torch.tensor(prompt + ids), tree.positions(), PackedCausal(tree))
    logprobs = (model.logits(hidden)[len(prompt) - 1 : -1] / TEMPERATURE).log_softmax(-1)
    return logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0]


@pytest.mark.parametrize("budget", [10, 500])
def test_the_accumulated_gradient_is_that_of_rollouts_one_by_one(tiny_model, budget):
    """Minus 1 / (5 rollouts * own length) * A * min(pi / pi_sampler, 2) * grad log pi, over all tokens."""
    weights, plain = MasterWeights(tiny_model(), torch.float32), tiny_model()
    log = accumulate(weights, pack(two_groups(), budget), None, None, TEMPERATURE, grpo_loss)

    loss = torch.zeros(())
    for group in two_groups():
        for rollout in group.rollouts:
            logprobs = logprobs_alone(plain, group.prompt_ids, rollout.ids)
            by_sampler = (logprobs.detach() + 3.0).exp().clamp(max=cap_of_sampler)
            loss = loss - (rollout.advantage / (5 * len(rollout.ids)) * by_sampler * logprobs).sum()
    loss.backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(
            weights.master[name].grad, parameter.grad, rtol=1e-4, atol=FP32_REASSOCIATION, msg=name
        )
    assert log["clip_ratio/low_mean"] == log["clip_ratio/high_mean"] == 0.0


def test_what_is_logged_does_not_depend_on_the_budget(tiny_model):
    logs = []
    for budget in (10, 500):
        model = tiny_model()
        batches = pack(two_groups(), budget)
        ref = [torch.full_like(batch.sampler_logprobs_P, -2.0) for batch in batches]
        logs.append(accumulate(MasterWeights(model, torch.float32), batches, None, ref, TEMPERATURE, grpo_loss))
    names = {"loss", "entropy", "kl", "sampling/logp_difference/mean", "sampling/importance_ratio/mean"}
    assert names < logs[0].keys() == logs[1].keys()
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_the_leash_at_the_reference_adds_nothing_to_the_gradient(tiny_model):
    free, leashed = (MasterWeights(tiny_model(), torch.float32) for _ in range(2))
    batches = pack(two_groups(), 500)
    ref = frozen_logprobs(leashed.model, batches, TEMPERATURE)
    accumulate(free, batches, None, None, TEMPERATURE, grpo_loss)
    log = accumulate(leashed, batches, None, ref, TEMPERATURE, grpo_loss)
    assert log["kl"] == 0.0
    for name, parameter in free.master.items():
        assert torch.equal(parameter.grad, leashed.master[name].grad), name


def test_frozen_logprobs_carry_no_gradient_and_leave_none(tiny_model):
    weights = MasterWeights(tiny_model(), torch.float32)
    frozen = frozen_logprobs(weights.model, pack(two_groups(), 10), TEMPERATURE)
    assert not any(logprobs.requires_grad for logprobs in frozen)
    assert weights.grad_norm() == 0.0
