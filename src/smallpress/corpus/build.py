"""From sources to a corpus: read, select, encode, write."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallpress.corpus.documents import Document, OnBytes, Tally
from smallpress.corpus.filters import Measured
from smallpress.corpus.near_duplicates import NearDuplicates
from smallpress.corpus.selection import Selection, identity_of
from smallpress.corpus.shard_writer import Side, Vocabulary, new_corpus
from smallpress.corpus.sources import Reading, Source, all_texts, read
from smallpress.run.errors import UserError

BATCH_CHARS = 1 << 20
Encode = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a corpus is made of. `not_in`: files of evaluations, with whose texts no document shares words in a row."""

    sources: Sequence[Source]
    reading: Reading
    held_out: float = 0.01
    not_in: Sequence[Path] = ()
    near_duplicates: bool = False

    @property
    def n_bytes(self) -> int:
        return sum(source.n_bytes for source in self.sources)

    def documents(self, tally: Tally, on_bytes: OnBytes) -> Iterator[tuple[Side, Document]]:
        """What is kept, in the order of the sources: the same at every call."""
        measured = Measured(text for path in self.not_in for text in all_texts(path)) if self.not_in else None
        selection = Selection(self.held_out, measured, NearDuplicates() if self.near_duplicates else None)
        for source in self.sources:
            for document in read(source, self.reading, tally, on_bytes):
                if side := selection.side(document, tally):
                    yield side, document

    def training_texts(self, most_bytes: int, on_bytes: OnBytes) -> Iterator[str]:
        """Texts to make a tokenizer from: all that are trained on, or where the files have more, about `most_bytes`."""
        share = min(1.0, most_bytes / max(self.n_bytes, 1))
        for side, document in self.documents(Tally(), on_bytes):
            if side == "train" and int.from_bytes(identity_of(document.text)[:8]) < share * 2**64:
                yield document.text


def build(
    out: Path, plan: Plan, vocabulary: Vocabulary, encode: Encode, origin: dict[str, Any], on_bytes: OnBytes
) -> Tally:
    """Write the corpus at `out`, whole or not at all; what was left out. Raises UserError where a side has nothing.

    `origin` goes into corpus.json, with what was left out.
    """
    tally = Tally()
    with new_corpus(out, vocabulary) as writer:
        for batch in _batches(plan.documents(tally, on_bytes)):
            for (side, _), ids in zip(batch, encode([document.text for _, document in batch]), strict=True):
                writer.add(side, [*ids, vocabulary.end_id])
        n_train, n_held_out = writer.train.n_documents, writer.held_out.n_documents
        check_sides(n_train, n_held_out, plan.held_out, tally)
        writer.origin = origin | {"left_out": dict(sorted(tally.counts.items()))}
    return tally


def check_sides(n_train: int, n_held_out: int, held_out: float, tally: Tally) -> None:
    """Raises UserError unless there are documents to train on and, where a share is held out, to measure on."""
    if not n_train and not n_held_out:
        reason, n = max(tally.counts.items(), key=lambda item: item[1], default=("empty", 0))
        where = ", ".join(tally.places[reason])
        remedy = "name the key of the texts with --field" if reason.startswith("no ") else "give files that hold text"
        raise UserError(f"no document is left: {reason} ({n} times: {where})", remedy)
    if not n_train or (held_out and not n_held_out):
        side = "held out" if n_train else "left to train on"
        remedy = "give another --held-out, more text, or divide text files more finely with --split"
        raise UserError(f"of {n_train + n_held_out} documents none is {side} at a share of {held_out}", remedy)


def _batches(documents: Iterator[tuple[Side, Document]]) -> Iterator[list[tuple[Side, Document]]]:
    batch: list[tuple[Side, Document]] = []
    n_chars = 0
    for side, document in documents:
        batch.append((side, document))
        n_chars += len(document.text)
        if n_chars >= BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch
