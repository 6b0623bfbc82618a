"""A strict, memory-mapped reader of safetensors files.

    u64 header length, header (JSON, padded with spaces), the tensors' bytes one after another

    {"__metadata__": {"format": "pt"}, "norm.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}

The header is read by its own small grammar rather than as free JSON: a file can then neither nest, nor repeat a key
unseen, nor make Python build more than the header's few strings and numbers. Tensors must lie without gap or overlap
and end with the file. Source: github.com/huggingface/safetensors, README and tensor.rs.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from smallpress.lowbit.bfloat16 import bf16_to_fp32
from smallpress.run.errors import disk_error
from smallpress.weights.errors import FormatError
from smallpress.weights.mapped import let_go, map_file

MAX_HEADER_BYTES = 100_000_000
MAX_DIMS = 16

DTYPES: dict[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
    "F8_E4M3": "|u1",
}  # fmt: skip
"""safetensors' name -> numpy's; numpy has neither bf16 nor FP8, whose bits travel as u16 and u8."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """`offset` counts from the start of the file."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


class SafetensorsFile:
    """`metadata` and `tensors` by name; the tensors' bytes stay on disk until read.

    The file must not be cut short while it is open: the operating system would end the process.
    """

    def __init__(self, path: Path, data: NDArray[np.uint8], metadata: dict[str, str], tensors: dict[str, TensorInfo]):
        self.path, self.metadata, self.tensors = path, metadata, tensors
        self._data = data

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The tensor's bytes, one-dimensional, read-only, not copied."""
        info = self.tensors[name]
        return self._data[info.offset : info.offset + info.nbytes]

    def stored(self, name: str) -> NDArray:
        """The tensor as it is in the file, bf16 as u16; read-only, not copied."""
        info = self.tensors[name]
        return self.raw(name).view(DTYPES[info.dtype]).reshape(info.shape)

    def read(self, name: str) -> NDArray[np.float32]:
        """The tensor as a new fp32 array. Raises FormatError for a tensor of integers."""
        info = self.tensors[name]
        if info.dtype == "BF16":
            return bf16_to_fp32(self.stored(name))
        if info.dtype not in ("F16", "F32", "F64"):
            raise FormatError(self.path, info.offset, f"tensor {name!r} holds {info.dtype} where weights are expected")
        return self.stored(name).astype(np.float32)

    def let_go(self) -> None:
        """Give back the memory of what was read."""
        let_go(self._data)


