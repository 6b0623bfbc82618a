"""What every reader of files gives: documents, and a tally of what it had to leave out."""

import gzip
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Protocol

from smallpress.run.errors import disk_error

PLACES_KEPT = 3
OnBytes = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Document:
    """`where` names it for people: the file, and its line or row."""

    text: str
    where: str


class Tally:
    """How many things were left out for which reason, and where the first of them were."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: defaultdict[str, list[str]] = defaultdict(list)

    def leave_out(self, reason: str, where: str) -> None:
        self.counts[reason] += 1
        if len(self.places[reason]) < PLACES_KEPT:
            self.places[reason].append(where)

    def document(self, content: str | bytes, where: str) -> Document | None:
        r"""A document with Unix line ends, unless it is counted here as empty, damaged or binary.

        >>> tally = Tally()
        >>> tally.document(b"one\r\ntwo", "a.txt").text, tally.document(b"\xff", "b.txt"), tally.places["not UTF-8"]
        ('one\ntwo', None, ['b.txt'])
        """
        try:
            text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
            text.encode()  # Half of a surrogate pair, which JSON can hold, has no form in UTF-8.
        except UnicodeError:
            text, reason = "", "not UTF-8"
        else:
            reason = "binary: it has a NUL" if "\0" in text else "" if text.strip() else "empty"
        if reason:
            self.leave_out(reason, where)
            return None
        return Document(text.replace("\r\n", "\n"), where)


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


@contextmanager
def opened(path: Path, tally: Tally, on_bytes: OnBytes) -> Iterator["BufferedReader[_Heard] | gzip.GzipFile"]:
    """The file's content, unpacked if it is gzip; `on_bytes` hears of the bytes of the file itself as they are read.

    A file that cannot be read to its end is counted; what was read of it until then stands.
    """
    try:
        with BufferedReader(_Heard(path, on_bytes), 1 << 20) as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            yield gzip.GzipFile(fileobj=file) if packed else file
    except (EOFError, zlib.error, gzip.BadGzipFile):
        tally.leave_out("the rest of a damaged gzip file", str(path))
    except OSError as error:
        tally.leave_out(f"unreadable: {disk_error(error, 'file').message}", str(path))


class _Heard(FileIO):
    def __init__(self, path: Path, on_bytes: OnBytes) -> None:
        super().__init__(path)
        self._on_bytes = on_bytes

    def readinto(self, buffer: object) -> int:
        n = super().readinto(buffer) or 0  # type: ignore[arg-type]
        self._on_bytes(n)
        return n
