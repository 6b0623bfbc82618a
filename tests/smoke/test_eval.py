"""smallpress eval, from the words to the exit code; the last ones on the real model."""

import json
import subprocess
import sys

import pytest

from smallpress.cli.main import run

ONE_LINE_ERRORS = [
    (["--tasks", "chained_som:3"], "did you mean chained_sum?"),
    (["--tasks", "chained_sum:99"], "'chained_sum:99' names no level"),
    (["--n", "0"], "--n is 0"),
    (["--samples", "0"], "--samples is 0"),
    (["--samples", "4", "--temperature", "0"], "would all be alike"),
    (["--temperature", "nan"], "--temperature is nan"),
    (["--top-p", "1.5"], "--top-p is 1.5"),
    (["--template", "r2"], "r2"),
    (["--template", "all", "--temperature", "0"], "draws samples beside the greedy answer"),
    (["--data", "no-such.jsonl"], "no-such.jsonl"),
    (["--held-out"], "--held-out chooses among the questions of --data"),
    (["--compare", "no-such.json"], "no-such.json"),
    (["--out", "no-such-folder/out.json"], "no-such-folder is not a folder"),
    (["--n", "1"], "there-is-no-model does not exist"),
    (["--bench", "gsm8"], "did you mean gsm8k?"),
    (["--bench", "gsm8k"], "--bench gsm8k needs --data"),
    (["--endpoint", "http://127.0.0.1:1/v1", "--offline"], "--offline opens no socket"),
    (["--bench", "humaneval", "--data", "a"], "reading a: no such file"),
    (["--max-tokens", "0"], "--max-tokens is 0"),
    (["--thinking", "-1"], "--thinking is -1"),
    (["--thinking", "9", "--template", "all"], "--template all has no --thinking"),
    (["--corpus", "no-such-corpus", "--n", "1"], "no-such-corpus"),
    (["--endpoint", "nonsense", "--n", "1"], "nonsense is no address"),
    (["--endpoint", "http://127.0.0.1:9/v1", "--template", "r1_zero", "--n", "1"], "an endpoint is asked as a chat"),
]


@pytest.mark.parametrize(("words", "said"), ONE_LINE_ERRORS, ids=[" ".join(words) for words, _ in ONE_LINE_ERRORS])
def test_a_wrong_option_is_one_line_and_exit_code_2(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "./there-is-no-model", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def smallpress(*words):
    command = [sys.executable, "-m", "smallpress.cli.main", "eval", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_four_questions_to_the_real_model_then_every_way_of_asking_them(smollm2, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "all.json"
    words = [smollm2, "--tasks", "chained_sum:2", "--n", "4", "--max-tokens", "24", "--offline"]

    done = smallpress(*words, "--reading", "lenient", "--out", first)
    assert "chat, greedy, lenient reading" in done.stdout
    written = json.loads(first.read_text())
    assert len(written["problems"]) == 4
    assert written["overall"]["mean_tokens"] <= 24

    done = smallpress(*words, "--template", "all", "--samples", "2", "--compare", first, "--out", second)
    assert done.stdout.count("baseline") == 1
    written = json.loads(second.read_text())
    assert len(written["results"]) == 12
    best = written["results"][written["best"]]
    assert best["sampling"]["temperature"] == 0.0
    chat = written["results"][1]
    assert (chat["form"], chat["reading"], chat["overall"]) == (
        "chat",
        "lenient",
        json.loads(first.read_text())["overall"],
    )
    assert "gain" in done.stdout


def test_a_dry_run_says_what_it_takes_and_puts_one_question(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["eval", str(tiny_model), "--tasks", "product:1", "--n", "8", "--max-tokens", "8"]
    assert run([*words, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("plan: ") and "decode tokens a second, one sequence" in printed.err
    assert printed.out == "" and list(tmp_path.iterdir()) == []
    assert run(words) == 0
    assert "tokens a second, prompts included" in capsys.readouterr().err
