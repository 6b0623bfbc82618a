"""Rows of equal length out of a corpus, without end, each a function of its number alone.

A part's ids are one long row; it is cut every `seq_len` ids, and each epoch meets the pieces in an order of its own.
Which row is the k-th depends on (part, seq_len, seed, k) and nothing else: a run that goes on needs only k.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smallpress.corpus.shards import Part
from smallpress.corpus.shuffle import shuffled
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Row:
    """`ids` [seq_len + 1]: inputs are ids[:-1], targets ids[1:].

    `starts`: places in `ids` where a document begins, ascending; the first is 0, where one may only go on.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]


def row_of(ids: NDArray[np.int64], end_id: int) -> Row:
    """The row of these ids, whose documents `end_id` ends."""
    return Row(ids, np.concatenate([[0], np.flatnonzero(ids[:-1] == end_id) + 1]))


class Rows:
    """The loader. `len`: rows an epoch has; in each, every token but the first and the last few is a target once."""

    def __init__(self, part: Part, seq_len: int, seed: int) -> None:
        if part.n_tokens <= seq_len:
            raise UserError(
                f"{part.n_tokens} tokens are not one row of {seq_len} and the token after it",
                "take a smaller seq_len, more text, or a larger held-out share",
            )
        self.part, self.seq_len, self.seed = part, seq_len, seed

    def __len__(self) -> int:
        return (self.part.n_tokens - 1) // self.seq_len

    def row(self, k: int) -> Row:
        """The k-th row, k >= 0; row `len(self)` is the first of the second epoch."""
        epoch, place = divmod(k, len(self))
        piece = shuffled(place, len(self), derive_seed(self.seed, "epoch", epoch))
        return row_of(self.part.tokens(piece * self.seq_len, self.seq_len + 1), self.part.end_id)
