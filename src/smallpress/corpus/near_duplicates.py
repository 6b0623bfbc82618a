"""Texts that share most of their words in a row: MinHash signatures (Broder 1997), found again by bands of them.

A text is the set of its runs of 5 words. Of each of 112 hash functions the least value over the set is kept: two texts
agree in a share of the 112 that estimates |A and B| / |A or B|, with a standard deviation of at most 0.05. Texts are
compared where one of 14 bands of 8 values is the same: 92 % of the pairs that are 0.8 alike, 5 % of those 0.5 alike.
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from smallpress.corpus.grams import words
from smallpress.run.seeds import derive_seed

N_WORDS, N_BANDS, BAND_LEN = 5, 14, 8
ALIKE = 0.8
_AT_ONCE = 4096  # runs of words hashed together: 3.7 MB


class NearDuplicates:
    """Memory: about 2 kB for each text that is kept."""

    def __init__(self, alike: float = ALIKE) -> None:
        seeds = [[derive_seed("near duplicates", i, part) for part in ("factor", "term")] for i in range(_N)]
        self._factors_N, self._terms_N = np.array(seeds, np.uint64).T
        self._factors_N |= np.uint64(1)
        self._alike = alike
        self._signatures: list[NDArray[np.uint32]] = []
        self._bands: dict[bytes, int] = {}

    def seen(self, text: str) -> bool:
        """Whether a text kept before is at least `alike` this one; if none is, this one is kept.

        A text of fewer than 5 words is like none.
        """
        signature = self._signature(text)
        if signature is None:
            return False
        bands = [bytes([i]) + band.tobytes() for i, band in enumerate(signature.reshape(N_BANDS, BAND_LEN))]
        others = {self._bands[band] for band in bands if band in self._bands}
        if any(np.mean(self._signatures[other] == signature) >= self._alike for other in others):
            return True
        for band in bands:
            self._bands.setdefault(band, len(self._signatures))
        self._signatures.append(signature)
        return False

    def _signature(self, text: str) -> NDArray[np.uint32] | None:
        """[N]: the least value of each hash function over the text's runs of words."""
        hashes = np.array([crc32(word.encode()) for word in words(text)], np.uint64)
        n_runs = len(hashes) - N_WORDS + 1
        if n_runs < 1:
            return None
        runs = np.zeros(n_runs, np.uint64)
        for i in range(N_WORDS):
            runs = runs * _MIX + hashes[i : i + n_runs]
        runs = np.unique(_mixed(runs))
        least = np.full(_N, np.iinfo(np.uint32).max, np.uint32)
        for start in range(0, len(runs), _AT_ONCE):
            values = self._factors_N[:, None] * runs[start : start + _AT_ONCE] + self._terms_N[:, None]
            least = np.minimum(least, (values >> np.uint64(32)).min(1).astype(np.uint32))
        return least


_N = N_BANDS * BAND_LEN
_MIX = np.uint64(0x9E3779B97F4A7C15)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of a value moves every bit of the result (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
