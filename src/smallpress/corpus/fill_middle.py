"""Fill in the middle (Bavarian et al. 2022): a document told as beginning, end, middle, so that a model learns to
write what stands between. As DeepSeek-V3 does to one document in ten:

    begin  prefix  hole  suffix  end  middle

The marks are control tokens, which no text contains, so that the order can be undone exactly.
"""

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Marks:
    """Ids of the control tokens around the parts."""

    begin: int
    hole: int
    end: int


def with_hole(ids: Ids, first: int, second: int, marks: Marks) -> Ids:
    """The text `ids`, its middle `ids[first:second]` moved to the end; three tokens longer.

    >>> with_hole(np.array([1, 2, 3, 4]), 1, 3, Marks(begin=7, hole=8, end=9)).tolist()
    [7, 1, 8, 4, 9, 2, 3]
    """
    assert 0 <= first <= second <= len(ids), f"{first=} {second=} {len(ids)=}"
    return np.concatenate(([marks.begin], ids[:first], [marks.hole], ids[second:], [marks.end], ids[first:second]))


def without_hole(ids: Ids, marks: Marks) -> Ids:
    """What `with_hole` was given."""
    (hole,), (end,) = np.flatnonzero(ids == marks.hole), np.flatnonzero(ids == marks.end)
    assert ids[0] == marks.begin and hole < end, "not a text with a hole"
    return np.concatenate((ids[1:hole], ids[end + 1 :], ids[hole + 1 : end]))


def holes_in_row(ids: Ids, end_id: int, rate: float, chance: Random, marks: Marks) -> Ids:
    """A row of documents, each of which `end_id` ends, where they have holes at `rate`. A document's end stays at its
    end. The row keeps its length: what the marks take is cut off the end of the row."""
    pieces, first = [], 0
    for last in [*np.flatnonzero(ids == end_id).tolist(), len(ids)]:
        document = ids[first:last]
        if len(document) and chance.random() < rate:
            cuts = sorted(chance.randrange(len(document) + 1) for _ in range(2))
            document = with_hole(document, cuts[0], cuts[1], marks)
        pieces += [document, ids[last : last + 1]]
        first = last + 1
    return np.concatenate(pieces)[: len(ids)]
