"""How long answers are: a distribution as a hundred equally likely lengths."""

from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean

N = 100


@dataclass(frozen=True, slots=True)
class Lengths:
    """Ascending; each as likely as the others."""

    tokens: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.tokens)

    @property
    def longest(self) -> float:
        return self.tokens[-1]

    @property
    def mean_square(self) -> float:
        return fmean(n * n for n in self.tokens)

    def stretches(self) -> list[tuple[float, float, float]]:
        """(steps, share still running, mean place) of the stretches between one length and the next, when all began
        at once.

        >>> Lengths((2.0, 6.0)).stretches()
        [(2.0, 1.0, 1.0), (4.0, 0.5, 4.0)]
        """
        found, before = [], 0.0
        for i, length in enumerate(self.tokens):
            if length > before:
                found.append((length - before, (len(self.tokens) - i) / len(self.tokens), (before + length) / 2))
                before = length
        return found


def all_of(n: float) -> Lengths:
    return Lengths((float(n),))


def spread_out(mean: float, most: float, spread: float = 0.6) -> Lengths:
    """Log-normal with this mean before it is cut at `most`; `spread` is the standard deviation over the mean.

    >>> found = spread_out(1000, 32768)
    >>> 990 < found.mean < 1001 and found.tokens[49] < found.mean
    True
    """
    if mean >= most:
        return all_of(most)
    sigma = sqrt(log(1 + spread**2))
    middle = log(mean) - sigma**2 / 2
    normal = NormalDist(middle, sigma)
    return Lengths(tuple(min(float(most), max(1.0, exp(normal.inv_cdf((i + 0.5) / N)))) for i in range(N)))


MEAN_SHARE = 0.6
"""Of the longest answer allowed, the mean one, where nothing better is known."""


def answer_lengths(max_tokens: int, mean: float | None = None) -> Lengths:
    return spread_out(mean or MEAN_SHARE * max_tokens, max_tokens)
