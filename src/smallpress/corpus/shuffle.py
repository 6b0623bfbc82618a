"""A random order of n things of which any place can be asked for: nothing is stored, nothing has to be drawn before it.

A Feistel network permutes the numbers of an even number of bits (Luby and Rackoff 1988); what lands outside the n
things is sent through again until it lands inside (cycle walking, Black and Rogaway 2002).
"""

from smallpress.run.seeds import derive_seed

ROUNDS = 6


def shuffled(place: int, n: int, seed: int) -> int:
    """Which of the things 0 ... n - 1 stands at `place` in the order of `seed`.

    >>> [shuffled(place, 5, seed=1) for place in range(5)]
    [1, 2, 4, 3, 0]
    """
    assert 0 <= place < n, f"{place=} {n=}"
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    while True:  # The network moves along a cycle that began inside, so at most 4 n numbers are outside before it ends.
        place = _permuted(place, half, seed)
        if place < n:
            return place


def _permuted(number: int, half: int, seed: int) -> int:
    """A bijection of the numbers of 2 `half` bits."""
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for turn in range(ROUNDS):
        left, right = right, left ^ (derive_seed(seed, turn, right) & mask)
    return left << half | right
