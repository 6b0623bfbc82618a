"""The safetensors reader and writer."""

import errno
import json

import numpy as np
import pytest

from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.safetensors import open_safetensors
from smallpress.weights.safetensors_writer import LazyTensor, write_safetensors


def put(tmp_path, data):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_is_written_is_read_back(tmp_path):
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "é": np.array([True, False]),
        "scalar": np.array(-5, dtype=np.int64),
        "none": np.zeros((0, 7), dtype=np.uint8),
        "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    }
    write_safetensors(tmp_path / "a.safetensors", tensors, {"format": "pt"})
    opened = open_safetensors(tmp_path / "a.safetensors")
    assert opened.metadata == {"format": "pt"} and set(opened.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert opened.stored(name).dtype == tensor.dtype and np.array_equal(opened.stored(name), tensor)


def test_equal_contents_make_equal_files(tmp_path):
    one, two = np.float32([1]), np.float32([2])
    write_safetensors(tmp_path / "a", {"x": one, "y": two})
    write_safetensors(tmp_path / "b", {"y": two, "x": one})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_tensor_is_aligned_to_its_type(tmp_path):
    write_safetensors(
        tmp_path / "a", {"a": np.zeros(3, np.uint8), "b": np.zeros(2, np.float64), "c": np.zeros(1, "f2")}
    )
    opened = open_safetensors(tmp_path / "a")
    assert all(opened.stored(name).flags.aligned for name in opened.tensors)


def test_floats_of_every_width_read_as_fp32(tmp_path):
    bf16 = LazyTensor("BF16", (2,), lambda: np.array([0x3F80, 0xC000], dtype=np.uint16))
    values = np.array([1.0, -2.0])
    write_safetensors(tmp_path / "a", {"h": values.astype("f2"), "s": values.astype("f4"), "d": values, "b": bf16})
    opened = open_safetensors(tmp_path / "a")
    for name in "hsdb":
        assert opened.read(name).dtype == np.float32 and opened.read(name).tolist() == [1.0, -2.0]


def test_integers_are_no_weights(tmp_path):
    write_safetensors(tmp_path / "a", {"i": np.zeros(2, np.int64)})
    with pytest.raises(FormatError, match="'i' holds I64"):
        open_safetensors(tmp_path / "a").read("i")


def test_a_lazy_tensor_is_made_when_it_is_written(tmp_path):
    made = []
    lazy = {
        name: LazyTensor("F32", (1,), lambda name=name: (made.append(name), np.zeros(1, np.float32))[1])
        for name in "ba"
    }
    assert not made
    write_safetensors(tmp_path / "a", lazy)
    assert made == ["a", "b"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a"
    write_safetensors(path, {"x": np.float32([1])})

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="no space left"):
        write_safetensors(path, {"x": LazyTensor("F32", (1,), full)})
    assert open_safetensors(path).stored("x")[0] == 1 and list(tmp_path.iterdir()) == [path]


BAD = {
    "empty": (b"", None, "too few"),
    "header length 2^63": ((1 << 63).to_bytes(8, "little") + b"{}", None, "9223372036854775808 bytes"),
    "header past 100 MB": ((100_000_001).to_bytes(8, "little") + b"{}", None, "100000000 are allowed"),
    "header past the end": ((50).to_bytes(8, "little") + b"{}", None, "bytes 10 to 58 are missing"),
    "header empty": (b"", b"abcdefgh", "opening brace"),
    "not JSON": ("hello", b"", "opening brace"),
    "a space first": (' {"a":1}', b"", "opening brace"),
    "an array": ("[]", b"", "opening brace"),
    "unfinished": ('{"a":', b"", "'{' is expected"),
    "trailing text": ("{} {}", b"", "closing brace"),
    "trailing comma": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},}', b"x", "double quotes"),
    "nested 10^6 deep": (b'{"a":' + b"[" * 10**6, b"", "'{' is expected"),
    "nested objects": (b'{"a":' * 10**5, b"", "field 'a'"),
    "tensor twice": (
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"xy",
        "'a' is there twice",
    ),
    "tensor twice, once escaped": (
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"xy",
        "'a' is there twice",
    ),
    "metadata twice": ('{"__metadata__":{},"__metadata__":{}}', b"", "'__metadata__' is there twice"),
    "metadata key twice": ('{"__metadata__":{"a":"b","a":"c"}}', b"", "metadata 'a' is there twice"),
    "metadata number": ('{"__metadata__":{"a":1}}', b"", "double quotes"),
    "field twice": ('{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x", "there twice"),
    "field unknown": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}', b"x", "field 'x'"),
    "field missing": ('{"a":{"dtype":"U8","shape":[1]}}', b"x", "needs dtype, shape and two"),
    "one offset": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}', b"x", "two data_offsets"),
    "three offsets": ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}', b"x", "at most 2"),
    "dtype unknown": ({"a": entry("F33")}, bytes(8), "'F33'"),
    "shape negative": ({"a": entry(shape=(-2,))}, bytes(8), "whole numbers"),
    "shape a fraction": ({"a": entry(shape=(2.0,))}, bytes(8), "is expected"),
    "shape of 17": ({"a": entry(shape=(1,) * 17)}, bytes(8), "at most 16"),
    "shape of 10^6": ({"a": entry(shape=(1,) * 10**6)}, bytes(8), "at most 16"),
    "shape 20 digits": ({"a": entry(shape=(10**19,))}, bytes(8), "whole numbers"),
    "shape 5,000 digits": (
        '{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,1]}}' % ("9" * 5000),
        b"x",
        "whole numbers",
    ),
    "leading zero": ('{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', b"x", "','"),
    "product overflows": ({"a": entry(shape=(1 << 32, 1 << 32), offsets=(0, 0))}, b"", "impossible shape"),
    "product overflows behind 0": ({"a": entry(shape=(0, 1 << 62), offsets=(0, 0))}, b"", "impossible shape"),
    "bytes and offsets differ": ({"a": entry(offsets=(0, 7))}, bytes(7), "needs 8 bytes"),
    "offsets turned": ({"a": entry(offsets=(8, 0))}, bytes(8), "needs 8 bytes"),
    "a hole before": ({"a": entry(offsets=(4, 12))}, bytes(12), "'a' begins at byte"),
    "a hole between": ({"a": entry(), "b": entry(offsets=(9, 17))}, bytes(17), "'b' begins at byte"),
    "overlap": ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12), "'b' begins at byte"),
    "same place twice": ({"a": entry(), "b": entry()}, bytes(8), "begins at byte"),
    "cut": ({"a": entry()}, bytes(5), "are missing"),
    "bytes after the end": ({"a": entry()}, bytes(9), "the tensors end at byte"),
    "not UTF-8": (b'{"a\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x", "not UTF-8"),
    "half a surrogate pair": ('{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x", "not UTF-8"),
    "control character": ('{"a\n":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x", "double quotes"),
    "bad escape": ('{"\\x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x", "double quotes"),
}


@pytest.mark.parametrize("shape", BAD)
def test_a_wrong_file_is_one_clear_error(tmp_path, safetensors_bytes, shape):
    header, data, words = BAD[shape]
    path = put(tmp_path, header if data is None else safetensors_bytes(header, data))
    with pytest.raises(FormatError) as caught:
        open_safetensors(path)
    assert words in caught.value.reason and str(path) in str(caught.value)


def test_the_error_points_at_the_byte(tmp_path, safetensors_bytes):
    text = '{"é":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":7}'
    path = put(tmp_path, safetensors_bytes(text.encode(), b"x"))
    with pytest.raises(FormatError) as caught:
        open_safetensors(path)
    assert caught.value.offset == 8 + text.encode().index(b"7")


def test_spaces_and_any_order_of_fields_are_fine(tmp_path, safetensors_bytes):
    text = b'{ "a" : {\n"data_offsets" : [ 0 , 1 ], "shape":[ ], "dtype":"U8" } }   '
    assert open_safetensors(put(tmp_path, safetensors_bytes(text, b"\x07"))).stored("a") == 7


def test_an_empty_object_is_a_file_without_tensors(tmp_path, safetensors_bytes):
    assert open_safetensors(put(tmp_path, safetensors_bytes({}))).tensors == {}


def test_a_long_text_is_read_at_once(tmp_path, safetensors_bytes):
    note = "x\\" * 500_000
    text = json.dumps({"__metadata__": {"note": note}}).encode()
    assert open_safetensors(put(tmp_path, safetensors_bytes(text))).metadata["note"] == note
