"""The GGUF reader: what a good file says, and every wrong one refused with its place."""

import struct

import numpy as np
import pytest

from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.gguf import MAX_ARRAY_ELEMENTS, open_gguf

HUGE = 1 << 63
ONE_ROW = np.arange(8, dtype=np.float32)


def put(tmp_path, data):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return path


def refusal(tmp_path, data):
    with pytest.raises(FormatError) as caught:
        open_gguf(put(tmp_path, data))
    assert str(tmp_path / "m.gguf") in str(caught.value) and "byte" in str(caught.value)
    return caught.value


def test_metadata_keeps_its_types(tmp_path, gguf_bytes):
    file = gguf_bytes().put(a__int=7, a__float=0.5, a__yes=True, a__text="é", a__list=["x", "yz", ""], a__ids=[1, 2])
    file.pairs += [
        ("n", 5, struct.pack("<i", -3)),
        ("w", 10, struct.pack("<Q", 1 << 60)),
        ("none", 9, struct.pack("<IQ", 4, 0)),
    ]
    metadata = open_gguf(put(tmp_path, file.build())).metadata
    expected = {"a.int": 7, "a.float": 0.5, "a.yes": True, "a.text": "é", "a.list": ["x", "yz", ""], "a.ids": [1, 2]}
    assert metadata == expected | {"n": -3, "w": 1 << 60, "none": []}
    assert [type(metadata[key]) for key in ("a.int", "a.float", "a.yes")] == [int, float, bool]


def test_tensors_come_back_in_numpys_order_of_dimensions(tmp_path, gguf_bytes):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = gguf_bytes().tensor("m", matrix).tensor("v", ONE_ROW)
    opened = open_gguf(put(tmp_path, file.build()))
    assert opened.tensors["m"].shape == (2, 3)
    assert np.array_equal(opened.read("m"), matrix) and np.array_equal(opened.read("v"), ONE_ROW)


def test_what_is_read_may_be_written_to_and_the_file_stays(tmp_path, gguf_bytes):
    path = put(tmp_path, gguf_bytes().tensor("v", ONE_ROW).build())
    opened = open_gguf(path)
    opened.read("v")[:] = 9.0
    assert np.array_equal(opened.read("v"), ONE_ROW)
    with pytest.raises(ValueError, match="read-only"):
        opened.raw("v")[0] = 1


@pytest.mark.parametrize("odd", ["", "a\0b", "x" * 255, "y" * 256, "z" * 70_000, "\0" * 7, "é" * 127])
def test_a_vocabulary_is_read_whole_whatever_is_in_it(tmp_path, gguf_bytes, odd):
    """Short strings are read all at once; a zero or a long one among them makes no difference."""
    texts = ["a", "bc", "é", odd, "", "文字", "d" * 200]
    metadata = open_gguf(put(tmp_path, gguf_bytes().put(a__list=texts, a__next=7).build())).metadata
    assert metadata == {"a.list": texts, "a.next": 7}


def test_a_file_of_metadata_alone_is_fine(tmp_path, gguf_bytes):
    assert open_gguf(put(tmp_path, gguf_bytes().put(a__b=1).build())).tensors == {}


def test_the_alignment_is_the_files_own(tmp_path, gguf_bytes):
    file = gguf_bytes(alignment=64).put(general__alignment=64).tensor("a", ONE_ROW).tensor("b", ONE_ROW + 1)
    assert np.array_equal(open_gguf(put(tmp_path, file.build())).read("b"), ONE_ROW + 1)


def test_a_tensor_in_blocks_is_dequantized(tmp_path, gguf_bytes):
    block = np.array([2.0], "<f2").tobytes() + bytes(range(32))
    file = gguf_bytes().tensor("q", np.zeros((1, 32)), kind=8, data=block)
    assert open_gguf(put(tmp_path, file.build())).read("q").tolist() == [[2.0 * i for i in range(32)]]


@pytest.mark.parametrize("cut", [1, 32, 33, 40])
def test_a_cut_file_names_the_missing_bytes(tmp_path, gguf_bytes, cut):
    data = gguf_bytes().tensor("a", ONE_ROW).tensor("b", ONE_ROW).build()
    error = refusal(tmp_path, data[:-cut])
    kept, begin = len(data) - cut, len(data) - (32 if cut <= 32 else 64)
    name, stop = ("b", len(data)) if cut <= 32 else ("a", len(data) - 32)
    assert f"tensor '{name}' lies in bytes {begin} to {stop}" in error.reason
    assert f"bytes {kept} to {len(data)} are missing{'' if cut <= 32 else ', with them 2 of 2 tensors'}" in error.reason


