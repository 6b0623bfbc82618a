"""Learning-rate schedules: how far a run is in, factor of the peak rate out."""

import math
from collections.abc import Callable
from typing import Literal

Shape = Literal["constant", "linear", "cosine"]

Fall = Literal["constant", "linear", "cosine", "multi_step", "v3"]

FLOOR = 0.1


def linear(share: float, floor: float = FLOOR) -> float:
    return floor + (1 - floor) * (1 - min(1.0, share))


def cosine(share: float, floor: float = FLOOR) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def multi_step(share: float) -> float:
    """DeepSeek LLM (arXiv 2401.02954): a cut to sqrt(1/10) at 80 % of the tokens and to 1/10 at 90 %.

    >>> [round(multi_step(share), 3) for share in (0.0, 0.79, 0.8, 0.9)]
    [1.0, 1.0, 0.316, 0.1]
    """
    if share < 0.8:
        return 1.0
    return math.sqrt(0.1) if share < 0.9 else 0.1


V3_TOKENS, V3_PEAK = 14.8e12, 2.2e-4


def v3(share: float) -> float:
    """DeepSeek-V3 (arXiv 2412.19437): of 14.8T tokens 10T at the peak of 2.2e-4, 4.3T along a cosine to 2.2e-5, 333B
    there, and the last 167B at 7.3e-6.

    >>> [round(2.2e-4 * v3(trillions / 14.8), 7) for trillions in (0, 9.9, 12.15, 14.4, 14.7)]
    [0.00022, 0.00022, 0.000121, 2.2e-05, 7.3e-06]
    """
    tokens = share * V3_TOKENS
    if tokens >= V3_TOKENS - 167e9:
        return 7.3e-6 / V3_PEAK
    return 1.0 if tokens < 10e12 else cosine((tokens - 10e12) / 4.3e12)


FALLS: dict[Fall, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "linear": linear,
    "cosine": cosine,
    "multi_step": multi_step,
    "v3": v3,
}
"""Share of the run that is done -> factor of the peak rate."""


def schedule(shape: Shape, warmup: int, total: int | None, floor: float = FLOOR) -> Callable[[int], float]:
    """A linear rise over `warmup` steps, then flat, or falling to `floor` of the peak at step `total`.

    Without a `total` (a run bounded by time) only "constant" is possible.

    >>> factor = schedule("cosine", warmup=2, total=12)
    >>> [round(factor(step), 2) for step in (0, 1, 2, 7, 12, 99)]
    [0.5, 1.0, 1.0, 0.55, 0.1, 0.1]
    """
    assert shape == "constant" or total is not None, f"a {shape} schedule needs the number of steps"

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if shape == "constant":
            return 1.0
        assert total is not None
        done = (step - warmup) / max(1, total - warmup)
        return linear(done, floor) if shape == "linear" else cosine(done, floor)

    return factor
