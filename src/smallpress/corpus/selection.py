"""Which documents a corpus has, and on which side: none twice, none of what is measured, a share held out."""

import unicodedata
from hashlib import blake2b

from smallpress.corpus.documents import Document, Tally
from smallpress.corpus.filters import Measured
from smallpress.corpus.near_duplicates import NearDuplicates
from smallpress.corpus.shard_writer import Side


class Selection:
    """A document's text decides its side, so it stays there when others are added, and no text is on both.

    held_out    the share of documents held out, from 0 up, below 1
    measured    texts of evaluations: what shares words in a row with them is left out
    near        given, what is nearly the same as an earlier document is left out too

    Memory: about 100 bytes for each document, and what `measured` and `near` take.
    """

    def __init__(self, held_out: float, measured: Measured | None = None, near: NearDuplicates | None = None) -> None:
        assert 0 <= held_out < 1, held_out
        self._held_out, self._measured, self._near = held_out, measured, near
        self._seen: set[bytes] = set()

    def side(self, document: Document, tally: Tally) -> Side | None:
        """The document's side, or None where it is left out and counted."""
        identity = identity_of(document.text)
        if reason := self._fault(document.text, identity):
            tally.leave_out(reason, document.where)
            return None
        return "held_out" if int.from_bytes(identity[8:]) < self._held_out * 2**64 else "train"

    def _fault(self, text: str, identity: bytes) -> str | None:
        if identity[:8] in self._seen:
            return "the same as another"
        if self._measured is not None and (shared := self._measured.shares(text)):
            return shared
        self._seen.add(identity[:8])
        return "nearly the same as another" if self._near is not None and self._near.seen(text) else None


def identity_of(text: str) -> bytes:
    r"""16 bytes, the same for texts that differ only in white space and in how Unicode composes their characters.

    >>> identity_of("a b") == identity_of(" a\n  b\n") != identity_of("ab")
    True
    """
    return blake2b(" ".join(unicodedata.normalize("NFC", text).split()).encode(), digest_size=16).digest()
