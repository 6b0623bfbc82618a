"""smallpress sft and smallpress resume, from the words to the exit code, on a model of some ten thousand weights."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from smallpress.cli.main import run
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics
from smallpress.weights.load import load_transformer, open_model

ROWS = [
    {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n} !"}]} for n in range(40)
]
SETTINGS = [
    "--steps",
    "4",
    "--set",
    "lr=0.01",
    "--set",
    "dtype=float32",
    "--set",
    "save_every=2",
    "--set",
    "eval_every=2",
]
LORA = ["--set", "lora.rank=2", "--set", 'lora.targets=["q", "down"]']


@pytest.fixture(scope="module")
def words(tiny_model, tmp_path_factory) -> list[str]:
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    file.write_text(
        "".join(json.dumps(row) + "\n" for row in [*ROWS, {"messages": [{"role": "user", "content": "?"}]}])
    )
    return ["sft", "--model", str(tiny_model), "--data", str(file), *SETTINGS]


@pytest.fixture(scope="module")
def finished(words, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    assert run([*words, "--out", str(path)]) == 0
    return path


def test_a_run_says_its_plan_trains_and_leaves_a_model(words, tmp_path, capsys):
    out = tmp_path / "my run"
    assert run([*words, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["41 rows: 36 samples to train on, 4 held out", lines[1], "1 dropped: no answer"]
    assert lines[3].startswith("4 steps of 16, 0.0 million weights trained in float32")
    assert lines[4].startswith("step 1/4  loss ") and lines[4].endswith(" left")
    assert lines[-2:] == [f"report  {out / 'report.html'}", f"model   {out / 'model'}"]
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows if "eval/loss" in row] == [0, 2, 4] and rows[-1]["loss"] < rows[1]["loss"]
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"] and "Loss" in (out / "report.html").read_text()
    assert RunFolder.open(out).verb == "sft" and RunFolder.open(out).settings["steps"] == 4
    assert load_transformer(out / "model").embed.weight.shape == (512, 32)


@pytest.mark.parametrize("more", [[], LORA], ids=["whole", "adapters"])
def test_a_run_killed_in_its_fourth_step_ends_as_if_it_had_not_been(words, more, killed_in_fourth_step, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = killed_in_fourth_step([*words, *more, "--out", str(killed)])
    assert done.returncode == -9 and not (killed / "model").exists()
    assert run(["resume", str(killed)]) == 0 and run([*words, *more, "--out", str(whole)]) == 0
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        if (whole / name).exists():
            assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_run_only_says_so(finished, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    assert run(["resume", str(path)]) == 0
    assert f"{path} is finished" in capsys.readouterr().out


def test_a_dry_run_takes_a_step_and_writes_nothing(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([*words, "--dry-run"]) == 0
    assert os.listdir(tmp_path) == [] and "4 steps would take" in capsys.readouterr().out


def test_an_adapter_is_merged_by_convert_and_is_used_by_run_and_eval(words, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert run([*words, *LORA, "--out", str(tmp_path / "run")]) == 0
    adapter, merged = str(tmp_path / "run/adapter"), tmp_path / "merged"
    assert run(["convert", str(tiny_model), str(merged), "--to", "hf", "--adapter", adapter]) == 0
    base, both = open_model(tiny_model), open_model(merged)
    assert (base.read("layers.0.attn.q.weight") != both.read("layers.0.attn.q.weight")).any()
    assert (base.read("layers.0.attn.k.weight") == both.read("layers.0.attn.k.weight")).all()
    answers = []
    for words_ in ([str(tiny_model), "--adapter", adapter], [str(merged)]):
        capsys.readouterr()
        assert run(["run", *words_, "7?", "--temperature", "0", "--max-tokens", "8", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["answer"])
    assert answers[0] == answers[1]
    assert (
        run(["eval", str(tiny_model), "--adapter", adapter, "--tasks", "product:1", "--n", "2", "--max-tokens", "4"])
        == 0
    )


WRONG = [
    (["--set", 'lora.targets=["w"]'], "there is no linear layer 'w' to adapt"),
    (["--set", "lora.rank=0"], "lora.rank = 0"),
    (["--set", "lora.rnak=4"], "unknown setting lora.rnak; did you mean lora.rank?"),
    (["--set", "max_tokens=5000"], "max_tokens=5000 is above the 1024 tokens the model can see"),
    (["--set", "max_tokens=4"], "nothing to train on: 40 over 4 tokens"),
    (["--data", "none.jsonl"], "no such file"),
    (["--set", "lora.base=nf4"], "layers.0.attn.q has rows of 32, and nf4 has blocks of 64"),
    (["--set", "dpo.beta=0.1"], "line 1: chosen is missing"),
]


@pytest.mark.parametrize(("more", "said"), WRONG, ids=[" ".join(more) for more, _ in WRONG])
def test_a_wrong_setting_is_one_line_and_exit_code_2(words, more, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [*words[:3], *more, *SETTINGS] if more[0] == "--data" else [*words, *more]
    assert run(given) == 2
    assert said in capsys.readouterr().err and os.listdir(tmp_path) == []


DISTILL = [
    *('tasks=["product:1"]', "n_questions=30", "answers_each=2", "keep_each=2", "answer_tokens=12", "temperature=1.0"),
    *("teacher_form=r1_zero", "filters.correct=false", "filters.repeated=1.0", "filters.other_scripts=1.0"),
]


@pytest.mark.parametrize("method", ["answers", "logits", "on_policy"])
def test_a_student_learns_from_a_teacher_and_a_stopped_run_goes_on(method, tiny_model, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["distill", "--model", str(tiny_model), "--teacher", str(tiny_model), "--out", str(out), *SETTINGS[2:]]
    given = [
        word for setting in (*DISTILL, "steps=4", "max_tokens=1000", f"method={method}") for word in ("--set", setting)
    ]
    assert run([*words, *given]) == 0
    said = capsys.readouterr().out
    assert said.startswith("30 questions, 30 of which a program can check, 2 answers each") and " answers: kept" in said
    assert len((out / "answers.jsonl").read_text().splitlines()) == 60
    model = (out / "model/model.safetensors").read_bytes()
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints/step-000004")
    answers = (out / "answers.jsonl").read_bytes()
    (out / "data.jsonl").unlink()
    (out / "answers.jsonl").write_bytes(answers[: len(answers) // 2])
    assert run(["resume", str(out)]) == 0
    assert (out / "model/model.safetensors").read_bytes() == model
