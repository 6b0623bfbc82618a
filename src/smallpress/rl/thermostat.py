"""Exploration kept alive: the sampling temperature rises while the policy is too sure of itself.

A small model under reinforcement learning grows certain within a dozen steps: every group agrees, no advantage is left,
and what it does not do yet (a longer chain) it never tries. Held at a target entropy by its temperature, it goes on
trying. The update divides its logits by the same temperature, so the method stays on-policy.
"""

RISE, FALL = 1.08, 1.04


class Thermostat:
    """`observe` the entropy of each step; `temperature` moves between `lowest` and `highest`.

    >>> heat = Thermostat(lowest=0.8, highest=1.5, target=0.2)
    >>> for entropy in (0.5, 0.1, 0.1):
    ...     heat.observe(entropy)
    >>> round(heat.temperature, 3)
    0.933
    """

    def __init__(self, lowest: float, highest: float, target: float):
        """`target` in nats a token; 0 holds the temperature at `lowest`."""
        self.lowest, self.highest, self.target = lowest, highest, target
        self.temperature = lowest

    def observe(self, entropy: float) -> None:
        """A step in which nothing was learned, because all groups agreed, counts as entropy 0."""
        if self.target:
            moved = self.temperature * RISE if entropy < self.target else self.temperature / FALL
            self.temperature = min(self.highest, max(self.lowest, moved))