def open_safetensors(path: str | Path) -> SafetensorsFile:
    """Map the file and read its header. Raises FormatError for every departure from the format."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size < 10:
            raise FormatError(path, 0, f"{size} bytes are too few for a safetensors file")
        data = map_file(path)
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    header_bytes = int(data[:8].view("<u8")[0])
    if header_bytes > MAX_HEADER_BYTES:
        raise FormatError(path, 0, f"the header is said to have {header_bytes} bytes; {MAX_HEADER_BYTES} are allowed")
    if 8 + header_bytes > size:
        end_of_file = f"the file ends at {size}: bytes {size} to {8 + header_bytes} are missing"
        raise FormatError(path, 0, f"the header ends at byte {8 + header_bytes}, but {end_of_file}")
    metadata, tensors = _Header(path, data[8 : 8 + header_bytes].tobytes(), size).read()
    return SafetensorsFile(path, data, metadata, tensors)


SPACE = re.compile(rb"[ \t\r\n]*")
TEXT = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"')
NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}(?![0-9])")
MAX_KEYS = 1 << 17
"""In one object; the largest checkpoints have fewer than 100,000 tensors over all their files."""


class _Header:
    """The header's grammar: an object of tensor entries and at most one object of texts."""

    def __init__(self, path: Path, text: bytes, file_size: int):
        self.path, self.text, self.at = path, text, 0
        self.base = 8 + len(text)
        self.data_bytes = file_size - self.base

    def read(self) -> tuple[dict[str, str], dict[str, TensorInfo]]:
        metadata: dict[str, str] | None = None
        tensors: dict[str, TensorInfo] = {}
        places: dict[str, int] = {}
        if self.text[:1] != b"{":
            self._fail("the header does not begin with an opening brace")
        for key, at in self._keys():
            if key in tensors or (key == "__metadata__" and metadata is not None):
                self._fail(f"{key!r} is there twice", at)
            if key == "__metadata__":
                metadata = self._texts()
            else:
                tensors[key], places[key] = self._entry(key), at
        self._space()
        if self.at < len(self.text):
            self._fail("something follows the header's closing brace")
        self._check_layout(tensors, places)
        return metadata or {}, tensors

    def _check_layout(self, tensors: dict[str, TensorInfo], places: dict[str, int]) -> None:
        """Sorted by offset, each tensor begins where the one before ends, and the last ends the file."""
        end, size = self.base, self.base + self.data_bytes
        for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
            if info.offset != end:
                self._fail(f"tensor {name!r} begins at byte {info.offset} of the file, not at {end}", places[name])
            end += info.nbytes
            if end > size:
                missing = f"bytes {max(size, info.offset)} to {end} are missing"
                span = f"lies in bytes {info.offset} to {end}, but the file ends at {size}"
                self._fail(f"tensor {name!r} {span}: {missing}", places[name])
        if end != size:
            self._fail(f"the tensors end at byte {end}, but the file ends at {size}", len(self.text))

    def _entry(self, name: str) -> TensorInfo:
        dtype: str | None = None
        shape: list[int] | None = None
        offsets: list[int] | None = None
        start = self.at
        for field, at in self._keys():
            if field == "dtype" and dtype is None:
                dtype = self._text()
            elif field == "shape" and shape is None:
                shape = self._numbers(MAX_DIMS)
            elif field == "data_offsets" and offsets is None:
                offsets = self._numbers(2)
            else:
                self._fail(f"tensor {name!r} has the field {field!r}, which is unknown or there twice", at)
        if dtype is None or shape is None or offsets is None or len(offsets) != 2:
            self._fail(f"tensor {name!r} needs dtype, shape and two data_offsets", start)
        if dtype not in DTYPES:
            self._fail(f"tensor {name!r} has dtype {dtype!r}; known are {', '.join(DTYPES)}", start)
        itemsize = np.dtype(DTYPES[dtype]).itemsize
        if math.prod(dim or 1 for dim in shape) * itemsize >= 1 << 63:
            self._fail(f"tensor {name!r} has the impossible shape {shape}", start)
        nbytes = math.prod(shape) * itemsize
        if nbytes != offsets[1] - offsets[0]:
            span = f"data_offsets {offsets[0]} to {offsets[1]}"
            self._fail(f"tensor {name!r} of {dtype} {shape} needs {nbytes} bytes, but has {span}", start)
        return TensorInfo(tuple(shape), dtype, self.base + offsets[0], nbytes)

    def _keys(self) -> Iterator[tuple[str, int]]:
        """Walk an object: yields (key, its place); the caller reads each value before asking for the next key."""
        self._expect(b"{")
        if self._follows(b"}"):
            return
        for _ in range(MAX_KEYS):
            self._space()
            at = self.at
            key = self._text()
            self._expect(b":")
            yield key, at
            if self._follows(b"}"):
                return
            self._expect(b",")
        self._fail(f"an object has more than {MAX_KEYS} keys")

    def _texts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for key, at in self._keys():
            if key in texts:
                self._fail(f"metadata {key!r} is there twice", at)
            texts[key] = self._text()
        return texts

    def _text(self) -> str:
        self._space()
        match = TEXT.match(self.text, self.at)
        if not match:
            self._fail("a text in double quotes is expected")
        try:
            text = str(json.loads(match[0].decode()))
            text.encode()  # An escape may spell half of a surrogate pair, which no file or terminal can take.
        except UnicodeError:
            self._fail("a text is not UTF-8")
        self.at = match.end()
        return text

    def _numbers(self, most: int) -> list[int]:
        self._expect(b"[")
        numbers: list[int] = []
        if self._follows(b"]"):
            return numbers
        while True:
            self._space()
            match = NUMBER.match(self.text, self.at)
            if not match or len(numbers) == most:
                self._fail(f"a list of at most {most} whole numbers is expected")
            numbers.append(int(match[0]))
            self.at = match.end()
            if self._follows(b"]"):
                return numbers
            self._expect(b",")

    def _space(self) -> None:
        match = SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _follows(self, sign: bytes) -> bool:
        self._space()
        if self.text[self.at : self.at + 1] != sign:
            return False
        self.at += 1
        return True

    def _expect(self, sign: bytes) -> None:
        if not self._follows(sign):
            self._fail(f"{sign.decode()!r} is expected, not {self.text[self.at : self.at + 1]!r}")

    def _fail(self, reason: str, at: int | None = None) -> NoReturn:
        raise FormatError(self.path, 8 + (self.at if at is None else at), f"header: {reason}")