def test_a_cut_header_names_the_missing_bytes(tmp_path, gguf_bytes):
    data = gguf_bytes().put(key="value").build()
    error = refusal(tmp_path, data[:50])
    assert "bytes 50 to" in error.reason and "'key'" in error.reason


BAD = {
    "empty": (lambda file: b"", 0, "too few"),
    "not GGUF": (lambda file: b"PK\x03\x04" + bytes(40), 0, "no GGUF"),
    "version 1": (lambda file: file(version=1).build(), 4, "version 1"),
    "big-endian": (lambda file: file(version=3 << 24).build(), 4, "big-endian"),
    "n_tensors 2^63": (lambda file: file(n_tensors=HUGE).build() + bytes(64), 8, "9223372036854775808 tensors"),
    "n_pairs 2^63": (lambda file: file(n_pairs=HUGE).build() + bytes(64), 16, "9223372036854775808 metadata"),
    "n_tensors 2^64-1": (lambda file: file(n_tensors=2 * HUGE - 1).build() + bytes(64), 8, "tensors"),
    "more tensors than bytes": (lambda file: file(n_tensors=1000).build() + bytes(64), 8, "1000 tensors need"),
    "more pairs than bytes": (lambda file: file(n_pairs=1000).build() + bytes(64), 16, "1000 metadata pairs need"),
    "key length 2^63": (lambda file: with_pairs(file, struct.pack("<Q", HUGE)), 24, "9223372036854775808 bytes"),
    "text length 2^63": (lambda file: file(pairs=[("k", 8, struct.pack("<Q", HUGE))]).build(), 37, "allowed"),
    "text past the end": (lambda file: file(pairs=[("k", 8, struct.pack("<Q", 99))]).build(), 45, "are missing"),
    "array length 2^63": (lambda file: file(pairs=[("k", 9, struct.pack("<IQ", 4, HUGE))]).build(), 37, "elements"),
    "array past the end": (lambda file: file(pairs=[("k", 9, struct.pack("<IQ", 4, 99))]).build(), 49, "are missing"),
    "texts past the end": (
        lambda file: file(pairs=[("k", 9, struct.pack("<IQ", 8, 3) + struct.pack("<Q", 1) + b"x")]).build(),
        None,
        "element 1 of 'k'",
    ),
    "nested arrays": (lambda file: file(pairs=[("k", 9, nested(10**6))]).build(), 37, "array of arrays"),
    "value type 13": (lambda file: file(pairs=[("k", 13, bytes(8))]).build(), 33, "unknown type 13"),
    "value type -1": (lambda file: file(pairs=[("k", 2**32 - 1, bytes(8))]).build(), 33, "unknown type 4294967295"),
    "truth value 2": (lambda file: file(pairs=[("k", 7, b"\x02")]).build(), 37, "neither 0 nor 1"),
    "key twice": (lambda file: file().put(k=1).put(k=2).build(), 41, "'k' is there twice"),
    "empty key": (lambda file: file(pairs=[("", 0, b"\x01")]).build(), 24, "empty"),
    "key not UTF-8": (lambda file: file(pairs=[(b"a\xff", 0, b"\x01")]).build(), 33, "not UTF-8"),
    "text not UTF-8": (lambda file: file(pairs=[("k", 8, struct.pack("<Q", 3) + b"ab\xc3")]).build(), 47, "not UTF-8"),
    "texts not UTF-8": (
        lambda file: file(pairs=[("k", 9, struct.pack("<IQQ", 8, 1, 2) + b"a\xff")]).build(),
        58,
        "element 0 of 'k' is not UTF-8",
    ),
    "alignment 0": (lambda file: file().put(general__alignment=0).build(), None, "alignment is 0"),
    "alignment 3": (lambda file: file().put(general__alignment=3).build(), None, "alignment is 3"),
    "alignment 2^31": (lambda file: file().put(general__alignment=1 << 31).build(), None, "power of two"),
    "alignment a text": (lambda file: file().put(general__alignment="32").build(), None, "power of two"),
    "alignment mismatched": (
        lambda file: file(alignment=32).put(general__alignment=64).tensor("a", ONE_ROW).tensor("b", ONE_ROW).build(),
        None,
        "'b' is said to begin at byte 32 of the data, not at 64",
    ),
    "tensor twice": (lambda file: file().tensor("a", ONE_ROW).tensor("a", ONE_ROW).build(), None, "listed twice"),
    "tensor type -1": (lambda file: file().tensor("a", ONE_ROW, kind=2**32 - 1).build(), 45, "unknown type 4294967295"),
    "tensor type 10^9": (lambda file: file().tensor("a", ONE_ROW, kind=10**9).build(), 45, "unknown type 1000000000"),
    "tensor type 4": (lambda file: file().tensor("a", ONE_ROW, kind=4).build(), 45, "unknown type 4"),
    "no dimensions": (lambda file: file(tensors=[("a", (), 0, b"")]).build() + bytes(32), 33, "0 dimensions"),
    "5 dimensions": (lambda file: file(tensors=[("a", (1,) * 5, 0, bytes(4))]).build(), 33, "5 dimensions"),
    "2^32-1 dimensions": (lambda file: many_dims(file), 33, "4294967295 dimensions"),
    "a dimension of 0": (lambda file: file(tensors=[("a", (8, 0), 0, b"")]).build() + bytes(32), 33, "impossible"),
    "product 2^64": (lambda file: file(tensors=[("a", (1 << 32, 1 << 32), 0, b"")]).build(), 33, "impossible"),
    "product 0 at 64 bits": (lambda file: file(tensors=[("a", (1 << 63, 2), 0, b"")]).build(), 33, "impossible"),
    "product small at 32 bits": (
        lambda file: file(tensors=[("a", ((1 << 32) + 8, 1), 0, bytes(32))]).build(),
        24,
        "bytes 128 to 17179869312 are missing",
    ),
    "bytes overflow": (lambda file: file(tensors=[("a", (1 << 62,), 0, bytes(32))]).build(), 24, "are missing"),
    "half a block": (lambda file: file(tensors=[("a", (33,), 8, bytes(64))]).build(), 33, "rows of 33"),
    "offset past the end": (lambda file: file(offsets={"a": HUGE}).tensor("a", ONE_ROW).build(), 24, "begin at byte"),
    "offset overlaps": (
        lambda file: file(offsets={"b": 0}).tensor("a", ONE_ROW).tensor("b", ONE_ROW).build(),
        None,
        "'b' is said to begin at byte 0 of the data, not at 32",
    ),
    "offset off the alignment": (lambda file: file(offsets={"a": 8}).tensor("a", ONE_ROW).build(), 24, "not at 0"),
    "name too long": (lambda file: file().tensor("a" * 200, ONE_ROW).build(), 24, "at most 127"),
    "name length 2^63": (lambda file: with_tensor(file, struct.pack("<Q", HUGE)), 24, "at most 127"),
}


