"""smallpress convert, from the words on the command line to files that run."""

import json
from collections import namedtuple

import numpy as np
import pytest

from smallpress.cli.main import run
from smallpress.weights.gguf import open_gguf
from smallpress.weights.load import open_model

QUESTION = ["What is 2 + 2?", "--dtype", "float32", "--temperature", "0", "--max-tokens", "12"]
DISK = namedtuple("DISK", "total used free")


@pytest.fixture
def smallpress(capfd, monkeypatch):
    """Run one command in this process, nothing piped in: (exit code, stdout, stderr)."""
    monkeypatch.setattr("smallpress.cli.run._piped_text", lambda: None)

    def call(*words):
        code = run([str(word) for word in words])
        return code, *capfd.readouterr()

    return call


def test_a_folder_to_a_gguf_and_back_keeps_what_8_bits_keep(smallpress, tiny_model, tmp_path):
    code, out, err = smallpress("convert", tiny_model, tmp_path / "a.gguf", "--to", "q8")
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path / 'a.gguf'} is written: ")
    assert smallpress("convert", tmp_path / "a.gguf", tmp_path / "again", "--to", "hf")[0] == 0
    source, small, again = map(open_model, (tiny_model, tmp_path / "a.gguf", tmp_path / "again"))
    assert again.config == small.config == source.config
    for name, array in source.tensors():
        kept = small.read(name)
        assert np.array_equal(again.read(name), kept)
        assert np.abs(kept - array).max() <= np.abs(array).max() / 127
    assert small.stored("layers.0.attn.q.weight")[0] == "Q8_0"
    assert small.stored("layers.0.mlp.down.weight")[0] == "F16"  # rows of 48 are no whole blocks
    texts = ["What is the next number?", "<|im_start|>é\n中<|im_end|><answer>7</answer>"]
    for text in texts:
        ids = [files.tokenizer().encode(text, special=True) for files in (source, small, again)]
        assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize("to", ["f32", "gguf", "hf"])
def test_without_loss_the_answers_are_the_same(smallpress, tiny_model, tmp_path, to):
    out = tmp_path / ("out" if to == "hf" else "out.gguf")
    assert smallpress("convert", tiny_model, out, "--to", to)[0] == 0
    before, after = smallpress("run", tiny_model, *QUESTION), smallpress("run", out, *QUESTION)
    assert before[0] == after[0] == 0 and before[1] == after[1] != ""


@pytest.mark.parametrize("to", ["f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k", "q4"])
def test_every_format_is_written_and_runs(smallpress, tiny_model, tmp_path, to):
    code, out, _ = smallpress("convert", tiny_model, tmp_path / "a.gguf", "--to", to, "--json")
    report = json.loads(out)
    size = (tmp_path / "a.gguf").stat().st_size
    assert code == 0 and report["written"] and report["bytes"] == size
    assert report["bits_per_weight"] == round(8 * size / report["weights"], 3)
    assert report["form"] == {"q4": "q4_0"}.get(to, to)
    assert smallpress("run", tmp_path / "a.gguf", *QUESTION)[0] == 0


def test_a_folder_may_be_written_in_bfloat16_and_stays_so(smallpress, tiny_model, tmp_path):
    for source, name in ((tiny_model, "a"), (tmp_path / "a", "b")):
        words = ["--dtype", "bfloat16"] if name == "a" else []
        assert smallpress("convert", source, tmp_path / name, "--to", "hf", *words)[0] == 0
        assert open_model(tmp_path / name).stored("embed.weight")[0] == "BF16"


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(smallpress, tiny_model, tmp_path):
    words = ("convert", tiny_model, tmp_path / "a.gguf", "--to", "q4_0")
    code, out, _ = smallpress(*words, "--dry-run")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and list(tmp_path.iterdir()) == []
    assert ["embed", "1", "Q8_0", "0.0"] in lines and ["attn.q", "2", "Q4_0", "0.0"] in lines
    assert ["mlp_norm", "2", "F32", "0.0"] in lines
    assert lines[-1][1:3] == ["would", "have"] and lines[-1][-1] == "q4_0"
    planned = json.loads(smallpress(*words, "--dry-run", "--json")[1])
    written = json.loads(smallpress(*words, "--json")[1])
    assert planned | {"written": True} == written
    folder = json.loads(smallpress("convert", tiny_model, tmp_path / "b", "--to", "hf", "--dry-run", "--json")[1])
    assert folder["bytes"] == 4 * folder["weights"] and not (tmp_path / "b").exists()


