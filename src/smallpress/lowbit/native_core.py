"""The C++ core where this installation has one, and the threads that its parts for training share."""

from functools import cache
from types import ModuleType
from typing import Any


@cache
def native_core() -> ModuleType | None:
    """None where the package was installed without a compiler: the plain forms in torch stand in."""
    try:
        from smallpress import _native
    except ImportError:
        return None
    return _native


@cache
def pool(n_threads: int) -> Any:
    """The pool of so many threads; one a process, whoever asks."""
    core = native_core()
    assert core is not None, "there is no pool without the native core"
    return core.Pool(n_threads)
