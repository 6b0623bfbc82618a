"""A strict, memory-mapped reader of GGUF files (versions 2 and 3, little-endian).

    "GGUF", u32 version, u64 n_tensors, u64 n_pairs
    n_pairs   x  string key, u32 type, value
    n_tensors x  string name, u32 n_dims, u64 dims (innermost first), u32 type, u64 offset
    padding to `general.alignment` (32 where it is not given)
    the tensors' blocks, in the order of the list, each padded to the alignment

A string is a u64 length and UTF-8; an array is a u32 element type, a u64 length and the elements. Every length is held
against what is left of the file before anything is allocated, and every layout that llama.cpp refuses is refused here.
Source: ggml/docs/gguf.md and gguf.cpp.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from smallpress.lowbit.blocks import FORMATS, NOT_READ, BlockFormat, dequantize
from smallpress.run.errors import disk_error
from smallpress.weights.errors import FormatError
from smallpress.weights.mapped import let_go, map_file

MAX_HEADER_BYTES = 1 << 26
MAX_PAIRS = MAX_TENSORS = 1 << 16
MAX_ARRAY_ELEMENTS = 1 << 22
"""All arrays of a file together: the largest vocabularies have about 1.5 million tokens, types, scores and merges."""
MAX_NAME_BYTES = 127
MAX_KEY_BYTES = 65535
GENEROUS_BYTES = 64
"""For a string of a vocabulary with its length, on average."""
MAX_DIMS = 4
DEFAULT_ALIGNMENT = 32

STRING, ARRAY, BOOL = 8, 9, 7
SCALARS: dict[int, str] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
"""GGUF's value type number -> numpy's name of it."""

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """`shape` is outermost first, as numpy and torch have it; `offset` counts from the start of the file."""

    shape: tuple[int, ...]
    format: BlockFormat
    offset: int
    nbytes: int


class GGUFFile:
    """`metadata` and `tensors` by name; the tensors' bytes stay on disk until read.

    The file must not be cut short while it is open: the operating system would end the process.
    """

    def __init__(self, path: Path, data: NDArray[np.uint8], metadata: dict[str, Any], tensors: dict[str, TensorInfo]):
        self.path, self.metadata, self.tensors = path, metadata, tensors
        self._data = data

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The tensor's blocks as they are in the file, one-dimensional, read-only, not copied."""
        info = self.tensors[name]
        return self._data[info.offset : info.offset + info.nbytes]

    def read(self, name: str) -> NDArray[np.float32]:
        """The tensor dequantized, as a new array of its shape."""
        info = self.tensors[name]
        return dequantize(info.format, self.raw(name)).reshape(info.shape)

    def let_go(self) -> None:
        """Give back the memory of what was read."""
        let_go(self._data)


def open_gguf(path: str | Path) -> GGUFFile:
    """Map the file and read its header. Raises FormatError for every departure from the format."""
    header, data = _read_header(Path(path))
    header.check_whole()
    return GGUFFile(header.path, data, header.metadata, header.tensors)


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a file says of itself. `n_bytes` are there of the `n_bytes_needed` that its list of tensors calls for."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    entries: dict[str, int]
    """Where each tensor is listed."""
    n_bytes: int

    @property
    def n_bytes_needed(self) -> int:
        return max((info.offset + info.nbytes for info in self.tensors.values()), default=0)

    def check_whole(self) -> None:
        """Raises FormatError naming the bytes that the file was cut off before."""
        cut = [name for name, info in self.tensors.items() if info.offset + info.nbytes > self.n_bytes]
        if cut:
            first = self.tensors[cut[0]]
            span = f"tensor {cut[0]!r} lies in bytes {first.offset} to {first.offset + first.nbytes}"
            missing = f"bytes {max(self.n_bytes, first.offset)} to {self.n_bytes_needed} are missing"
            others = f", with them {len(cut)} of {len(self.tensors)} tensors" if len(cut) > 1 else ""
            reason = f"{span}, but the file ends at {self.n_bytes}: {missing}{others}"
            raise FormatError(self.path, self.entries[cut[0]], reason, "fetch the whole file")


def read_gguf_header(path: str | Path) -> GGUFHeader:
    """The header alone, also of a file that was cut off behind it. Raises FormatError as `open_gguf` does."""
    return _read_header(Path(path))[0]


def _read_header(path: Path) -> tuple[GGUFHeader, NDArray[np.uint8]]:
    try:
        if path.stat().st_size < 24:
            raise FormatError(path, 0, f"{path.stat().st_size} bytes are too few for a GGUF header of 24")
        data = map_file(path)
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    cursor = _Cursor(path, data.data)
    n_tensors, n_pairs = _read_counts(cursor)
    metadata = _read_metadata(cursor, n_pairs)
    tensors, entries = _read_tensor_list(cursor, n_tensors, _alignment(cursor, metadata))
    return GGUFHeader(path, metadata, tensors, entries, len(data)), data


