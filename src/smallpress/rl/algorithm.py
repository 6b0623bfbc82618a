"""What an algorithm is: advantages from rewards, an objective per token, a weight per token. The trainer is blind to which."""

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


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`token_weights(lens, max_tokens)` gives one weight for each rollout of a step: the loss is the sum over its tokens
    of -weight * objective, so the weights say whether rollouts, tokens or nothing is averaged."""

    advantages: Callable[[Sequence[float]], list[float]]
    objective: Callable[[Terms, Clip], Tensor]
    token_weights: Callable[[Sequence[int], int], list[float]]
    clip: Clip
    dynamic_sampling: bool = False  # draw new prompts in place of groups that agree


def clipped(terms: Terms, clip: Clip) -> Tensor:
    """[P]: min(r A, clip(r, 1 - low, 1 + high) A), the pessimistic bound of PPO (Schulman et al. 2017, eq. 7)."""
    ratio_P = terms.ratio()
    bounded_P = ratio_P.clamp(1 - clip.low, 1 + clip.high)
    return torch.minimum(ratio_P * terms.advantages_P, bounded_P * terms.advantages_P)


def mean_of_rollout_means(lens: Sequence[int], max_tokens: int) -> list[float]:
    """1 / (number of rollouts * own length): each rollout counts once, whatever its length.

    >>> mean_of_rollout_means([1, 4], max_tokens=8)
    [0.5, 0.125]
    """
    return [1 / (len(lens) * n) for n in lens]


def mean_of_tokens(lens: Sequence[int], max_tokens: int) -> list[float]:
    """1 / (number of tokens in the step): each token counts once.

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
