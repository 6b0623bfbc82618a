"""The KL leash and the correction for the sampler."""

import math

import pytest
import torch

from smallpress.rl.algorithm import Terms
from smallpress.rl.algorithms import ALGORITHMS
from smallpress.rl.loss import Leash, k3, sampler_weights, token_losses

GRPO = ALGORITHMS["grpo"]


def test_k3_is_never_negative_and_zero_only_at_equality():
    gaps = torch.cat((torch.arange(-50, 51) / 10, torch.logspace(-7, -1, 50), -torch.logspace(-7, -1, 50)))
    values = k3(torch.zeros_like(gaps), gaps)
    assert (values >= 0).all() and (values[gaps == 0] == 0).all()
    assert (values[gaps.abs() > 1e-3] > 0).all()  # nearer than that the square of the gap is below fp32


def test_k3_on_paper():
    """pi_ref / pi = 2: 2 - ln 2 - 1; a half: 1/2 + ln 2 - 1."""
    values = k3(torch.zeros(2), torch.tensor([math.log(2), -math.log(2)]))
    assert values.tolist() == pytest.approx([1 - math.log(2), math.log(2) - 0.5])


def test_k3_averages_to_the_kl_over_all_words():
    """pi = (1/2, 1/4, 1/4), ref = (1/4, 1/4, 1/2): KL = 1/2 ln 2 + 0 - 1/4 ln 2 = 1/4 ln 2."""
    policy, ref = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    assert float((policy * k3(policy.log(), ref.log())).sum()) == pytest.approx(math.log(2) / 4)


def test_k3_pulls_towards_the_reference_and_rests_there():
    """d k3 / d log pi = 1 - pi_ref / pi."""
    policy = torch.zeros(3, requires_grad=True)
    k3(policy, torch.tensor([math.log(3), 0.0, -math.log(2)])).sum().backward()
    assert policy.grad.tolist() == pytest.approx([-2.0, 0.0, 0.5])


def test_the_samplers_weight_is_the_ratio_up_to_the_cap():
    old = torch.tensor([math.log(x) for x in (0.5, 1.0, 1.9, 2.1, 50.0)])
    assert sampler_weights(old, torch.zeros(5), cap=2.0).tolist() == pytest.approx([0.5, 1.0, 1.9, 2.0, 2.0])


def losses(policy, old, sampler, ref=None, beta=0.0, advantage=1.0):
    policy = torch.tensor(policy, requires_grad=True)
    terms = Terms(policy, torch.tensor(old), torch.full_like(policy, advantage).detach(), torch.arange(len(old)))
    ref_P = None if ref is None else torch.tensor(ref)
    loss_P, log = token_losses(GRPO, GRPO.clip, Leash(beta, 2.0), terms, torch.tensor(sampler), ref_P)
    (gradient,) = torch.autograd.grad(loss_P.sum(), policy)
    return loss_P.tolist(), gradient.tolist(), {name: values.tolist() for name, values in log.items()}


def test_the_loss_is_minus_the_objective_times_the_samplers_weight():
    """Ratio 1, advantage 1, pi_old / pi_sampler = 1, 1/2 and 10 (capped to 2)."""
    sampler = [-1.0, -1.0 + math.log(2), -1.0 - math.log(10)]
    loss, gradient, log = losses([-1.0] * 3, [-1.0] * 3, sampler)
    assert loss == pytest.approx([-1.0, -0.5, -2.0]) and gradient == pytest.approx(loss)
    assert log["sampling/importance_ratio/mean"] == pytest.approx([1.0, 0.5, 10.0])
    assert log["sampling/logp_difference/mean"] == pytest.approx([0.0, math.log(2), math.log(10)])
    assert "kl" not in log


def test_the_leash_adds_beta_times_k3():
    """No advantage: what is left is beta (pi_ref / pi - ln - 1) and its gradient beta (1 - pi_ref / pi)."""
    loss, gradient, log = losses([-2.0], [-2.0], [-2.0], ref=[-2.0 + math.log(3)], beta=0.5, advantage=0.0)
    assert loss == pytest.approx([0.5 * (2 - math.log(3))]) and gradient == pytest.approx([-1.0])
    assert log["kl"] == pytest.approx([2 - math.log(3)])


def test_the_log_counts_what_the_clip_holds():
    """Ratios 2, 1, 2 and a half, each with a gain: only growth is cut."""
    up = math.log(2)
    _, _, log = losses([-1 + up, -1.0, -1 + up, -1 - up], [-1.0] * 4, [-1.0] * 4)
    assert log["clip_ratio/high_mean"] == [1, 0, 1, 0] and log["clip_ratio/low_mean"] == [0] * 4
    _, _, log = losses([-1 + up, -1 - up], [-1.0] * 2, [-1.0] * 2, advantage=-1.0)
    assert log["clip_ratio/high_mean"] == [0, 0] and log["clip_ratio/low_mean"] == [0, 1]
