"""Prefixes on disk: a file for each unit of keys and values, bounded in all, the one used longest ago removed first.

    DIR/<model>/<name>.kv      HEAD, then the bytes of the unit's pages

A name is a hash that only who has the tokens and the salt can make (pages.py), and <model> one of everything that the
bytes depend on, so a file of another model, format or version is never found. A file appears whole, by a rename. It is
not fsynced: what a power cut tears, its checksum finds. Whatever is wrong with the disk is a miss and a line to `say`.

Files are written, dated and removed in a thread of their own; `put` copies nothing and never waits.
"""

import os
import struct
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from queue import Full, Queue
from typing import IO

import numpy as np
from numpy.typing import NDArray

from smallpress import __version__
from smallpress.run.errors import UserError, disk_error
from smallpress.run.folder import lock

HEAD = struct.Struct("<8sI52x")
"""Magic with the form's number, crc32 of model, name and content."""
MAGIC = b"spkv\x00\x00\x00\x01"
QUEUED = 16  # units under way to the disk
RETRY_SECONDS = 30.0  # after a disk refused to take a file
QUIET_SECONDS = 5.0  # between two lines about the disk

Bytes = NDArray[np.uint8]


class PrefixDisk:
    """What is kept in `folder`, by model. One process at a time has it."""

    def __init__(self, folder: Path, max_bytes: int, say: Callable[[str], None]):
        """Makes the folder, readable by this user only, and looks up what is in it. UserError where that fails."""
        self.folder, self.max_bytes, self._say = folder, max_bytes, say
        self._sizes: OrderedDict[tuple[str, str], int] = OrderedDict()  # used longest ago first
        self._n_bytes = 0
        self._mutex = threading.Lock()
        self._refused_until = self._silent_until = 0.0
        self._n_unsaid = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = _locked(folder)
            self._scan()
        except OSError as error:
            raise disk_error(error, f"opening the cache {folder}") from error
        self._queue: Queue[Callable[[], None] | None] = Queue(QUEUED)
        self._thread = threading.Thread(target=self._work, name="prefix cache", daemon=True)
        self._thread.start()

    @property
    def n_bytes(self) -> int:
        return self._n_bytes

    def of(self, weights: str, page_form: str) -> "Shelf":
        """The part of it that is of these weights, computed so, by this version."""
        model = sha256(f"{__version__}\n{weights}\n{page_form}".encode()).hexdigest()[:32]
        try:
            (self.folder / model).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"opening the cache {self.folder}") from error
        return Shelf(self, model)

    def close(self) -> None:
        """Write what is under way, which is not much, and let another process have the folder."""
        self._queue.put(None)
        self._thread.join()
        self._held.close()

    def holds(self, model: str, name: str) -> bool:
        return (model, name) in self._sizes

    def read(self, model: str, name: str, n_bytes: int) -> Bytes | None:
        """[n_bytes], or None where it is not there whole; a damaged file is removed."""
        path = self._path(model, name)
        try:
            data = np.fromfile(path, dtype=np.uint8, count=HEAD.size + n_bytes + 1)
        except OSError as error:
            self._forget(model, name)
            self._complain(f"{path} cannot be read: {error.strerror}")
            return None
        content = data[HEAD.size :]
        if len(content) == n_bytes and data[: HEAD.size].tobytes() == _head(model, name, content):
            return content
        self._forget(model, name)
        with suppress(OSError):
            path.unlink()
        self._complain(f"{path} is damaged; removed")
        return None

    def put(self, model: str, name: str, content: Bytes) -> bool:
        """Write it when its turn comes; `content` is not to be changed any more. False: no room in the queue now."""
        if time.monotonic() < self._refused_until:
            return True  # and forgotten
        try:
            self._queue.put_nowait(lambda: self._write(model, name, content))
        except Full:
            return False
        return True

    def used(self, model: str, names: Sequence[str]) -> None:
        """These were of use just now, the first of them most: without it the others are worth nothing."""
        with self._mutex:
            there = [name for name in reversed(names) if (model, name) in self._sizes]
            for name in there:
                self._sizes.move_to_end((model, name))
        if there:
            with suppress(Full):
                self._queue.put_nowait(lambda: self._date(model, there))

    def _path(self, model: str, name: str) -> Path:
        return self.folder / model / f"{name}.kv"

    def _scan(self) -> None:
        found = []
        for path in self.folder.glob("*/*"):
            if path.name.endswith(".kv.new"):  # of a process that was killed
                path.unlink(missing_ok=True)
            elif path.suffix == ".kv":
                status = path.stat()
                found.append((status.st_mtime_ns, path.parent.name, path.stem, status.st_size))
        for _, model, name, size in sorted(found):
            self._sizes[model, name] = size
            self._n_bytes += size
        self._make_room(0)

    def _forget(self, model: str, name: str) -> None:
        with self._mutex:
            self._n_bytes -= self._sizes.pop((model, name), 0)

    def _make_room(self, size: int) -> None:
        """Remove files until `size` more fit."""
        while True:
            with self._mutex:
                if not self._sizes or self._n_bytes + size <= self.max_bytes:
                    return
                (model, name), n = self._sizes.popitem(last=False)
                self._n_bytes -= n
            with suppress(OSError):
                self._path(model, name).unlink()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job()

    def _write(self, model: str, name: str, content: Bytes) -> None:
        path, size = self._path(model, name), HEAD.size + len(content)
        if self.holds(model, name) or size > self.max_bytes:
            return
        self._make_room(size)
        beside = path.with_suffix(".kv.new")
        try:
            with open(beside, "wb") as file:
                file.write(_head(model, name, content))
                file.write(content.data)
            os.replace(beside, path)
        except OSError as error:
            self._refused_until = time.monotonic() + RETRY_SECONDS
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            self._complain(f"{path} cannot be written: {error.strerror}; nothing is for {RETRY_SECONDS:g} s")
            return
        with self._mutex:
            self._sizes[model, name] = size
            self._n_bytes += size

    def _date(self, model: str, names: Sequence[str]) -> None:
        """So that the next process knows the order."""
        now = time.time_ns()
        for i, name in enumerate(names):
            with suppress(OSError):
                os.utime(self._path(model, name), ns=(now + i, now + i))

    def _complain(self, what: str) -> None:
        now = time.monotonic()
        if now < self._silent_until:
            self._n_unsaid += 1
            return
        more = f" (and {self._n_unsaid} faults before)" if self._n_unsaid else ""
        self._silent_until, self._n_unsaid = now + QUIET_SECONDS, 0
        self._say(f"prefix cache: {what}{more}")