def test_what_is_there_is_replaced_only_by_force_and_never_the_source(smallpress, tiny_model, tmp_path):
    for name, to in (("a.gguf", "q8_0"), ("a", "hf")):
        words = ("convert", tiny_model, tmp_path / name, "--to", to)
        assert smallpress(*words)[0] == 0
        code, _, err = smallpress(*words)
        assert code == 2 and "already exists; give --force" in err
        assert smallpress(*words, "--force")[0] == 0
    code, _, err = smallpress("convert", tmp_path / "a.gguf", tmp_path / "a.gguf", "--to", "q4_0", "--force")
    assert code == 2 and "is or holds the model" in err
    assert open_gguf(tmp_path / "a.gguf").metadata["general.file_type"] == 7
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear diary")
    code, _, err = smallpress("convert", tiny_model, tmp_path / "mine", "--to", "hf", "--force")
    assert code == 2 and "is no model folder" in err and (tmp_path / "mine/diary.txt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["MODEL", "OUT/a.gguf"], "--to"),
        (["MODEL", "OUT/a.gguf", "--to", "q3_k"], "q3_k"),
        (["MODEL", "OUT/a.bin", "--to", "q4_0"], "a.bin is not named as a GGUF file; call it a.bin.gguf"),
        (["MODEL", "OUT/a.gguf", "--to", "hf"], "a.gguf is named as a GGUF file"),
        (["MODEL", "OUT/a.gguf", "--to", "q4_0", "--dtype", "bfloat16"], "--dtype is for --to hf"),
        (["MODEL", "OUT/no/such/a.gguf", "--to", "q4_0"], "is not a folder"),
        (["OUT", "OUT/a.gguf", "--to", "q4_0"], "is no model folder"),
        (["./no-such-model", "OUT/a.gguf", "--to", "q4_0"], "./no-such-model does not exist"),
        (["smolm2-135m", "OUT/a.gguf", "--to", "q4_0"], "did you mean smollm2-135m?"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(smallpress, tiny_model, tmp_path, words, said):
    words = [str(tiny_model) if word == "MODEL" else word.replace("OUT", str(tmp_path)) for word in words]
    code, out, err = smallpress("convert", *words)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_known_before_anything_is_written(smallpress, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: DISK(10**9, 10**9, 1000))
    for name, to in (("a.gguf", "q8_0"), ("a", "hf")):
        code, _, err = smallpress("convert", tiny_model, tmp_path / name, "--to", to)
        assert code == 2 and "its disk has 0 MB free; free some space" in err
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_source_is_one_line(smallpress, tiny_model, tmp_path):
    assert smallpress("convert", tiny_model, tmp_path / "a.gguf", "--to", "q8_0")[0] == 0
    (tmp_path / "a.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:-40])
    code, _, err = smallpress("convert", tmp_path / "a.gguf", tmp_path / "b.gguf", "--to", "q4_0")
    assert code == 2 and "are missing" in err and not (tmp_path / "b.gguf").exists()


def test_the_real_model_in_8_bits_answers_as_before(smallpress, smollm2, tmp_path):
    code, out, _ = smallpress("convert", smollm2, tmp_path / "a.gguf", "--to", "q8_0", "--json")
    report = json.loads(out)
    assert code == 0 and 8.5 < report["bits_per_weight"] < 8.7 and report["weights"] == 134_515_008
    metadata, source = open_gguf(tmp_path / "a.gguf").metadata, open_gguf(smollm2).metadata
    assert metadata.items() >= {key: source[key] for key in source if key.startswith("tokenizer.")}.items()
    assert metadata["general.license"] == "apache-2.0" and metadata["general.file_type"] == 7
    assert open_model(tmp_path / "a.gguf").origin == "HuggingFaceTB/SmolLM2-135M-Instruct"
    words = ["What is the capital of France?", *QUESTION[1:]]
    assert smallpress("run", tmp_path / "a.gguf", *words)[1] == "The capital of France is Paris.\n"
