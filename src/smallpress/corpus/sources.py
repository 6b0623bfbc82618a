"""Files and folders as given on the command line -> the files to read, in an order that is always the same."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smallpress.corpus.code_files import NOT_ENTERED, is_code, read_code
from smallpress.corpus.documents import Document, OnBytes, Tally
from smallpress.corpus.json_files import read_json, rows_of_json, texts_in
from smallpress.corpus.parquet_files import read_parquet, rows_of_parquet
from smallpress.corpus.text_files import Split, read_text
from smallpress.run.errors import UserError, disk_error

Kind = Literal["text", "json", "parquet", "code"]
KINDS: dict[str, Kind] = {
    **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".rst"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class Source:
    path: Path
    kind: Kind
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read: what divides text files, and under which keys rows have their text."""

    split: Split = "file"
    fields: tuple[str, ...] = ("text", "content")


def find_sources(paths: Iterable[Path], tally: Tally) -> list[Source]:
    """The files to read; what is in a folder and not taken is counted. Raises UserError for a path that is not there.

    A folder is gone through by name: text, JSON lines, Parquet and source code are taken. A file that is given itself
    is read as text where its name says nothing. A file that is met twice is read once.
    """
    sources: dict[Path, Source] = {}
    for path in paths:
        try:
            if not path.exists():
                raise UserError(f"{path} is not there", "check the path")
            found = _walk(path, tally) if path.is_dir() else [(path, _kind(path) or "text")]
            for file, kind in found:
                sources.setdefault(file.resolve(), Source(file, kind, file.stat().st_size))
        except OSError as error:
            raise disk_error(error, f"reading {path}") from error
    if not sources:
        raise UserError(f"nothing to read in {', '.join(map(str, paths)) or 'no file'}", "give files of text or code")
    return list(sources.values())


def read(source: Source, reading: Reading, tally: Tally, on_bytes: OnBytes) -> Iterator[Document]:
    """The documents of one file; what is left out of it is counted."""
    match source.kind:
        case "text":
            return read_text(source.path, reading.split, tally, on_bytes)
        case "json":
            return read_json(source.path, reading.fields, tally, on_bytes)
        case "parquet":
            return read_parquet(source.path, reading.fields, tally, on_bytes)
        case "code":
            return read_code(source.path, tally, on_bytes)


def all_texts(path: Path) -> Iterator[str]:
    """Every text in a file of any kind, whatever its key. Raises UserError for a file that is not read whole."""
    tally = Tally()
    (source,) = find_sources([path], tally)
    if source.kind in ("json", "parquet"):
        rows = (rows_of_json if source.kind == "json" else rows_of_parquet)(path, tally, _unheard)
        yield from (text for _, row in rows for text in texts_in(row))
    else:
        yield from (document.text for document in read_text(path, "file", tally, _unheard))
    for reason, places in tally.places.items():
        raise UserError(f"{places[0]}: {reason}", "mend the file: it must be read whole")


def _unheard(n_bytes: int) -> None:
    pass


def _walk(folder: Path, tally: Tally) -> Iterator[tuple[Path, Kind]]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name.lower() not in NOT_ENTERED)
        for name in sorted(names):
            path = Path(parent, name)
            kind = None if name.startswith(".") or path.suffix == ".json" else _kind(path)
            if path.is_symlink():
                tally.leave_out("a link in a folder", str(path))
            elif kind is None or not path.is_file():
                tally.leave_out("of another kind, in a folder", str(path))
            else:
                yield path, kind


def _kind(path: Path) -> Kind | None:
    if is_code(path):
        return "code"
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return KINDS.get(plain.suffix.lower())


def _raise(error: OSError) -> None:
    raise error
