"""GSPO: group sequence policy optimization (Zheng et al. 2025, arXiv 2507.18071).

    J = mean over rollouts of min(s_i A_i, clip(s_i, 1 - 3e-4, 1 + 4e-4) A_i)
    s_i = (pi(o_i) / pi_old(o_i))^(1 / |o_i|)

The reward is given to a whole answer, so the ratio and its clipping are the answer's too: the geometric mean of the
tokens' ratios. Meant for mixtures of experts, where single tokens' ratios are wild because routing changes.
Edge: the bounds are tight; with one update after each rollout s_i = 1 and nothing is ever clipped.
"""

from torch import Tensor

from smallpress.rl.advantage import normalized
from smallpress.rl.algorithm import Algorithm, Clip, Terms, mean_of_rollout_means, pessimistic


def sequence_clipped(terms: Terms, clip: Clip) -> tuple[Tensor, Tensor]:
    """`pessimistic` over the ratio of the whole rollout, the same for all its tokens."""
    ratio_P = terms.rollout_mean(terms.policy_logprobs_P - terms.old_logprobs_P).exp()
    return pessimistic(ratio_P, terms.advantages_P, clip)


GSPO = Algorithm(normalized, sequence_clipped, mean_of_rollout_means, Clip(3e-4, 4e-4))
