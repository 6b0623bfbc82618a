"""What an algorithm is: advantages from rewards, an objective and a weight per token; the trainer asks no more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Clip:
    """How far the ratio pi / pi_old may go before it stops counting; each algorithm says what the two numbers bound."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What is known of the P trained tokens of a micro-batch."""

    policy_logprobs_P: Tensor  # of the weights being trained; carries the gradient
    old_logprobs_P: Tensor  # of the same weights when the rollouts were made
    advantages_P: Tensor  # that of the rollout a token belongs to
    rollout_P: Tensor  # which rollout that is, counted from 0 within the micro-batch

    def ratio(self) -> Tensor:
        """[P]: pi(token) / pi_old(token); 1 with a live gradient in the first update after a rollout."""
        return (self.policy_logprobs_P - self.old_logprobs_P).exp()

    def rollout_mean(self, values_P: Tensor) -> Tensor:
        """[P]: the mean of `values_P` over each token's own rollout."""
        n = int(self.rollout_P.max()) + 1
        sums = torch.zeros(n, dtype=values_P.dtype, device=values_P.device).index_add(0, self.rollout_P, values_P)
        return (sums / torch.bincount(self.rollout_P, minlength=n))[self.rollout_P]


Objective = Callable[[Terms, Clip], tuple[Tensor, Tensor]]
"""(terms, clip) -> [P] what each token adds to J, and [P] where the clip holds it: -1 below, 1 above, 0 nowhere."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`token_weights(lens, max_tokens)` gives one weight for each rollout of an update: the loss is the sum over its
    tokens of -weight * objective, so the weights say whether rollouts, tokens or nothing is averaged."""

    advantages: Callable[[Sequence[float]], list[float]]
    objective: Objective
    token_weights: Callable[[Sequence[int], int], list[float]]
    clip: Clip
    dynamic_sampling: bool = False  # draw new prompts in place of groups that agree


def clipped(terms: Terms, clip: Clip) -> tuple[Tensor, Tensor]:
    """`pessimistic` over each token's own ratio."""
    return pessimistic(terms.ratio(), terms.advantages_P, clip)


def pessimistic(ratio_P: Tensor, advantages_P: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
    """min(r A, clip(r, 1 - low, 1 + high) A), the bound of PPO (Schulman et al. 2017, eq. 7), and where it cuts."""
    bounded_P = ratio_P.clamp(1 - clip.low, 1 + clip.high)
    free_P, cut_P = ratio_P * advantages_P, bounded_P * advantages_P
    held_P = torch.sign(ratio_P - bounded_P).detach() * (cut_P < free_P)
    return torch.minimum(free_P, cut_P), held_P


def mean_of_rollout_means(lens: Sequence[int], max_tokens: int) -> list[float]:
    """1 / (number of rollouts * own length): each rollout counts once, whatever its length.

    >>> mean_of_rollout_means([1, 4], max_tokens=8)
    [0.5, 0.125]
    """
    return [1 / (len(lens) * n) for n in lens]


def mean_of_tokens(lens: Sequence[int], max_tokens: int) -> list[float]:
    """1 / (number of tokens in the update): each token counts once.

    >>> mean_of_tokens([1, 4], max_tokens=8)
    [0.2, 0.2]
    """
    return [1 / sum(lens)] * len(lens)


def constant(lens: Sequence[int], max_tokens: int) -> list[float]:
    """1 / (number of rollouts * longest possible): no length is favoured, right or wrong.

    >>> constant([1, 4], max_tokens=8)
    [0.0625, 0.0625]
    """
    return [1 / (len(lens) * max_tokens)] * len(lens)
