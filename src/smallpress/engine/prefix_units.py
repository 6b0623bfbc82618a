"""Between the pages of a pool and what is kept of them on disk: which are written there, which come back.

A unit is the pages of `UNIT` tokens, known by the name of its last page, which stands for the whole prefix. Units are
written after the step that filled them, a few a step, if their pages are then still there; nothing waits for them.
They come back when a request is admitted that goes on with them: reading and checking a unit takes a small part of the
time that computing it does.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smallpress.engine.pages import PagePool

UNIT = 64  # tokens
WAITING = 1 << 14  # units that are to be written; beyond it the oldest are left out

Bytes = NDArray[np.uint8]


class PageRunner(Protocol):
    """`page_form` names all that the bytes of a page depend on but the weights."""

    @property
    def page_bytes(self) -> int: ...
    @property
    def page_form(self) -> str: ...
    def read_pages(self, pages: Sequence[int]) -> Bytes: ...


class Shelf(Protocol):
    """Where units are kept; see prefix_disk.Shelf."""

    def holds(self, name: bytes) -> bool: ...
    def read(self, name: bytes, n_bytes: int) -> Bytes | None: ...
    def put(self, name: bytes, content: Bytes) -> bool: ...
    def used(self, names: Sequence[bytes]) -> None: ...


class PrefixUnits:
    def __init__(self, runner: PageRunner, pool: PagePool, shelf: Shelf):
        assert UNIT % pool.page_size == 0, f"{pool.page_size=}"
        self.per_unit = UNIT // pool.page_size
        self.n_loaded = 0  # pages
        self._runner, self._pool, self._shelf = runner, pool, shelf
        self._waiting: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()  # unit -> its pages' names

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def offer(self, keys: Sequence[bytes], n_before: int) -> None:
        """`keys` are the names of a sequence's full pages, all but the first `n_before` of them new."""
        for end in range((n_before // self.per_unit + 1) * self.per_unit, len(keys) + 1, self.per_unit):
            unit = tuple(keys[end - self.per_unit : end])
            if not self._shelf.holds(unit[-1]):
                self._waiting[unit[-1]] = unit
        while len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)

    def used(self, keys: Sequence[bytes]) -> None:
        """A request goes on with pages of these names."""
        self._shelf.used(keys[self.per_unit - 1 :: self.per_unit])

    def missing(self, keys: Sequence[bytes], n_there: int) -> Iterator[Bytes]:
        """Page by page what the disk has of `keys` behind the first `n_there`; [page_bytes] each."""
        size = self._runner.page_bytes
        for end in range((n_there // self.per_unit + 1) * self.per_unit, len(keys) + 1, self.per_unit):
            name = keys[end - 1]
            content = self._shelf.read(name, self.per_unit * size) if self._shelf.holds(name) else None
            if content is None:
                return
            first = max(n_there, end - self.per_unit)
            for i in range(first % self.per_unit, self.per_unit):
                yield content[i * size : (i + 1) * size]
                self.n_loaded += 1

    def save(self, n_units: int) -> None:
        """Hand at most so many units to the disk; those whose pages have been used again are left out."""
        while self._waiting and n_units > 0:
            name, keys = next(iter(self._waiting.items()))
            pages = [page for key in keys if (page := self._pool.find(key)) is not None]
            if len(pages) == len(keys) and not self._shelf.holds(name):
                if not self._shelf.put(name, self._runner.read_pages(pages).reshape(-1)):
                    return
                n_units -= 1
            del self._waiting[name]

    def forget(self) -> None:
        """No page can be trusted any more."""
        self._waiting.clear()
