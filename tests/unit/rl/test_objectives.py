"""Every algorithm's objective and weights, on numbers one can work out on paper."""

import math
from dataclasses import replace

import pytest
import torch

from smallpress.rl.algorithm import Clip, Terms, clipped, constant, mean_of_rollout_means, mean_of_tokens
from smallpress.rl.algorithms import ALGORITHMS

UP, DOWN, SAME = math.log(2), math.log(0.5), 0.0  # log ratios of 2, 1/2 and 1


def terms(log_ratios, advantages, rollouts=None):
    """Terms whose old log-probabilities are all -1."""
    policy = (torch.tensor(log_ratios) - 1.0).requires_grad_()
    rollouts = rollouts or list(range(len(log_ratios)))
    return Terms(policy, torch.full_like(policy, -1.0).detach(), torch.tensor(advantages), torch.tensor(rollouts))


def values_and_gradients(objective, terms, clip):
    values, held = objective(terms, clip)
    (gradient,) = torch.autograd.grad(values.sum(), terms.policy_logprobs_P)
    return values.tolist(), gradient.tolist(), held.tolist()


def loss_gradient(name, terms, lens, max_tokens=8):
    """d loss / d log pi of each token, the rollouts' own weights included."""
    algorithm = ALGORITHMS[name]
    weights = torch.tensor(algorithm.token_weights(lens, max_tokens)).repeat_interleave(torch.tensor(lens))
    objective, _ = algorithm.objective(terms, algorithm.clip)
    (gradient,) = torch.autograd.grad(-(weights * objective).sum(), terms.policy_logprobs_P)
    return gradient.tolist()


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("grpo", [1 / 2, 1 / 6]),  # 1 / (2 rollouts * own length)
        ("rloo", [1 / 2, 1 / 6]),
        ("gspo", [1 / 2, 1 / 6]),
        ("dapo", [1 / 4, 1 / 4]),  # 1 / (4 tokens)
        ("cispo", [1 / 4, 1 / 4]),
        ("dr_grpo", [1 / 16, 1 / 16]),  # 1 / (2 rollouts * 8 possible tokens)
    ],
)
def test_the_first_updates_gradient_is_minus_weight_times_advantage(name, weights):
    """Two rollouts, of 1 and 3 tokens, advantages 2 and -1: with the policy its own old self every ratio is 1."""
    first, second = weights
    on_policy = terms([SAME] * 4, [2.0, -1.0, -1.0, -1.0], rollouts=[0, 1, 1, 1])
    assert loss_gradient(name, on_policy, lens=[1, 3]) == pytest.approx([-2 * first, second, second, second])


def test_every_algorithm_of_the_registry_is_tested_above():
    assert set(ALGORITHMS) == {"grpo", "rloo", "gspo", "dapo", "cispo", "dr_grpo"}


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "value", "gradient", "held"),
    [
        (UP, 1.0, 1.2, 0.0, 1),  # good and already twice as likely: cut at 1 + 0.2, no more pull
        (DOWN, 1.0, 0.5, 0.5, 0),  # good but lost: pulled back
        (UP, -1.0, -2.0, -2.0, 0),  # bad and grown: pushed down, with full weight
        (DOWN, -1.0, -0.8, 0.0, -1),  # bad and already halved: cut at 1 - 0.2
        (SAME, 3.0, 3.0, 3.0, 0),
        (UP, 0.0, 0.0, 0.0, 0),
    ],
)
def test_ppos_clip_stops_only_what_has_gone_far_enough(log_ratio, advantage, value, gradient, held):
    found = values_and_gradients(clipped, terms([log_ratio], [advantage]), Clip(0.2, 0.2))
    assert [numbers[0] for numbers in found] == pytest.approx([value, gradient, held])


def test_dapos_upper_bound_is_wider():
    dapo = ALGORITHMS["dapo"]
    both = terms([math.log(1.25), math.log(1.3)], [1.0, 1.0])
    values, gradients, held = values_and_gradients(dapo.objective, both, dapo.clip)
    assert values == pytest.approx([1.25, 1.28]) and gradients == pytest.approx([1.25, 0.0]) and held == [0, 1]
    assert dapo.dynamic_sampling and not any(ALGORITHMS[name].dynamic_sampling for name in ALGORITHMS if name != "dapo")


def test_gspos_ratio_is_the_geometric_mean_over_the_rollout():
    """Ratios 4 and 1 in one rollout: sqrt(4) = 2; tokens of 2 and 1/2: 1. Each token shares the gradient of its own."""
    both = terms([math.log(4), SAME, UP, DOWN], [1.0] * 4, rollouts=[0, 0, 1, 1])
    values, gradients, held = values_and_gradients(ALGORITHMS["gspo"].objective, both, Clip(5.0, 5.0))
    assert values == pytest.approx([2.0, 2.0, 1.0, 1.0])
    assert gradients == pytest.approx([2.0, 2.0, 1.0, 1.0])  # two tokens' objectives, each with half the gradient
    assert held == [0] * 4


def test_gspo_clips_a_rollout_as_a_whole():
    """Ratios 1.01 and 1: their mean is above 1 + 4e-4, so both tokens stop; with a loss they both go on."""
    gspo = ALGORITHMS["gspo"]
    for advantage, held in ((1.0, [1, 1]), (-1.0, [0, 0])):
        found = values_and_gradients(gspo.objective, terms([0.01, SAME], [advantage] * 2, rollouts=[0, 0]), gspo.clip)
        assert found[2] == held
        assert (found[1] == [0.0, 0.0]) == (advantage > 0)


def test_cispo_caps_the_weight_and_keeps_the_gradient():
    """Ratios 1, 2 and 10 with cap 5: the gradient of A log pi is weighted 1, 2 and 5, for gains and losses alike."""
    cispo = ALGORITHMS["cispo"]
    for advantage in (1.0, -1.0):
        three = terms([SAME, UP, math.log(10)], [advantage] * 3)
        values, gradients, held = values_and_gradients(cispo.objective, three, cispo.clip)
        assert gradients == pytest.approx([advantage * weight for weight in (1, 2, 5)])
        assert values == pytest.approx(
            [g * p for g, p in zip(gradients, three.policy_logprobs_P.tolist(), strict=True)]
        )
        assert held == [0, 0, 1]


def test_a_rollouts_mean_is_spread_over_its_tokens_wherever_they_stand():
    mixed = terms([SAME] * 4, [1.0] * 4, rollouts=[1, 0, 1, 1])
    assert mixed.rollout_mean(torch.tensor([1.0, 10.0, 2.0, 6.0])).tolist() == [3.0, 10.0, 3.0, 3.0]


def test_weights_say_what_is_averaged():
    """Objective 1 on every token: rollout means and token means average it to 1, the constant to the filled share."""
    lens = [1, 4, 5]
    for weights, total in ((mean_of_rollout_means, 1.0), (mean_of_tokens, 1.0), (constant, 10 / 24)):
        per_rollout = weights(lens, 8)
        assert sum(w * n for w, n in zip(per_rollout, lens, strict=True)) == pytest.approx(total)


def test_a_bound_of_ten_as_r1_sets_it_never_cuts_a_loss_of_likelihood():
    """clip_low = 10 gives 1 - 10 < 0, which no ratio reaches."""
    values, _, held = values_and_gradients(clipped, terms([-20.0], [-1.0]), Clip(10.0, 10.0))
    assert values == pytest.approx([-math.exp(-20)]) and held == [0]
    assert replace(Clip(10.0, 10.0), low=0.2) == Clip(0.2, 10.0)
