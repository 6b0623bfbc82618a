"""Writing a GGUF file (version 3, little-endian): whole or not at all, one tensor in memory at a time.

`gguf.py` has the layout. A number is given the first of its types that holds it exactly: llama.cpp expects u32 and f32
for single numbers and i32 in arrays, as gguf-py writes them.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.lowbit.blocks import FORMATS, BlockFormat
from smallpress.lowbit.encode import quantize
from smallpress.run.atomic import atomic_file
from smallpress.run.errors import UserError
from smallpress.weights.gguf import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    MAX_ARRAY_ELEMENTS,
    MAX_DIMS,
    MAX_HEADER_BYTES,
    SCALARS,
    STRING,
    U32,
    U64,
)

MAX_NAME_BYTES = 63
"""llama.cpp's limit, which is below that of the format."""
SINGLE_INTS, ARRAY_INTS, FLOATS = (4, 5, 11, 10), (5, 4, 11, 10), (6, 12)
"""Value type numbers in the order they are tried."""
TYPE_IDS = {block_format.name: type_id for type_id, block_format in FORMATS.items()}


@dataclass(frozen=True, slots=True)
class BlockTensor:
    """A tensor made when its turn to be written comes: `make()` gives fp32 of `shape`, stored in `format`."""

    format: BlockFormat
    shape: tuple[int, ...]
    make: Callable[[], NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.format.block_elements * self.format.block_bytes


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, BlockTensor],
    replace: bool = False,
    on_bytes: Callable[[int], object] = lambda n_bytes: None,
) -> None:
    """Write beside `path`, fsync, rename; `on_bytes` is told how much was written since the last call.

    `metadata`: key -> int, float, bool, str, or a list of one of them. Raises UserError where `path` exists and is not
    to be replaced, the disk refuses, or a tensor holds a number that its format cannot.
    """
    header = gguf_header(metadata, tensors)
    with atomic_file(path, replace) as file:
        file.write(header)
        on_bytes(len(header))
        for name, tensor in tensors.items():
            for chunk in _blocks(name, tensor):
                file.write(chunk)
                on_bytes(len(chunk))


def gguf_nbytes(metadata: Mapping[str, Any], tensors: Mapping[str, BlockTensor]) -> int:
    """The size of the file that `write_gguf` makes of the same arguments."""
    sizes = [tensor.nbytes for tensor in tensors.values()]
    return len(gguf_header(metadata, tensors)) + sum(size + _padding(size) for size in sizes)


def gguf_header(metadata: Mapping[str, Any], tensors: Mapping[str, BlockTensor]) -> bytes:
    """Everything before the first tensor's blocks, padded to the alignment."""
    assert "general.alignment" not in metadata, "files are written with the default alignment"
    parts = [b"GGUF", U32.pack(3), U64.pack(len(tensors)), U64.pack(len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key, key), _value(key, value)]
    offset = 0
    for name, tensor in tensors.items():
        parts += [_text(name, name), _tensor_entry(name, tensor, offset)]
        offset += tensor.nbytes + _padding(tensor.nbytes)
    header = b"".join(parts)
    n_elements = sum(len(value) for value in metadata.values() if isinstance(value, list))
    if len(header) > MAX_HEADER_BYTES or n_elements > MAX_ARRAY_ELEMENTS:
        size = f"{n_elements} tokens, merges and the like in {len(header)} bytes"
        allowed = f"{MAX_ARRAY_ELEMENTS} in {MAX_HEADER_BYTES} are read back"
        raise UserError(f"the vocabulary is too large for a GGUF: {size}; {allowed}", "use a Hugging Face folder")
    return header + bytes(_padding(len(header)))


def _blocks(name: str, tensor: BlockTensor) -> Iterator[memoryview | bytes]:
    values = tensor.make()
    assert values.shape == tensor.shape, f"{name}: {values.shape=} {tensor.shape=}"
    for chunk in quantize(tensor.format, values, f"tensor {name}"):
        yield chunk.data
    yield bytes(_padding(tensor.nbytes))


def _tensor_entry(name: str, tensor: BlockTensor, offset: int) -> bytes:
    """All of an entry of the list but the name."""
    shape = tensor.shape
    assert len(name.encode()) <= MAX_NAME_BYTES and 1 <= len(shape) <= MAX_DIMS and 0 not in shape, f"{name} {shape}"
    assert shape[-1] % tensor.format.block_elements == 0, f"{name}: {shape=} in {tensor.format.name}"
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return dims + U32.pack(TYPE_IDS[tensor.format.name]) + U64.pack(offset)


def _padding(n_bytes: int) -> int:
    return -n_bytes % DEFAULT_ALIGNMENT


def _value(key: str, value: Any) -> bytes:
    """Type and payload."""
    if isinstance(value, str):
        return U32.pack(STRING) + _text(key, value)
    if not isinstance(value, list):
        type_id = _number_type(key, [value], SINGLE_INTS)
        return U32.pack(type_id) + np.array(value, SCALARS[type_id]).tobytes()
    if all(isinstance(element, str) for element in value):
        return U32.pack(ARRAY) + U32.pack(STRING) + U64.pack(len(value)) + b"".join(_text(key, text) for text in value)
    type_id = _number_type(key, value, ARRAY_INTS)
    return U32.pack(ARRAY) + U32.pack(type_id) + U64.pack(len(value)) + np.array(value, SCALARS[type_id]).tobytes()


def _number_type(key: str, values: list[Any], ints: tuple[int, ...]) -> int:
    """The type that holds all of `values`, which are of one Python type."""
    kinds = set(map(type, values))
    assert len(kinds) == 1 and kinds <= {bool, int, float}, f"{key}: {kinds}"
    if bool in kinds:
        return BOOL
    if int in kinds:
        ranges = {type_id: np.iinfo(SCALARS[type_id]) for type_id in ints}
        fitting = (type_id for type_id, r in ranges.items() if r.min <= min(values) and max(values) <= r.max)
        return next(fitting)
    with np.errstate(over="ignore"):
        narrow = np.array(values, np.float32)
    return FLOATS[0] if np.array_equal(narrow.astype(np.float64), values, equal_nan=True) else FLOATS[1]


def _text(key: str, text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{key} holds half of a surrogate pair, which UTF-8 has no form of", "mend it") from error
    return U64.pack(len(data)) + data
