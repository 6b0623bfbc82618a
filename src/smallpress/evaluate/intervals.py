"""How sure a measured share is: Wilson and bootstrap intervals, paired differences, pass@k, cons@k.

Questions are the unit of chance. Several samples of one question share its difficulty, so they are averaged first and
the questions are resampled; treating 4 samples of 50 questions as 200 draws would promise half the true width.
"""

from collections.abc import Callable, Sequence
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from pydantic import BaseModel, ConfigDict

CONFIDENCE = 0.95
N_RESAMPLES = 10_000
_NORMAL = NormalDist()


class Frozen(BaseModel):
    """What results are made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Frozen):
    """A mean over `n` questions with its interval at 95 % confidence: low <= value <= high."""

    value: float
    low: float
    high: float
    n: int


def wilson(n_right: float, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Wilson's score interval for a share of n independent yes-or-no questions (Wilson 1927).

    centre = (p + z^2/2n) / (1 + z^2/n), half = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)

    Unlike p +- z sqrt(p(1-p)/n) it has a width where every answer was wrong, and stays inside 0..1.

    >>> estimate = wilson(5, 10)
    >>> round(estimate.low, 3), round(estimate.high, 3)
    (0.237, 0.763)
    """
    assert 0 <= n_right <= n and n > 0, f"{n_right=} {n=}"
    z = _z(confidence)
    p = n_right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # at p = 0 and p = 1 centre and half are equal on paper; rounding must not push the bound past the share
    return Estimate(value=p, low=min(p, max(0.0, centre - half)), high=max(p, min(1.0, centre + half)), n=n)


def mean_share(shares: Sequence[float], seed: int) -> Estimate:
    """Mean over questions of the share of right samples: Wilson where each is right or wrong, else the bootstrap.

    >>> mean_share([1.0, 0.0, 1.0, 1.0], seed=0) == wilson(3, 4)
    True
    """
    if all(share in (0.0, 1.0) for share in shares):
        return wilson(sum(shares), len(shares))
    return bootstrap_mean(shares, seed)


def bootstrap_mean(
    values: Sequence[float],
    seed: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean over questions with its BCa bootstrap interval (Efron 1987): bias-corrected and accelerated.

    `values` holds one number a question, each within `bounds`. The interval's ends are the quantiles

        a(q) = Phi(b + (b + z_q) / (1 - a (b + z_q)))

    of the resampled means, with b from the share of resampled means below the mean (ties half) and the acceleration
    a = sum d^3 / (6 (sum d^2)^1.5), d = values - mean, which is the jackknife's for a mean.

    Where all values are equal a bootstrap knows no spread and would claim certainty. Then h = z^2 / (n + z^2), Wilson's
    bound for a thing seen 0 times in n, limits the share of questions unlike those seen; each may lie at either bound.

    >>> estimate = bootstrap_mean([0.0] * 96, seed=0)
    >>> estimate.low, round(estimate.high, 3) == round(wilson(0, 96).high, 3)
    (0.0, True)
    """
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    lowest, highest = bounds
    assert n > 0 and lowest <= array.min() and array.max() <= highest, f"{n=} {bounds=}"
    distinct, counts = np.unique(array, return_counts=True)
    if len(distinct) == 1:
        z = _z(confidence)
        unseen = z * z / (n + z * z)
        return Estimate(value=mean, low=mean - unseen * (mean - lowest), high=mean + unseen * (highest - mean), n=n)
    means = _resampled_means(distinct, counts, seed, n_resamples)
    below = float((means < mean).mean() + (means == mean).mean() / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / n_resamples), 1 - 0.5 / n_resamples))
    deviations = array - mean
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    tail = (1 - confidence) / 2
    ends = [
        _NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        for z in (_NORMAL.inv_cdf(tail), _NORMAL.inv_cdf(1 - tail))
    ]
    low, high = np.quantile(means, ends)
    return Estimate(value=mean, low=min(mean, float(low)), high=max(mean, float(high)), n=n)


def _resampled_means(distinct: np.ndarray, counts: np.ndarray, seed: int, n_resamples: int) -> np.ndarray:
    """Means of resamples of the questions, with replacement.

    A mean depends only on how often each distinct value was drawn, which is multinomial: k samples a question give at
    most k + 1 values, so 10,000 resamples of 1,319 questions cost milliseconds.
    """
    n = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=n_resamples)
    return drawn @ distinct / n


def paired_difference(before: Sequence[float], after: Sequence[float], seed: int) -> Estimate:
    """Mean of after - before over the same questions in the same order, with its BCa bootstrap interval.

    Pairing removes the spread of difficulty between questions, so it sees gains that two separate intervals hide.

    >>> paired_difference([0, 0, 1, 1], [1, 0, 1, 1], seed=0).value
    0.25
    """
    assert len(before) == len(after), f"{len(before)=} {len(after)=}"
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_mean(differences.tolist(), seed, bounds=(-1.0, 1.0))


def pass_at_k(n_samples: int, n_right: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is right: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, eq. 1).

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    assert 0 <= n_right <= n_samples and 1 <= k <= n_samples, f"{n_samples=} {n_right=} {k=}"
    return 1.0 - comb(n_samples - n_right, k) / comb(n_samples, k)


def majority(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> int | None:
    """cons@k: index of the first sample that gave the most common answer; None where no sample answered.

    `same` says when two answers are one (72 and 72.0). Silence (None) never votes. A tie goes to the answer given
    first, which is a fair draw, since samples come in no particular order.

    >>> majority(["3", None, "7", "7", None, None], same=str.__eq__)
    2
    """
    firsts: list[int] = []
    votes: list[int] = []
    for i, answer in enumerate(answers):
        if answer is None:
            continue
        for group, first in enumerate(firsts):
            if same(answer, answers[first] or ""):
                votes[group] += 1
                break
        else:
            firsts.append(i)
            votes.append(1)
    return firsts[votes.index(max(votes))] if votes else None


def _z(confidence: float) -> float:
    return _NORMAL.inv_cdf((1 + confidence) / 2)
