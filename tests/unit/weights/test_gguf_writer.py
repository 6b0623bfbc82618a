"""The GGUF writer: what it is given is what the reader finds, and a write that fails leaves nothing."""

import errno
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpress.lowbit.blocks import FORMATS
from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.gguf import MAX_ARRAY_ELEMENTS, open_gguf
from smallpress.weights.gguf_writer import BlockTensor, gguf_nbytes, write_gguf

BY_NAME = {block_format.name: block_format for block_format in FORMATS.values()}


def tensor(values, name="F32"):
    values = np.asarray(values, np.float32)
    return BlockTensor(BY_NAME[name], values.shape, lambda: values)


def test_metadata_come_back_with_value_and_type(tmp_path):
    metadata = {
        "a.int": 7,
        "a.negative": -7,
        "a.long": 1 << 40,
        "a.longest": (1 << 64) - 1,
        "a.float": 0.5,
        "a.double": 0.1,
        "a.yes": True,
        "a.text": "é\n",
        "a.texts": ["x", "", "Ġ中"],
        "a.ints": [1, -2],
        "a.large": [1, 1 << 31],
        "a.flags": [True, False],
        "a.floats": [0.5, -1.0],
        "a.none": [],
    }
    write_gguf(tmp_path / "a.gguf", metadata, {})
    found = open_gguf(tmp_path / "a.gguf").metadata
    assert found == metadata and list(found) == list(metadata)
    assert [type(found[key]) for key in ("a.int", "a.float", "a.yes")] == [int, float, bool]


@pytest.fixture(scope="module")
def any_path(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "a.gguf"


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9),
        st.one_of(
            st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.floats(allow_nan=False), st.text(),
            st.lists(st.integers(-(1 << 31), (1 << 31) - 1)), st.lists(st.floats(allow_nan=False)),
            st.lists(st.text()), st.lists(st.booleans()),
        ),
    )
)  # fmt: skip
def test_any_metadata_come_back(any_path, metadata):
    write_gguf(any_path, metadata, {}, replace=True)
    assert open_gguf(any_path).metadata == metadata


def test_numbers_have_the_types_llama_cpp_expects(tmp_path):
    write_gguf(tmp_path / "a.gguf", {"n": 7}, {})
    assert (tmp_path / "a.gguf").read_bytes()[24:].startswith(b"\1" + bytes(7) + b"n" + b"\4\0\0\0" + b"\7\0\0\0")
    write_gguf(tmp_path / "b.gguf", {"n": [7]}, {})
    array_of_one_i32 = b"\x09\0\0\0" + b"\5\0\0\0" + b"\1" + bytes(7) + b"\7\0\0\0"
    assert array_of_one_i32 in (tmp_path / "b.gguf").read_bytes()


def test_tensors_come_back_each_in_its_format_and_aligned(tmp_path):
    plain, blocks = np.arange(6.0).reshape(2, 3), np.resize(np.arange(-8.0, 8.0), (3, 32))
    tensors = {"a": tensor(plain), "b": tensor(blocks, "Q4_0"), "c": tensor([1.5], "F16")}
    write_gguf(tmp_path / "a.gguf", {"k": "v"}, tensors)
    file = open_gguf(tmp_path / "a.gguf")
    assert np.array_equal(file.read("a"), plain) and np.array_equal(file.read("b"), blocks)
    assert [(info.format.name, info.shape) for info in file.tensors.values()] == [
        ("F32", (2, 3)),
        ("Q4_0", (3, 32)),
        ("F16", (1,)),
    ]
    assert all(info.offset % 32 == 0 for info in file.tensors.values())
    assert (tmp_path / "a.gguf").stat().st_size % 32 == 0


def test_the_size_is_known_before_and_told_while_writing(tmp_path):
    tensors, told = {"a": tensor(np.ones((700, 256)), "Q8_0"), "b": tensor([1.0])}, []
    expected = gguf_nbytes({"k": [1]}, tensors)
    write_gguf(tmp_path / "a.gguf", {"k": [1]}, tensors, on_bytes=told.append)
    assert (tmp_path / "a.gguf").stat().st_size == expected == sum(told)
    assert len(told) > 5  # a large tensor is told of in parts


def test_equal_contents_make_equal_files(tmp_path):
    for name in ("a", "b"):
        write_gguf(tmp_path / name, {"k": "v"}, {"t": tensor(np.ones((2, 256)), "Q6_K")})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_tensor_is_made_at_a_time_and_let_go(tmp_path):
    made = []

    def make():
        assert all(reference() is None for reference in made)
        array = np.ones((4, 4), np.float32)
        made.append(weakref.ref(array))
        return array

    write_gguf(tmp_path / "a.gguf", {}, {f"t{i}": BlockTensor(BY_NAME["F32"], (4, 4), make) for i in range(6)})


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted():
    raise KeyboardInterrupt


FAILURES = {"full": full_disk, "Ctrl-C": interrupted, "NaN": lambda: np.array([1.0, np.nan], np.float32)}


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("before", [None, b"the old file"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, failure, at, before):
    path = tmp_path / "a.gguf"
    if before:
        path.write_bytes(before)
    tensors = {name: tensor([1.0, 2.0]) for name in "xyz"}
    tensors["xyz"[at]] = BlockTensor(BY_NAME["F32"], (2,), FAILURES[failure])
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        write_gguf(path, {"k": 1}, tensors, replace=True)
    assert failure != "NaN" or f"tensor {'xyz'[at]} holds nan" in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == (["a.gguf"] if before else [])
    assert not before or path.read_bytes() == before


def test_the_system_refusing_to_grow_the_file_leaves_nothing(tmp_path):
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
        with pytest.raises(UserError, match="file too large"):
            write_gguf(tmp_path / "a.gguf", {}, {"t": tensor(np.ones((100, 256)), "Q8_0")})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_no_part_of_a_file_is_taken_for_the_whole(tmp_path):
    write_gguf(tmp_path / "a.gguf", {"k": ["x", "y"]}, {"t": tensor(np.ones((2, 32)), "Q8_0"), "u": tensor([1.0] * 8)})
    whole = (tmp_path / "a.gguf").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(FormatError):
            open_gguf(tmp_path / "cut.gguf")


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        write_gguf(tmp_path / "a.gguf", {}, {})
    assert (tmp_path / "a.gguf").read_text() == "mine"
    write_gguf(tmp_path / "a.gguf", {"k": 1}, {}, replace=True)
    assert open_gguf(tmp_path / "a.gguf").metadata == {"k": 1}


def test_what_no_file_can_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="half of a surrogate pair"):
        write_gguf(tmp_path / "a.gguf", {"k": "\ud800"}, {})
    with pytest.raises(UserError, match="too large for a GGUF"):
        write_gguf(tmp_path / "a.gguf", {"k": [1] * (MAX_ARRAY_ELEMENTS + 1)}, {})
    for name, shape in (("t" * 64, (1,)), ("t", ()), ("t", (0,)), ("t", (1,) * 5)):
        with pytest.raises(AssertionError):
            write_gguf(tmp_path / "a.gguf", {}, {name: tensor(np.ones(shape))})
    assert list(tmp_path.iterdir()) == []
