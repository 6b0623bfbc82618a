"""A corpus on disk: documents as token ids, one after another, cut into shards that are mapped into memory.

corpus.json       what is in it: counts, shards and their SHA-256, where it came from, what was left out and why
tokenizer/        the Hugging Face folder of the tokenizer that made the ids
bytes_of.npy      how many bytes of text each id stands for
train-00000.bin, held_out-00000.bin, ...    ids, little-endian, 16 bits where the vocabulary allows it, else 32
manifest.json     size and SHA-256 of every file
"""

from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smallpress.run.atomic import verify_folder
from smallpress.run.errors import UserError, disk_error
from smallpress.run.seeds import derive_seed

VERSION: Literal[1] = 1
REMEDY = "make the corpus again with smallpress corpus, or take a whole copy of it"


class _Stated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ShardEntry(_Stated):
    file: str = Field(pattern=r"^[a-z_]+-\d{5,}\.bin$")
    n_tokens: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class PartEntry(_Stated):
    """`n_tokens` counts the ids that begin and end documents too; `n_bytes` is the text of them all, as UTF-8."""

    n_documents: int = Field(ge=0)
    n_tokens: int = Field(ge=0)
    n_bytes: int = Field(ge=0)
    shards: list[ShardEntry]


class TokenizerEntry(_Stated):
    folder: Literal["tokenizer"] = "tokenizer"
    sha256: str = Field(description="of tokenizer.json")
    vocab_size: int = Field(gt=0)
    end_id: int = Field(ge=0, description="ends every document")


class Manifest(_Stated):
    """corpus.json. `origin`: files, settings and counts of what was left out, for people to read."""

    version: Literal[1] = VERSION
    tokenizer: TokenizerEntry
    dtype: Literal["uint16", "uint32"]
    parts: dict[Literal["train", "held_out"], PartEntry]
    origin: dict[str, Any] = {}


class Part:
    """The documents of one side, as one long row of ids.

    n_tokens, n_bytes, n_documents    as in `PartEntry`
    end_id                            the id that ends every document
    digest                            hexadecimal; other ids have another one
    """

    def __init__(self, folder: Path, entry: PartEntry, dtype: str, end_id: int) -> None:
        self.n_tokens, self.n_bytes, self.n_documents = entry.n_tokens, entry.n_bytes, entry.n_documents
        self.end_id = end_id
        self.digest = f"{derive_seed(dtype, *(shard.sha256 for shard in entry.shards)):016x}"
        self._shards = [Shard(folder / shard.file, shard.n_tokens, dtype) for shard in entry.shards]
        self._ends = list(accumulate(shard.n_tokens for shard in entry.shards))

    def tokens(self, first: int, n: int) -> NDArray[np.int64]:
        """ids [n] from place `first` on."""
        assert first >= 0 and first + n <= self.n_tokens, f"{first=} {n=} {self.n_tokens=}"
        ids = np.empty(n, np.int64)
        number, at = int(np.searchsorted(self._ends, first, side="right")), 0
        while at < n:
            shard = self._shards[number]
            start = first + at - (self._ends[number] - shard.n_tokens)
            piece = shard.ids[start : start + n - at]
            ids[at : at + len(piece)] = piece
            number, at = number + 1, at + len(piece)
        return ids


class Shard:
    """One file of ids, mapped when it is first needed."""

    def __init__(self, path: Path, n_tokens: int, dtype: str) -> None:
        self.path, self.n_tokens, self._dtype = path, n_tokens, np.dtype(dtype).newbyteorder("<")

    @cached_property
    def ids(self) -> NDArray[np.unsignedinteger[Any]]:
        try:
            return np.memmap(self.path, self._dtype, mode="r", shape=(self.n_tokens,))
        except OSError as error:
            raise disk_error(error, f"reading {self.path}") from error
        except ValueError as error:  # The file has become shorter since it was checked.
            raise UserError(f"{self.path} has fewer than {self.n_tokens} tokens", REMEDY) from error


class Corpus:
    """An opened corpus.

    tokenizer         folder of the tokenizer that made the ids
    vocab_size        one more than the highest id
    bytes_of          [vocab_size], int64: bytes of text of each id, 0 for control tokens. The bits per byte of a text
                      are its loss in nats, summed, / ln 2 / bytes_of[targets].sum()
    train, held_out   the two sides; no document is in both
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.tokenizer = folder / manifest.tokenizer.folder
        self.vocab_size = manifest.tokenizer.vocab_size
        self.bytes_of = _bytes_of(folder / "bytes_of.npy", self.vocab_size)
        self.train, self.held_out = (
            Part(folder, manifest.parts[name], manifest.dtype, manifest.tokenizer.end_id)
            for name in ("train", "held_out")
        )

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Checks every file against its SHA-256. Raises UserError naming what is missing, cut short or changed."""
        folder = Path(folder)
        if not (folder / "corpus.json").is_file():
            raise UserError(f"{folder} is no corpus: it has no corpus.json", "make one with smallpress corpus")
        try:
            verify_folder(folder)
        except UserError as error:
            raise UserError(error.message, REMEDY) from error
        return cls(folder, _read_manifest(folder / "corpus.json"))


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", REMEDY) from error
    if set(manifest.parts) != {"train", "held_out"}:
        raise UserError(f"{path} has the parts {sorted(manifest.parts)}, not train and held_out", REMEDY)
    for name, part in manifest.parts.items():
        if part.n_tokens != sum(shard.n_tokens for shard in part.shards):
            raise UserError(f"{path}: the shards of {name} do not have {part.n_tokens} tokens together", REMEDY)
    return manifest


def _bytes_of(path: Path, vocab_size: int) -> NDArray[np.int64]:
    try:
        counts = np.load(path)
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}", REMEDY) from error
    if counts.shape != (vocab_size,) or counts.dtype.kind not in "iu":
        raise UserError(f"{path} has {counts.dtype} of shape {counts.shape}, not {vocab_size} counts", REMEDY)
    return counts.astype(np.int64)


def dtype_for(vocab_size: int) -> Literal["uint16", "uint32"]:
    """
    >>> dtype_for(65_536), dtype_for(65_537)
    ('uint16', 'uint32')
    """
    return "uint16" if vocab_size <= 1 << 16 else "uint32"
