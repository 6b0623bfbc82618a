"""CISPO: clipped importance-sampling policy optimization (MiniMax-M1, 2025, arXiv 2506.13585).

    J = (1 / number of tokens) sum over i, t of stop_gradient(min(r_t, 5)) A_i log pi(o_t)

The weight is capped, never the token: the rare words that turn an argument ("wait", "however") keep their gradient
after their ratio has grown. `clip.high` caps the ratio itself; there is no lower bound.
"""

from torch import Tensor

from smallpress.rl.advantage import normalized
from smallpress.rl.algorithm import Algorithm, Clip, Terms, mean_of_tokens


def capped_reinforce(terms: Terms, clip: Clip) -> tuple[Tensor, Tensor]:
    """A REINFORCE term whose weight carries no gradient, and where that weight is capped."""
    ratio_P = terms.ratio().detach()
    objective_P = ratio_P.clamp(max=clip.high) * terms.advantages_P * terms.policy_logprobs_P
    return objective_P, (ratio_P > clip.high).float()


CISPO = Algorithm(normalized, capped_reinforce, mean_of_tokens, Clip(float("inf"), 5.0))
