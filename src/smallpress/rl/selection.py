"""Many rollouts, few of them trained on: drawing one costs a fraction of learning from it."""

from collections.abc import Sequence
from statistics import pvariance


def most_varied(rewards: Sequence[float], n: int) -> list[int]:
    """The places of the `n` rewards that differ most, in order (PODS, Xu et al. 2025: max-variance down-sampling).

    Such a choice is always some of the lowest and the rest of the highest, so there are n + 1 candidates. The baseline
    is then the chosen ones' mean, not the group's: rare successes weigh more than they did.

    >>> most_varied([0.0, 0.0, 1.0, 0.0, 0.1, 0.0, 1.0, 0.0], 4)
    [0, 1, 2, 6]
    """
    if n >= len(rewards):
        return list(range(len(rewards)))
    ranked = sorted(range(len(rewards)), key=lambda i: rewards[i])
    candidates = [ranked[:low] + ranked[len(ranked) - (n - low) :] for low in range(n + 1)]
    return sorted(max(candidates, key=lambda places: pvariance([rewards[i] for i in places])))
