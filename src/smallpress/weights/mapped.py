"""A file's bytes as an array that takes memory only where it has been looked at."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def map_file(path: Path) -> NDArray[np.uint8]:
    """Read-only. Raises OSError; ValueError where the file is empty."""
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def let_go(data: NDArray[np.uint8]) -> None:
    """Give back the memory of what was read of a mapped file; what is looked at again is read again."""
    view: Any = data.base
    assert isinstance(view.obj, mmap.mmap)
    if hasattr(mmap, "MADV_DONTNEED"):  # Windows has nothing of the kind.
        view.obj.madvise(mmap.MADV_DONTNEED)
