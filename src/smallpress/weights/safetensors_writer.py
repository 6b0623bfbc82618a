"""Writing a safetensors file: whole or not at all, one tensor in memory at a time."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smallpress.run.atomic import atomic_file
from smallpress.weights.safetensors import DTYPES

HEADER_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor made when its turn to be written comes: `make()` gives `shape` in numpy's type for `dtype`."""

    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], NDArray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, NDArray | LazyTensor],
    metadata: Mapping[str, str] | None = None,
    on_bytes: Callable[[int], object] = lambda n_bytes: None,
) -> None:
    """Write beside `path`, fsync, rename. Raises UserError where the disk refuses; the old file then stays.

    Wide types come first, then names in order, so that every tensor is aligned and equal contents make equal files.
    `on_bytes` is told the size of each tensor written.
    """
    lazy = {name: _lazy(tensor) for name, tensor in tensors.items()}
    order = sorted(lazy, key=lambda name: (-np.dtype(DTYPES[lazy[name].dtype]).itemsize, name))
    with atomic_file(path) as file:
        file.write(_header({name: lazy[name] for name in order}, metadata or {}))
        for name in order:
            on_bytes(file.write(_bytes(name, lazy[name])))


NAMES = {np.dtype(numpy_name): name for name, numpy_name in DTYPES.items() if name not in ("BF16", "F8_E4M3")}


def _lazy(tensor: NDArray | LazyTensor) -> LazyTensor:
    if isinstance(tensor, LazyTensor):
        return tensor
    return LazyTensor(NAMES[tensor.dtype.newbyteorder("<")], tensor.shape, lambda: tensor)


def _header(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        assert name != "__metadata__"
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(name: str, tensor: LazyTensor) -> memoryview:
    array = tensor.make()
    wanted = np.dtype(DTYPES[tensor.dtype])
    assert array.shape == tensor.shape and array.dtype.newbyteorder("<") == wanted, f"{name}: {array.shape=} {tensor=}"
    flat = np.ascontiguousarray(array, dtype=wanted).reshape(-1)
    return flat.view(np.uint8).data
