"""Documents as ids in, a corpus folder out (the layout is in shards.py): there whole or not at all."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from smallpress.corpus.shards import Manifest, PartEntry, ShardEntry, TokenizerEntry, dtype_for
from smallpress.run.atomic import atomic_folder, file_sha256, remove_leftovers

SHARD_TOKENS = 1 << 26
Side = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a corpus keeps of its tokenizer.

    bytes_of    [vocab_size], bytes of text of each id, 0 for control tokens
    end_id      ends every document
    save        writes the tokenizer's Hugging Face folder at a path
    """

    bytes_of: NDArray[np.int64]
    end_id: int
    save: Callable[[Path], None]


class CorpusWriter:
    """`origin` is what corpus.json says, for people, of where the documents came from."""

    def __init__(self, folder: Path, bytes_of: NDArray[np.int64], shard_tokens: int) -> None:
        self.train, self.held_out = (PartWriter(folder, name, bytes_of, shard_tokens) for name in ("train", "held_out"))
        self.origin: dict[str, Any] = {}

    def add(self, side: Side, ids: Sequence[int]) -> None:
        """One document, `end_id` included."""
        (self.train if side == "train" else self.held_out).add(ids)


@contextmanager
def new_corpus(folder: Path, vocabulary: Vocabulary, shard_tokens: int = SHARD_TOKENS) -> Iterator[CorpusWriter]:
    """A corpus to add documents to, which is at `folder` when the block ends well; else nothing of it is left.

    A `folder` that is there already is refused with UserError; a full disk is one too. What a killed writer of the same
    folder left beside it is removed.
    """
    remove_leftovers(folder.parent, folder.name)
    with atomic_folder(folder) as beside:
        writer = CorpusWriter(beside, vocabulary.bytes_of, shard_tokens)
        with writer.train, writer.held_out:
            yield writer
        vocabulary.save(beside / "tokenizer")
        np.save(beside / "bytes_of.npy", vocabulary.bytes_of.astype("<u4"))
        vocab_size = len(vocabulary.bytes_of)
        manifest = Manifest(
            tokenizer=TokenizerEntry(
                sha256=file_sha256(beside / "tokenizer/tokenizer.json"), vocab_size=vocab_size, end_id=vocabulary.end_id
            ),
            dtype=dtype_for(vocab_size),
            parts={"train": writer.train.entry(), "held_out": writer.held_out.entry()},
            origin=writer.origin,
        )
        (beside / "corpus.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


class PartWriter:
    """One side's documents, written as they come."""

    def __init__(self, folder: Path, name: str, bytes_of: NDArray[np.int64], shard_tokens: int) -> None:
        self._folder, self._name, self._bytes_of, self._shard_tokens = folder, name, bytes_of, shard_tokens
        self._dtype = np.dtype(dtype_for(len(bytes_of))).newbyteorder("<")
        self._shards: list[ShardEntry] = []
        self._file: BinaryIO | None = None
        self._n_in_shard = self.n_documents = self._n_bytes = 0

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_shard()

    def add(self, ids: Sequence[int]) -> None:
        document = np.asarray(ids, np.int64)
        assert len(document) and document.min() >= 0 and document.max() < len(self._bytes_of), "an id has no token"
        self.n_documents += 1
        self._n_bytes += int(self._bytes_of[document].sum())
        while len(document):
            if self._file is None:
                self._begin_shard()
            room = self._shard_tokens - self._n_in_shard
            self._write(document[:room])
            document = document[room:]
            if self._n_in_shard == self._shard_tokens:
                self._end_shard()

    def entry(self) -> PartEntry:
        n_tokens = sum(shard.n_tokens for shard in self._shards)
        return PartEntry(n_documents=self.n_documents, n_tokens=n_tokens, n_bytes=self._n_bytes, shards=self._shards)

    def _begin_shard(self) -> None:
        self._file = open(self._folder / f"{self._name}-{len(self._shards):05}.bin", "xb")  # noqa: SIM115
        self._hash, self._n_in_shard = hashlib.sha256(), 0

    def _write(self, ids: NDArray[np.int64]) -> None:
        assert self._file is not None
        data = ids.astype(self._dtype).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._n_in_shard += len(ids)

    def _end_shard(self) -> None:
        if self._file is None:
            return
        self._file.close()
        name, self._file = Path(self._file.name).name, None
        self._shards.append(ShardEntry(file=name, n_tokens=self._n_in_shard, sha256=self._hash.hexdigest()))
