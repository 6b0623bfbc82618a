"""smallpress corpus: one corpus from files of every kind, the same twice, and nothing of it where it was stopped."""

import gzip
import json
import signal
import subprocess
import sys

import pytest

from smallpress.cli.main import run
from smallpress.corpus.rows import Rows
from smallpress.corpus.shards import Corpus
from smallpress.tokenizer.tokenizer import Tokenizer

POEM = "关关雎鸠，在河之洲。\n窈窕淑女，君子好逑。\n"
QUESTION = "If Tom has three apples and buys four more, how many apples has he got now?"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Text, packed JSON lines, code, Parquet where pyarrow is, and the questions of an evaluation."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "tales.txt").write_text("\n\n".join(f"The {i}th tale\nof the {i * i}th night." for i in range(60)))
    rows = [{"text": f"{POEM}{i}"} for i in range(60)] + [{"text": f"{QUESTION} {i}"} for i in range(3)] + [{"a": 1}]
    (folder / "poems.jsonl.gz").write_bytes(gzip.compress(json.dumps(rows).encode(), mtime=0))
    (folder / "code").mkdir()
    for i in range(20):
        (folder / f"code/f{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n")
    (folder / "test.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "7"}) + "\n")
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        return folder
    parquet.write_table(pyarrow.table({"content": [f"Row {i} of a table." for i in range(40)]}), folder / "t.parquet")
    return folder


def given(files):
    names = [path for path in sorted(files.iterdir()) if path.name != "test.jsonl"]
    options = ["--split", "blank", "--held-out", "0.1", "--vocab", "360", "--not-in", files / "test.jsonl"]
    return [str(word) for word in (*names, *options)]


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "corpus"
    assert run(["corpus", *given(files), "--out", str(out)]) == 0
    return Corpus.open(out)


def documents_of(part, tokenizer):
    ids = part.tokens(0, part.n_tokens).tolist()
    ends = [i for i, id in enumerate(ids) if id == part.end_id]
    starts = [0, *(end + 1 for end in ends)]
    assert ends[-1] == len(ids) - 1
    return [tokenizer.decode(ids[start:end]) for start, end in zip(starts, ends, strict=False)]


def test_every_kind_of_file_is_in_it_on_one_side_or_the_other(files, made):
    tokenizer = Tokenizer.from_folder(made.tokenizer)
    train, held_out = (documents_of(part, tokenizer) for part in (made.train, made.held_out))
    has_table = (files / "t.parquet").exists()
    assert len(train) + len(held_out) == 60 + 60 + 20 + 40 * has_table and not set(train) & set(held_out)
    assert 0 < len(held_out) < 40
    whole = {*train, *held_out}
    assert {"The 7th tale\nof the 49th night.\n", f"{POEM}3", "def f4(x):\n    return x + 4\n"} <= whole
    assert ("Row 5 of a table." in whole) == has_table
    for part, texts in ((made.train, train), (made.held_out, held_out)):
        assert part.n_bytes == sum(len(text.encode()) for text in texts) and part.n_documents == len(texts)
    left_out = made.manifest.origin["left_out"]
    assert left_out == {"no text or content": 1, "shares 10 words in a row with what is measured": 3}
    assert made.vocab_size == tokenizer.vocab_size == 360
    assert len(Rows(made.train, seq_len=16, seed=0)) == (made.train.n_tokens - 1) // 16


def test_the_same_files_make_the_same_bytes(files, made, tmp_path, capsys):
    assert run(["corpus", *given(files), "--out", str(tmp_path / "again"), "--json"]) == 0
    for path in made.folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(made.folder)).read_bytes(), path
    said = json.loads(capsys.readouterr().out)
    assert said["train"]["n_tokens"] == made.train.n_tokens and said["vocab_size"] == 360


def test_the_tokenizer_of_a_model_or_of_another_corpus_is_taken(files, made, tiny_model, tmp_path, capsys):
    tales = [str(files / "tales.txt"), "--split", "blank", "--held-out", "0.1"]
    assert run(["corpus", *tales, "--tokenizer", str(made.folder), "--out", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a/tokenizer/tokenizer.json").read_bytes() == (made.tokenizer / "tokenizer.json").read_bytes()
    assert run(["corpus", *tales, "--tokenizer", str(tiny_model), "--out", str(tmp_path / "b")]) == 0
    other, theirs = Corpus.open(tmp_path / "b"), Tokenizer.from_folder(tiny_model)
    assert other.train.end_id == theirs.end_of_text_id
    assert other.train.n_documents == Corpus.open(tmp_path / "a").train.n_documents


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["none.txt"], "none.txt is not there"),
        (["{files}/tales.txt"], "of 1 documents none is held out at a share of 0.01"),
        (["{files}/test.jsonl"], "no document is left: no text or content"),
        (["{files}/tales.txt", "--held-out", "1"], "--held-out is 1.0"),
        (["{files}/tales.txt", "--vocab", "100"], "a vocabulary of 100 does not hold"),
        (["{files}/tales.txt", "--split", "page"], "page"),
    ],
)
def test_what_cannot_be_is_one_line_with_a_remedy_and_leaves_nothing(files, tmp_path, capsys, words, cause):
    words = [word.format(files=files) for word in words]
    assert run(["corpus", *words, "--out", str(tmp_path / "corpus")]) == 2
    error = capsys.readouterr().err
    assert cause in error and error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_corpus_that_is_there_is_not_touched_and_a_dry_run_writes_nothing(files, made, tmp_path, capsys):
    assert run(["corpus", *given(files), "--out", str(made.folder)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert run(["corpus", *given(files), "--out", str(tmp_path / "corpus"), "--dry-run"]) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["code", "20", "0.0"] in said and ["text", "1", "0.0"] in said and list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from smallpress.cli.main import run
from smallpress.corpus.shard_writer import PartWriter
add = PartWriter.add
def last(self, ids):
    add(self, ids)
    os.kill(os.getpid(), signal.SIGKILL)
PartWriter.add = last
run(sys.argv[1:])
"""


def test_a_kill_leaves_nothing_under_its_name_and_the_next_run_clears_up(files, made, tmp_path):
    out = tmp_path / "corpus"
    words = ["corpus", str(files / "tales.txt"), "--split", "blank", "--tokenizer", str(made.folder)]
    words += ["--held-out", "0.1", "--out", str(out)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], timeout=280)
    assert killed.returncode == -signal.SIGKILL and list(tmp_path.glob(".corpus.tmp-*")) and not out.exists()
    assert run(words) == 0 and Corpus.open(out) and list(tmp_path.iterdir()) == [out]
