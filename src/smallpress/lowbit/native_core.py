"""The C++ core where this installation has one."""

from functools import cache
from types import ModuleType


@cache
def native_core() -> ModuleType | None:
    """None where the package was installed without a compiler: the plain forms in torch stand in."""
    try:
        from smallpress import _native
    except ImportError:
        return None
    return _native
