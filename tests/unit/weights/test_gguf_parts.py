"""GGUF models in several files: as one, or refused with the part that is missing or wrong."""

import struct

import numpy as np
import pytest

from smallpress.run.errors import UserError
from smallpress.weights.errors import FormatError
from smallpress.weights.load import open_model

U16, I32 = 2, 5


def split_keys(file, number, count, n_tensors):
    """As llama.cpp types them."""
    file.pairs += [
        ("split.no", U16, struct.pack("<H", number)),
        ("split.count", U16, struct.pack("<H", count)),
        ("split.tensors.count", I32, struct.pack("<i", n_tensors)),
    ]
    return file


@pytest.fixture
def parts(tmp_path, tiny_gguf, gguf_bytes):
    """The tiny model as one file beside the folder, and in three parts, the first of which has no tensors."""
    whole = tiny_gguf()
    (tmp_path / "whole.gguf").write_bytes(whole.build())
    tensors, n_tensors = whole.tensors, len(whole.tensors)
    files = [tiny_gguf(), gguf_bytes(), gguf_bytes()]
    for number, (file, some) in enumerate(zip(files, ([], tensors[:5], tensors[5:]), strict=True)):
        file.tensors = some
        split_keys(file, number, 3, n_tensors)
    folder = tmp_path / "parts"
    folder.mkdir()
    paths = [folder / f"tiny-{number + 1:05}-of-00003.gguf" for number in range(3)]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file.build())
    return paths, files


def test_parts_are_one_model_by_their_folder_and_by_each_of_them(tmp_path, parts):
    paths, _ = parts
    whole = open_model(tmp_path / "whole.gguf")
    for path in (paths[0].parent, *paths):
        files = open_model(path)
        assert files.config == whole.config
        for (name, ours), (again, theirs) in zip(files.tensors(), whole.tensors(), strict=True):
            assert name == again and np.array_equal(ours, theirs)
        stored = files.stored("layers.0.attn.q.weight")
        assert np.array_equal(stored[1], whole.stored("layers.0.attn.q.weight")[1])
        assert not any(key.startswith("split.") for key in files.gguf_metadata())


def test_missing_parts_are_named(parts):
    paths, _ = parts
    for path in paths[1:]:
        path.unlink()
    words = "2 of the 3 parts of this model are missing, the first tiny-00002-of-00003.gguf; fetch them"
    for path in (paths[0], paths[0].parent):
        with pytest.raises(UserError, match=words):
            open_model(path)


def test_a_cut_part_names_its_missing_bytes(parts):
    paths, _ = parts
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[:-40])
    with pytest.raises(FormatError, match=rf"bytes {len(whole) - 40} to {len(whole)} are missing") as caught:
        open_model(paths[0])
    assert caught.value.path == paths[2]


def test_a_part_of_something_else_is_refused(parts):
    paths, files = parts
    for pairs, words in (
        ((2, 4, 12), "split.count is 4, which the parts make 3"),
        ((1, 3, 12), "split.no is 1, which the parts make 2"),
        ((2, 3, 11), "split.tensors.count is 11, which the parts make 12"),
    ):
        files[2].pairs = []
        paths[2].write_bytes(split_keys(files[2], *pairs).build())
        with pytest.raises(FormatError, match=words):
            open_model(paths[0])
    files[2].pairs = []
    paths[2].write_bytes(files[2].build())
    with pytest.raises(FormatError, match=r"split\.no is None"):
        open_model(paths[0])


def test_a_tensor_in_two_parts_is_refused(parts):
    paths, files = parts
    files[2].tensors = [*files[2].tensors[1:], files[1].tensors[0]]
    paths[2].write_bytes(files[2].build())
    with pytest.raises(FormatError, match=r"tensor .token_embd\.weight. is in tiny-00002-of-00003\.gguf too"):
        open_model(paths[0])


def test_a_folder_of_several_models_is_refused(parts):
    paths, _ = parts
    (paths[0].parent / "other.gguf").write_bytes(b"")
    with pytest.raises(UserError, match=r"no config.json and 4 \.gguf files"):
        open_model(paths[0].parent)


def test_the_number_of_parts_is_bounded_before_any_is_looked_for(tmp_path, tiny_gguf):
    path = tmp_path / "m-00001-of-99999.gguf"
    path.write_bytes(tiny_gguf().build())
    with pytest.raises(UserError, match="one of 99999 parts; at most 4096"):
        open_model(path)