def with_pairs(file, payload):
    return file(n_pairs=1).build()[:24] + payload + bytes(64)


def with_tensor(file, payload):
    return file(n_tensors=1).build()[:24] + payload + bytes(64)


def many_dims(file):
    return with_tensor(file, struct.pack("<Q", 1) + b"a" + struct.pack("<I", 2**32 - 1))


def nested(depth):
    return struct.pack("<IQ", 9, 1) * depth


@pytest.mark.parametrize("shape", BAD)
def test_a_wrong_file_is_one_clear_error(tmp_path, gguf_bytes, shape):
    make, offset, words = BAD[shape]
    error = refusal(tmp_path, make(gguf_bytes))
    assert words in error.reason
    assert offset is None or error.offset == offset


def test_a_type_that_exists_but_is_not_read_is_named(tmp_path, gguf_bytes):
    error = refusal(tmp_path, gguf_bytes().tensor("a", np.zeros(256), kind=16, data=bytes(66)).build())
    assert "IQ2_XXS" in error.reason and "Q4_K" in error.remedy


def test_arrays_are_limited_together(tmp_path, gguf_bytes):
    half = struct.pack("<IQ", 0, MAX_ARRAY_ELEMENTS // 2 + 1) + bytes(MAX_ARRAY_ELEMENTS // 2 + 1)
    error = refusal(tmp_path, gguf_bytes(pairs=[("a", 9, half), ("b", 9, half)]).build())
    assert "the arrays up to 'b'" in error.reason


def test_what_is_no_file_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_gguf(tmp_path / "absent.gguf")
    with pytest.raises(UserError, match="directory"):
        open_gguf(tmp_path)


def test_a_name_with_control_characters_cannot_move_the_terminals_cursor(tmp_path, gguf_bytes):
    error = refusal(tmp_path, gguf_bytes().tensor("\x1b[2J", ONE_ROW).tensor("\x1b[2J", ONE_ROW).build())
    assert "\x1b" not in str(error)
