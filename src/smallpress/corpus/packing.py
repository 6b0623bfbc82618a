"""Sequences of tokens put together so that little is computed twice and nothing is padded."""

from collections.abc import Sequence


def first_fit(lens: Sequence[int], budget: int) -> list[list[int]]:
    """Which sequences go together: bins of places in `lens`, each of at most `budget` tokens, the longest first.

    First-fit decreasing: never over 11/9 of the fewest bins and one more (Johnson 1973). One that is over the budget
    has a bin of its own.

    >>> first_fit([3, 9, 4, 2], budget=9)
    [[1], [2, 0, 3]]
    """
    bins: list[list[int]] = []
    free: list[int] = []
    for place in sorted(range(len(lens)), key=lambda i: lens[i], reverse=True):
        home = next((i for i, room in enumerate(free) if room >= lens[place]), len(bins))
        if home == len(bins):
            bins.append([])
            free.append(budget)
        bins[home].append(place)
        free[home] -= lens[place]
    return bins


def common_start(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest beginning that all share: it is one of the smallest and of the largest in dictionary order.

    >>> common_start([(1, 2, 3), (1, 2, 5), (1, 2)])
    (1, 2)
    """
    low, high = min(sequences), max(sequences)
    n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:n]
