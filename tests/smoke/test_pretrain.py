"""smallpress pretrain and smallpress resume, from the words to the exit code, on a model of ten thousand weights."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from smallpress.cli.main import run
from smallpress.corpus.shard_writer import Vocabulary, new_corpus
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.load import open_model

RECIPE = """
steps = 4
seq_len = 32
batch_tokens = 128
micro_batch_tokens = 64
lr = 0.01
warmup = 1
init_std = 0.1
arithmetic = "float32"
eval_every = 2
eval_tokens = 64
save_every = 2
ema = 0.5

[shape]
dim = 32
n_layers = 2
max_seq_len = 64
mtp = { n_modules = 1 }

[shape.attention]
kind = "mla"
n_heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 16

[shape.ffn]
kind = "moe"
n_routed_experts = 4
n_active_experts = 2
n_shared_experts = 1
moe_inter_dim = 16
score = "sigmoid"
expert_bias = true
dense_layers = [0]
dense = { inter_dim = 32 }
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory, tiny_model) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = Tokenizer.from_folder(tiny_model)
    bytes_of = np.array([len(tokenizer.shown_bytes(id)) for id in range(tokenizer.vocab_size)])
    with new_corpus(folder / "corpus", Vocabulary(bytes_of, tokenizer.eos_id, tokenizer.save)) as writer:
        for n in range(60):
            text = f"{n} and {n + 1} are {2 * n + 1}, and that is all there is to say. "
            writer.add("held_out" if n % 6 == 0 else "train", [*tokenizer.encode(text), tokenizer.eos_id])
    (folder / "recipe.toml").write_text(RECIPE)
    return ["pretrain", str(folder / "recipe.toml"), "--corpus", str(folder / "corpus")]


@pytest.fixture(scope="module")
def finished(words, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    assert run([*words, "--out", str(path)]) == 0
    return path


def test_a_run_says_its_plan_trains_and_leaves_a_model_that_is_loaded(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    out = tmp_path / "my run"
    assert run([*words, "--out", str(out), "--set", "export=ema"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].endswith(" held out") and "million weights" in lines[1]
    assert lines[2].startswith("4 steps, 512 tokens, ") and lines[3].startswith("step 1/4  loss ")
    assert "plan: " in said.err and "seconds a step" in said.err
    assert lines[-2:] == [f"report  {out / 'report.html'}", f"model   {out / 'model'}"]
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows if "eval/bits_per_byte" in row] == [0, 2, 4]
    assert {"loss/mtp1", "load/entropy", "load/max_over_mean", "skipped", "rolled_back"} <= set(rows[1])
    files = open_model(out / "model")
    assert (files.config.family, files.config.vocab_size, files.config.mtp.n_modules) == ("deepseek_v3", 398, 1)
    assert run(["run", str(out / "model"), "3 and", "--max-tokens", "4", "--json"]) == 0
    assert run(["convert", str(out / "model"), str(out / "model.gguf"), "--to", "f32"]) == 0
    assert open_model(out / "model.gguf").config.ffn == files.config.ffn


def test_a_run_killed_in_its_fourth_step_ends_as_if_it_had_not_been(words, finished, killed_in_fourth_step, tmp_path):
    killed = tmp_path / "killed"
    done = killed_in_fourth_step([*words, "--out", str(killed)])
    assert done.returncode == -9 and not (killed / "model").exists()
    assert run(["resume", str(killed)]) == 0
    for name in ("model/model.safetensors", "checkpoints/step-000004/tensors.safetensors"):
        assert (killed / name).read_bytes() == (finished / name).read_bytes()
    assert RunFolder.open(killed).verb == "pretrain"


def test_a_finished_run_only_says_so(finished, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    assert run(["resume", str(path)]) == 0
    assert f"{path} is finished" in capsys.readouterr().out


def test_a_dry_run_takes_a_step_and_writes_nothing(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([*words, "--dry-run"]) == 0
    assert os.listdir(tmp_path) == [] and "4 steps would take" in capsys.readouterr().out


WRONG = [
    (["--corpus", "none"], "none is no corpus"),
    (["--set", "seq_len=64", "--set", "shape.max_seq_len=32"], "seq_len=64 is above shape.max_seq_len=32"),
    (["--set", "shape.vocab_size=100"], "shape.vocab_size=100 is below the 398 tokens"),
    (["--set", "shape.ffn.n_active_experts=5"], "5 experts cannot be chosen from 4"),
    (["--set", "fim_rate=0.1"], "lacks <|fim_begin|>"),
    (["--set", "gamma=1"], "unknown setting gamma"),
]


@pytest.mark.parametrize(("more", "said"), WRONG, ids=[" ".join(more) for more, _ in WRONG])
def test_a_wrong_setting_is_one_line_and_exit_code_2(words, more, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [*words[:2], *more] if more[0] == "--corpus" else [*words, *more]
    assert run(given) == 2
    assert said in capsys.readouterr().err and os.listdir(tmp_path) == []
