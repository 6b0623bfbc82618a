"""Learning-rate schedules: step in, factor of the peak rate out."""

import math
from collections.abc import Callable
from typing import Literal

Shape = Literal["constant", "linear", "cosine"]


def schedule(shape: Shape, warmup: int, total: int | None, floor: float = 0.1) -> Callable[[int], float]:
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
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        left = 1 - done if shape == "linear" else (1 + math.cos(math.pi * done)) / 2
        return floor + (1 - floor) * left

    return factor
