"""A reward model trained by smallpress sft, then a judge in smallpress grpo: a model of some ten thousand weights."""

import json
from pathlib import Path

import pytest

from smallpress.cli.main import run
from smallpress.run.metrics import read_metrics
from smallpress.weights.reward_model import load_reward_model, open_reward_model


@pytest.fixture(scope="module")
def reward_model(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    rows = [{"prompt": f"{n} + {n}?", "chosen": f"{2 * n}.", "rejected": f"{2 * n}!"} for n in range(40)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["sft", "--model", str(tiny_model), "--data", str(folder / "pairs.jsonl"), "--out", str(folder / "run")]
    more = ["lr=0.003", "dtype=float32", "samples_per_step=8", "steps=20", "pairwise.center=0.01", "eval_every=20"]
    assert run([*words, *(word for setting in more for word in ("--set", setting))]) == 0
    return folder / "run/model"


def test_a_reward_model_is_trained_measured_and_is_none_that_writes(reward_model, capsys):
    rows = read_metrics(reward_model.parent / "metrics.jsonl")
    assert rows[-1]["eval/reward_accuracy"] == 1.0 and rows[-1]["eval/longer_wins"] == 0.5
    assert rows[-1]["eval/loss"] < 0.7 * rows[0]["eval/loss"]
    assert load_reward_model(open_reward_model(reward_model)).score.weight.shape == (1, 32)
    assert run(["convert", str(reward_model), str(reward_model.parent / "gguf"), "--to", "gguf"]) == 2
    assert "is a reward model: it scores answers and writes none" in capsys.readouterr().err


def test_it_judges_a_run_whose_dry_run_asks_it_first(reward_model, tiny_recipe, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"prompt": "Say hello.", "completion": "Hello."}\n')
    judged = ["--set", f"helpfulness.by={reward_model}", "--set", "harmlessness=rules", "--steps", "2"]
    judged += ["--set", f"prompts={tmp_path / 'p.jsonl'}", "--set", "prompts_share=0.4"]
    assert run(["grpo", str(tiny_recipe), *judged, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "helpfulness of a plain right answer, by " in said.out and "harmlessness of a plain right" in said.out
    assert "rules judge form alone" in said.err
    assert run(["grpo", str(tiny_recipe), *judged, "--out", str(tmp_path / "run")]) == 0
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert 0 < rows[-1]["rewards/helpfulness/mean"] < 1 and rows[-1]["judges/helpfulness/failed"] == 0.0
    assert run(["grpo", str(tiny_recipe), "--set", "helpfulness=no such folder", "--dry-run"]) == 2