class _Cursor:
    """A place in the file, which only moves over bytes that exist."""

    def __init__(self, path: Path, data: memoryview):
        self.path, self.data, self.at, self.n_elements = path, data, 0, 0

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        raise FormatError(self.path, self.at if at is None else at, reason)

    def take(self, n_bytes: int, what: str) -> int:
        """Step over `n_bytes`; returns where they begin."""
        start, stop, size = self.at, self.at + n_bytes, len(self.data)
        if stop > size:
            self.fail(f"{what} ends at byte {stop}, but the file ends at {size}: bytes {size} to {stop} are missing")
        if stop > MAX_HEADER_BYTES:
            self.fail(f"{what} ends at byte {stop}, past the limit of {MAX_HEADER_BYTES} bytes for a header")
        self.at = stop
        return start

    def u32(self, what: str) -> int:
        return int(U32.unpack_from(self.data, self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(U64.unpack_from(self.data, self.take(8, what))[0])

    def string(self, what: str, max_bytes: int = MAX_HEADER_BYTES) -> str:
        start = self.at
        n_bytes = self.u64(f"the length of {what}")
        if n_bytes > max_bytes:
            self.fail(f"{what} has {n_bytes} bytes; at most {max_bytes} are allowed", start)
        begin = self.take(n_bytes, what)
        try:
            return str(self.data[begin : self.at], "utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what} is not UTF-8", begin + error.start)

    def strings(self, count: int, what: str) -> list[str]:
        """Many strings in a row: the vocabulary, 100,000 of them and more."""
        texts = self._short_strings(count) if count else []
        while len(texts) < count:
            texts.append(self.string(f"element {len(texts)} of {what}"))
        return texts

    def _short_strings(self, count: int) -> list[str]:
        """`count` strings at once, where all of them are shorter than 256 bytes and whole; else none, and no step.

        The text between the lengths is decoded in one piece, cut at a zero put in each length's place.
        """
        places, data = [], bytes(self.data[self.at : min(self.at + GENEROUS_BYTES * count, MAX_HEADER_BYTES)])
        at = 0
        try:
            for _ in range(count):
                places.append(at)
                at += 8 + data[at]
            strings, kept = np.frombuffer(bytearray(data[:at]), np.uint8), np.ones(at, dtype=bool)
            if at > len(data) or sliding_window_view(strings, 8)[places, 1:].any():
                return []
            sliding_window_view(kept, 8, writeable=True)[places, 1:] = False
            strings[places] = 0
            texts = str(strings[kept].data, "utf-8").split("\0")[1:]
        except (IndexError, UnicodeDecodeError):
            return []
        if len(texts) != count:  # A string has a zero of its own.
            return []
        self.at += at
        return texts


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    """n_tensors and n_pairs from the first 24 bytes."""
    if bytes(cursor.data[:4]) != b"GGUF":
        cursor.fail(f"begins with {bytes(cursor.data[:4])!r}, not with b'GGUF': this is no GGUF file")
    cursor.at = 4
    version = cursor.u32("the version")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = "big-endian" if swapped in (2, 3) else f"version {version}"
        raise FormatError(cursor.path, 4, f"{what} GGUF is not read", "convert it to version 3, little-endian")
    n_tensors, n_pairs = cursor.u64("the number of tensors"), cursor.u64("the number of metadata pairs")
    left = len(cursor.data) - cursor.at
    for count, limit, least_bytes, what, at in (
        (n_tensors, MAX_TENSORS, 32, "tensors", 8),
        (n_pairs, MAX_PAIRS, 13, "metadata pairs", 16),
    ):
        if count > limit:
            cursor.fail(f"{count} {what} are announced; at most {limit} are allowed", at)
        if count * least_bytes > left:
            cursor.fail(f"{count} {what} need {count * least_bytes} bytes or more, but {left} are left", at)
    return n_tensors, n_pairs


def _read_metadata(cursor: _Cursor, n_pairs: int) -> dict[str, Any]:
    """key -> int, float, bool, str, or a list of one of them."""
    metadata: dict[str, Any] = {}
    for index in range(n_pairs):
        start = cursor.at
        key = cursor.string(f"the key of metadata pair {index}", MAX_KEY_BYTES)
        if key in metadata or not key:
            cursor.fail(f"metadata key {key!r} is {'there twice' if key else 'empty'}", start)
        value_type = cursor.u32(f"the type of {key!r}")
        read: Callable[[_Cursor, int, str], Any] = _read_array if value_type == ARRAY else _read_scalar
        metadata[key] = read(cursor, value_type, repr(key))
    return metadata


def _read_scalar(cursor: _Cursor, value_type: int, what: str) -> Any:
    if value_type == STRING:
        return cursor.string(what)
    return _read_numbers(cursor, value_type, 1, what)[0]


def _read_array(cursor: _Cursor, _: int, what: str) -> list[Any]:
    start = cursor.at
    element_type, count = cursor.u32(f"the element type of {what}"), cursor.u64(f"the length of {what}")
    if element_type == ARRAY:
        cursor.fail(f"{what} is an array of arrays, which is not read", start)
    cursor.n_elements += count
    if cursor.n_elements > MAX_ARRAY_ELEMENTS:
        total = f"{cursor.n_elements} elements; {MAX_ARRAY_ELEMENTS} are allowed"
        cursor.fail(f"the arrays up to {what} have {total}", start)
    if element_type == STRING:
        return cursor.strings(count, what)
    return _read_numbers(cursor, element_type, count, what)


def _read_numbers(cursor: _Cursor, value_type: int, count: int, what: str) -> list[Any]:
    if value_type not in SCALARS:
        cursor.fail(f"{what} has the unknown type {value_type}", cursor.at - 4)
    dtype = np.dtype(SCALARS[value_type])
    start = cursor.take(count * dtype.itemsize, what)
    if value_type == BOOL and np.frombuffer(cursor.data, np.uint8, count, start).max(initial=0) > 1:
        cursor.fail(f"{what} has a truth value that is neither 0 nor 1", start)
    return np.frombuffer(cursor.data, dtype, count, start).tolist()


def _alignment(cursor: _Cursor, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= 65536 or alignment & (alignment - 1):
        cursor.fail(f"general.alignment is {alignment!r}; it must be a power of two from 8 to 65536")
    return alignment


def _read_tensor_list(cursor: _Cursor, n_tensors: int, alignment: int) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """The tensors with their places in the file, each of which must follow the one before; and where each is listed."""
    infos: dict[str, TensorInfo] = {}
    entries: dict[str, int] = {}
    end = 0  # of the tensors so far, from the start of the data
    for index in range(n_tensors):
        start = cursor.at
        name = cursor.string(f"the name of tensor {index}", MAX_NAME_BYTES)
        if name in infos:
            cursor.fail(f"tensor {name!r} is listed twice", start)
        info = _read_tensor_info(cursor, name)
        if info.offset != end:
            cursor.fail(f"tensor {name!r} is said to begin at byte {info.offset} of the data, not at {end}", start)
        end = -(-(info.offset + info.nbytes) // alignment) * alignment
        infos[name], entries[name] = info, start
    base = -(-cursor.at // alignment) * alignment
    return {name: replace(info, offset=base + info.offset) for name, info in infos.items()}, entries


def _read_tensor_info(cursor: _Cursor, name: str) -> TensorInfo:
    """One entry of the list, its offset still counted from the start of the data."""
    start = cursor.at
    n_dims = cursor.u32(f"the number of dimensions of {name!r}")
    if not 1 <= n_dims <= MAX_DIMS:
        cursor.fail(f"tensor {name!r} has {n_dims} dimensions; 1 to {MAX_DIMS} are allowed", start)
    dims = [cursor.u64(f"dimension {i} of {name!r}") for i in range(n_dims)]
    type_at = cursor.at
    block_format = _block_format(cursor, cursor.u32(f"the type of {name!r}"), name, type_at)
    n_elements = math.prod(dims)
    if 0 in dims or n_elements >= 1 << 63:
        cursor.fail(f"tensor {name!r} has the impossible shape {dims[::-1]}", start)
    if dims[0] % block_format.block_elements:
        blocks = f"{block_format.name} blocks of {block_format.block_elements}"
        cursor.fail(f"tensor {name!r} has rows of {dims[0]}, which {blocks} do not fill", start)
    nbytes = n_elements // block_format.block_elements * block_format.block_bytes
    return TensorInfo(tuple(dims[::-1]), block_format, cursor.u64(f"the offset of {name!r}"), nbytes)


def _block_format(cursor: _Cursor, type_id: int, name: str, at: int) -> BlockFormat:
    if type_id in FORMATS:
        return FORMATS[type_id]
    if type_id in NOT_READ:
        readable = ", ".join(block_format.name for block_format in FORMATS.values())
        reason = f"tensor {name!r} is of type {NOT_READ[type_id]}, which is not read"
        raise FormatError(cursor.path, at, reason, f"take a file that has only {readable}")
    cursor.fail(f"tensor {name!r} has the unknown type {type_id}", at)