@dataclass(frozen=True)
class Shelf:
    """What one model has on the disk."""

    disk: PrefixDisk
    model: str

    def holds(self, name: bytes) -> bool:
        return self.disk.holds(self.model, name.hex())

    def read(self, name: bytes, n_bytes: int) -> Bytes | None:
        return self.disk.read(self.model, name.hex(), n_bytes)

    def put(self, name: bytes, content: Bytes) -> bool:
        return self.disk.put(self.model, name.hex(), content)

    def used(self, names: Sequence[bytes]) -> None:
        self.disk.used(self.model, [name.hex() for name in names])


def _locked(folder: Path) -> IO[str]:
    """A file that stands for the folder and is this process's as long as it is open."""
    file = open(folder / ".lock", "a+")  # noqa: SIM115 (closed by who has it)
    try:
        lock(file, folder)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except (OSError, UserError):
        file.close()
        raise
    return file


def _head(model: str, name: str, content: Bytes) -> bytes:
    return HEAD.pack(MAGIC, zlib.crc32(content.data, zlib.crc32(f"{model}/{name}".encode())))


def max_bytes(gigabytes: float) -> int:
    if not 0.01 <= gigabytes <= 1e6:
        raise UserError(f"cache_size is {gigabytes:g}", "give gigabytes, at least 0.01")
    return int(gigabytes * 1e9)
