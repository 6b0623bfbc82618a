"""Which questions a text already held: those that share 10 words in a row with it (corpus/grams.py).

A question shorter than 10 words counts where all of it is found. The corpus is read once, line by line, and only the
questions' grams are kept.
"""

import gzip
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from smallpress.corpus.grams import N_WORDS, gram_of, grams, words
from smallpress.run.errors import UserError, disk_error
from smallpress.tasks.example import Example


def seen_in(examples: Sequence[Example], lines: Iterable[str]) -> set[str]:
    """Keys of the examples that share a gram with the lines, which are one text: a gram may go over their borders.

    A benchmark's question is taken without the words it is asked in (`meta["question"]`).
    """
    owners: dict[bytes, set[str]] = {}
    sizes = set()
    for example in examples:
        found = words(example.meta.get("question", example.prompt))
        size = min(N_WORDS, max(len(found), 1))
        sizes.add(size)
        for gram in grams(found, size):
            owners.setdefault(gram, set()).add(example.key)
    seen: set[str] = set()
    last: deque[str] = deque(maxlen=N_WORDS)
    for line in lines:
        for word in words(line):
            last.append(word)
            tail = list(last)
            for size in sizes:
                if len(tail) >= size and (keys := owners.get(gram_of(tail[-size:]))) is not None:
                    seen |= keys
    return seen


def corpus_lines(paths: Iterable[str | Path]) -> Iterator[str]:
    """The lines of text files (`.gz` too) and of those in folders. Raises UserError naming the file."""
    for path in map(Path, paths):
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path} holds no file", "give a folder of texts")
        for file in files:
            try:
                with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as content:
                    for line in content:
                        yield line.decode("utf-8", "replace")
            except (EOFError, zlib.error) as error:
                raise UserError(f"{file} is a damaged gzip file: {error}", "fetch it again") from None
            except OSError as error:
                raise disk_error(error, f"reading {file}") from error
