"""Which steps are better not taken."""

import math
from collections.abc import Sequence
from statistics import median


class SpikeGuard:
    """Decides whether a step may be taken: not on NaN, nor on a gradient far longer than the recent ones.

    Far longer: FACTOR times their median, or `max_norm`, to which gradients are cut, where the median is below it (a
    group that agrees leaves only the KL term, whose gradient is nearly nothing). Every finite length is remembered, a
    refused one too: a median shrugs off single spikes, and a gradient that has grown for good becomes the rule.
    """

    MEMORY, FACTOR, NEEDED = 50, 20.0, 10

    def __init__(self, max_norm: float, lengths: Sequence[float] = ()):
        self.max_norm, self.lengths = max_norm, list(lengths)

    def admits(self, grad_norm: float) -> bool:
        """Take in one gradient length; False if the step must be skipped."""
        if not math.isfinite(grad_norm):
            return False
        recent = sorted(self.lengths)
        self.lengths = [*self.lengths, grad_norm][-self.MEMORY :]
        return len(recent) < self.NEEDED or grad_norm <= self.FACTOR * max(recent[len(recent) // 2], self.max_norm)


class LossGuard:
    """Not a step either whose loss is no number, or stands out above the recent ones.

    It stands out where it is above their median by FACTOR times their median distance from it, which for a bell curve
    is 6.7 standard deviations, and by at least LEAST of the median.
    """

    MEMORY, FACTOR, NEEDED, LEAST = 50, 10.0, 10, 0.1

    def __init__(self, losses: Sequence[float] = ()):
        self.losses = list(losses)

    def admits(self, loss: float) -> bool:
        """Take in one loss; False if the step must be skipped."""
        if not math.isfinite(loss):
            return False
        recent = self.losses
        self.losses = [*recent, loss][-self.MEMORY :]
        if len(recent) < self.NEEDED:
            return True
        middle = median(recent)
        spread = self.FACTOR * median(abs(old - middle) for old in recent)
        return loss <= middle + max(spread, self.LEAST * middle)
