"""How good a rollout is beside its siblings: rewards of one group in, advantages out."""

from collections.abc import Sequence
from statistics import fmean, stdev

STD_FLOOR = 1e-4
"""Added to the deviation, as TRL does; without it a group of nearly equal rewards would get huge advantages."""


def normalized(rewards: Sequence[float]) -> list[float]:
    """GRPO (Shao et al. 2024, eq. 3 and 4.1.2): A_i = (r_i - mean r) / std r, the sample deviation (n - 1).

    A group that agrees teaches nothing: all zeros.

    >>> [round(a, 2) for a in normalized([1.0, 0.0, 0.0, 1.0])]
    [0.87, -0.87, -0.87, 0.87]
    """
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    mean, deviation = fmean(rewards), stdev(rewards)
    return [(reward - mean) / (deviation + STD_FLOOR) for reward in rewards]


def centered(rewards: Sequence[float]) -> list[float]:
    """Dr. GRPO (Liu et al. 2025): A_i = r_i - mean r; without the division easy and hard groups weigh what they are.

    >>> centered([1.0, 0.0, 0.0, 1.0])
    [0.5, -0.5, -0.5, 0.5]
    """
    mean = fmean(rewards)
    return [reward - mean for reward in rewards]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """RLOO (Ahmadian et al. 2024): the baseline of a rollout is the mean of its siblings; G / (G - 1) times `centered`.

    >>> leave_one_out([1.0, 0.0, 0.5])
    [0.75, -0.75, 0.0]
    """
    total, others = sum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]
