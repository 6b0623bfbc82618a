"""Ten ids, of which 9 ends a document and the others stand for as many bytes as their number; shards of five tokens."""

import errno
import os

import numpy as np
import pytest

from smallpress.corpus.rows import Rows
from smallpress.corpus.shard_writer import Vocabulary, new_corpus
from smallpress.corpus.shards import Corpus
from smallpress.corpus.shuffle import shuffled
from smallpress.run.errors import UserError

END = 9
TRAIN, HELD_OUT = [[1, 2, 3, END], [4, END], [5, 6, 7, 8, 1, END]], [[2, 2, END]]
ROW = [id for ids in TRAIN for id in ids]


def save_tokenizer(folder):
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")


VOCABULARY = Vocabulary(np.zeros(10, int), END, save_tokenizer)


def write(folder, train=TRAIN, held_out=HELD_OUT, vocab_size=10):
    bytes_of = np.arange(vocab_size)
    bytes_of[END] = 0
    with new_corpus(folder, Vocabulary(bytes_of, END, save_tokenizer), shard_tokens=5) as writer:
        for ids in train:
            writer.add("train", ids)
        for ids in held_out:
            writer.add("held_out", ids)
        writer.origin = {"files": ["a.txt"]}
    return Corpus.open(folder)


def test_what_was_written_is_read_across_the_borders_of_shards(tmp_path):
    corpus = write(tmp_path / "corpus")
    row = ROW
    for first in range(12):
        for n in range(12 - first + 1):
            assert corpus.train.tokens(first, n).tolist() == row[first : first + n]
    assert [path.name for path in sorted(corpus.folder.glob("train-*"))] == [f"train-0000{n}.bin" for n in range(3)]
    assert (corpus.train.n_documents, corpus.train.n_tokens, corpus.train.n_bytes) == (3, 12, 37)
    assert (corpus.held_out.n_documents, corpus.held_out.n_tokens, corpus.held_out.n_bytes) == (1, 3, 4)
    assert corpus.bytes_of[corpus.train.tokens(0, 12)].sum() == 37 and corpus.vocab_size == 10
    assert corpus.tokenizer == corpus.folder / "tokenizer" and corpus.manifest.origin == {"files": ["a.txt"]}


def test_ids_take_two_bytes_where_the_vocabulary_allows_it_and_four_elsewhere(tmp_path):
    assert write(tmp_path / "a").manifest.dtype == "uint16"
    wide = write(tmp_path / "b", train=[[70_000, END]], vocab_size=70_001)
    assert wide.manifest.dtype == "uint32" and wide.train.tokens(0, 2).tolist() == [70_000, END]


def test_the_same_documents_make_the_same_bytes_and_others_another_digest(tmp_path):
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    files = sorted(path.relative_to(one.folder) for path in one.folder.rglob("*") if path.is_file())
    assert all((one.folder / name).read_bytes() == (two.folder / name).read_bytes() for name in files)
    other = write(tmp_path / "other", train=[*TRAIN[:2], [5, 6, 7, 8, 2, END]])
    assert one.train.digest == two.train.digest != other.train.digest
    assert one.held_out.digest == other.held_out.digest != one.train.digest


@pytest.mark.parametrize(
    ("name", "damage", "cause"),
    [
        ("train-00001.bin", lambda path: path.write_bytes(b"\1" + path.read_bytes()[1:]), "is damaged"),
        ("train-00001.bin", lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 9 bytes where 10"),
        ("held_out-00000.bin", lambda path: path.unlink(), "is missing"),
        ("tokenizer/tokenizer.json", lambda path: path.write_text("[]"), "is damaged"),
        ("corpus.json", lambda path: path.unlink(), "is no corpus"),
        ("manifest.json", lambda path: path.unlink(), "has no manifest.json"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, name, damage, cause):
    folder = write(tmp_path / "corpus").folder
    damage(folder / name)
    with pytest.raises(UserError, match=cause) as error:
        Corpus.open(folder)
    assert name in str(error.value) and "smallpress corpus" in error.value.remedy


def test_a_shard_cut_short_while_it_is_used_is_named(tmp_path):
    corpus = write(tmp_path / "corpus")
    os.truncate(corpus.folder / "train-00001.bin", 4)
    with pytest.raises(UserError, match=r"train-00001\.bin has fewer than 5 tokens"):
        corpus.train.tokens(0, 12)


@pytest.mark.parametrize("end", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_and_ctrl_c_leave_nothing(tmp_path, end):
    with pytest.raises((UserError, KeyboardInterrupt)) as error, new_corpus(tmp_path / "corpus", VOCABULARY) as writer:
        writer.add("train", [1, END])
        raise end
    assert isinstance(end, KeyboardInterrupt) or "free some space" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_epoch_meets_every_piece_once_and_each_epoch_in_another_order(tmp_path):
    rows = Rows(write(tmp_path / "corpus").train, seq_len=2, seed=0)
    assert len(rows) == 5  # 11 targets
    row = ROW
    epochs = [[rows.row(k).ids.tolist() for k in range(5 * e, 5 * e + 5)] for e in range(3)]
    pieces = [row[i : i + 3] for i in range(0, 10, 2)]
    assert all(sorted(epoch) == sorted(pieces) for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_a_row_depends_on_its_number_alone(tmp_path):
    part = write(tmp_path / "corpus").train
    one, two = Rows(part, seq_len=3, seed=4), Rows(part, seq_len=3, seed=4)
    in_order = [one.row(k).ids.tolist() for k in range(20)]
    assert [two.row(k).ids.tolist() for k in reversed(range(20))] == in_order[::-1]
    assert [Rows(part, 3, seed=5).row(k).ids.tolist() for k in range(20)] != in_order


def test_the_starts_of_a_row_are_where_documents_begin(tmp_path):
    rows = Rows(write(tmp_path / "corpus").train, seq_len=11, seed=0)
    assert rows.row(0).starts.tolist() == [0, 4, 6]  # 1 2 3 end | 4 end | 5 6 7 8 1 end
    assert rows.row(0).ids.dtype == rows.row(0).starts.dtype == np.int64


def test_too_few_tokens_for_a_row_are_said(tmp_path):
    part = write(tmp_path / "corpus").held_out
    assert len(Rows(part, seq_len=2, seed=0)) == 1
    with pytest.raises(UserError, match="3 tokens are not one row of 3"):
        Rows(part, seq_len=3, seed=0)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 1000])
def test_a_shuffle_is_a_permutation(n):
    assert sorted(shuffled(place, n, seed=7) for place in range(n)) == list(range(n))


def test_every_place_of_a_shuffle_is_equally_likely():
    """The first of four things, over 2000 seeds: 500 each expected, standard deviation 19."""
    counts = np.bincount([shuffled(0, 4, seed) for seed in range(2000)], minlength=4)
    assert abs(counts - 500).max() < 80
