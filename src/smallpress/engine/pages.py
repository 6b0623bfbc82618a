"""The page pool: who holds which page of the kv cache, and which full pages can be shared.

A page holds the keys and values of `page_size` consecutive tokens in every layer. It is in exactly one state:

- blank: free, content worthless;
- held: one or more sequences point at it (its reference count);
- kept: free, but full and still valid, so a later request with the same beginning may take it up again.

A full page is known by a key that hashes its tokens and the key of the page before it, so equal keys mean equal whole
prefixes, and equal salts and adapters, from which the first key is made. When blank pages run out, the kept page that
was freed longest ago is used again.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from smallpress.model.config import ModelConfig
from smallpress.model.sizes import cache_bytes

ROOT_KEY = b""


def root_key(salt: bytes, adapter_mark: bytes = b"") -> bytes:
    """What stands for the page before the first one of a sequence with that salt, computed with that adapter."""
    if not salt and not adapter_mark:
        return ROOT_KEY
    return blake2b(salt, digest_size=16, key=adapter_mark, person=b"prefix root").digest()


def page_key(parent: bytes, ids: Sequence[int]) -> bytes:
    """The name of a full page: blake2b of its parent's name and its ids."""
    return blake2b(parent + np.asarray(ids, dtype=np.int64).tobytes(), digest_size=16).digest()


def page_bytes(config: ModelConfig, page_size: int, bits: float, n_modules: int = 0) -> int:
    """Memory of one page: what `page_size` tokens leave in every layer and MTP module, so many bits a number."""
    return cache_bytes(config, page_size, bits) * (config.n_layers + n_modules) // config.n_layers


class PagePool:
    def __init__(self, n_pages: int, page_size: int):
        assert n_pages > 0 and page_size > 0, f"{n_pages=} {page_size=}"
        self.n_pages, self.page_size = n_pages, page_size
        self.references = [0] * n_pages
        self._blank = list(range(n_pages - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # oldest first
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def n_available(self) -> int:
        return len(self._blank) + len(self._kept)

    @property
    def n_held(self) -> int:
        return self.n_pages - self.n_available

    def pages_for(self, n_tokens: int) -> int:
        return -(-n_tokens // self.page_size)

    def allocate(self) -> int:
        """A page of the caller's own, content undefined. The caller has made sure that one is available."""
        if self._blank:
            page = self._blank.pop()
        else:
            page, _ = self._kept.popitem(last=False)
            del self._page_of[self._key_of.pop(page)]
        self.references[page] = 1
        return page

    def hold(self, page: int) -> None:
        """One more sequence points at a held or kept page."""
        if self.references[page] == 0:
            del self._kept[page]
        self.references[page] += 1

    def release(self, page: int) -> None:
        assert self.references[page] > 0, f"page {page} is not held"
        self.references[page] -= 1
        if self.references[page] == 0:
            if page in self._key_of:
                self._kept[page] = None
            else:
                self._blank.append(page)

    def publish(self, page: int, key: bytes) -> None:
        """Let others find a full held page. Where an equal page is already known, that one stays the known one."""
        assert self.references[page] > 0, f"page {page} is not held"
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key], self._key_of[page] = page, key

    def find(self, key: bytes) -> int | None:
        return self._page_of.get(key)

    def is_kept(self, page: int) -> bool:
        return page in self._kept

    def forget(self) -> None:
        """No page can be found any more (the weights have changed); held pages stay with their holders."""
        self._blank.extend(reversed(self._kept))
        self._kept.clear()
        self._page_of.clear()
        self._key_of.clear()

    def check_integrity(self, tables: Iterable[Sequence[int]]) -> None:
        """Every page is blank, kept or held, never two of them; reference counts equal what `tables` point at."""
        counted = [0] * self.n_pages
        for table in tables:
            assert len(set(table)) == len(table), f"a sequence holds a page twice: {table}"
            for page in table:
                counted[page] += 1
        assert counted == self.references, f"counted {counted}, recorded {self.references}"
        held = {page for page, n in enumerate(self.references) if n}
        blank, kept = set(self._blank), set(self._kept)
        assert len(blank) == len(self._blank), "a page is blank twice"
        assert len(held) + len(blank) + len(kept) == self.n_pages == len(held | blank | kept), (
            f"held {held}, blank {blank}, kept {kept}"
        )
        assert self._page_of == {key: page for page, key in self._key_of.items()}, "names and pages disagree"
        assert kept <= self._key_of.keys() <= kept | held, f"named pages {set(self._key_of)}, kept {kept}, held {held}"
