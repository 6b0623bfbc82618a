"""smallpress r1 and smallpress resume, from the words to the exit code, on a model of some ten thousand weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smallpress.cli.main import run
from smallpress.run.metrics import read_metrics
from smallpress.weights.load import load_transformer

KILLS = Path(__file__).with_name("ladder_kills.py")
SMALL = 'dtype = "float32"\nmicro_batch_tokens = 512\nlr = 0.01\nsave_every = 1\neval_every = 2\n'
RL = f"steps = 2\nprompts_per_step = 2\ngroup_size = 4\nmax_tokens = 10\neval_n = 2\n{SMALL}"
RL += "rewards = { accuracy = 1.0, answer_tag = 0.3, overlong = 0.1 }\n"
ASKING = "n_questions = 12\nanswers_each = 2\nkeep_each = 2\nanswer_tokens = 12\nmax_tokens = 900\n"
LEARNING = f"steps = 2\nsamples_per_step = 4\neval_n = 0\n{SMALL}"
ANYTHING = "filters = { correct = false, well_formed = false, repeated = 1.0, other_scripts = 1.0 }\n"
STAGES = ["0-r1-zero", "1-cold-start", "2-reasoning-rl", "3-rejection-sampling", "4-all-scenarios-rl"]


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory) -> Path:
    """Two steps a stage, and everything the teachers say is learned."""
    folder = tmp_path_factory.mktemp("ladder")
    prompts = folder / "general.jsonl"
    prompts.write_text(
        "".join(json.dumps({"messages": [{"role": "user", "content": f"{n}?"}]}) + "\n" for n in range(9))
    )
    path = folder / "r1.toml"
    head = {"model": str(tiny_model), "tasks": ["chained_sum:2", "product:1"], "general_prompts": [str(prompts)]}
    head |= {"general_tokens": 8, "measure_n": 2, "measure_tokens": 8}
    sections = {
        "r1_zero": f'form = "r1_zero"\n{RL}',
        "cold_start": f'teacher_form = "r1_zero"\n{ASKING}{LEARNING}{ANYTHING}',
        "reasoning_rl": RL,
        "rejection_sampling": f'teacher_form = "r1_zero"\n{ASKING}{LEARNING}{ANYTHING}',
        "all_scenarios_rl": RL,
    }
    text = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in head.items())
    path.write_text(text + "".join(f"\n[{key}]\n{lines}" for key, lines in sections.items()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """A whole ladder; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "ladder"
    assert run(["r1", str(recipe), "--out", str(out), "--offline"]) == 0
    return out


def test_a_ladder_climbs_every_stage_and_ends_in_one_report(finished):
    stages = json.loads((finished / "ladder.json").read_bytes())["stages"]
    assert [(one["name"], one["state"]) for one in stages] == [(name, "measured") for name in STAGES]
    assert load_transformer(finished / STAGES[-1] / "model").embed.weight.shape == (512, 32)
    started = {name: json.loads((finished / name / "run.json").read_bytes())["settings"] for name in STAGES}
    base = started["0-r1-zero"]["model"]
    assert [Path(started[name]["model"]).parent.name for name in ("2-reasoning-rl", "4-all-scenarios-rl")] == [
        "1-cold-start", "3-rejection-sampling",
    ]  # fmt: skip
    taught = {name: started[name] for name in ("1-cold-start", "3-rejection-sampling")}
    assert [one["model"] for one in taught.values()] == [base, base]  # the base learns again
    assert [Path(one["teacher"]).parent.name for one in taught.values()] == ["0-r1-zero", "2-reasoning-rl"]
    assert len({settings["seed"] for settings in started.values()}) == 5
    report = (finished / "report.md").read_text(encoding="utf-8")
    table = [line for line in report.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].strip("| ") for line in table[2:9]] == ["untrained", "0-r1-zero", *STAGES]
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and all(f"{name}/report.html" in page for name in STAGES)
    rows = read_metrics(finished / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5] and all("eval/readable" in row for row in rows)


@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the points are reached by forking")
def test_a_ladder_killed_in_every_stage_ends_like_an_unbroken_one_bit_for_bit(recipe, finished, tmp_path):
    out = tmp_path / "killed"
    done = subprocess.run([sys.executable, KILLS, recipe, out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    zero, cold, reasoning, rejection, final = STAGES
    assert json.loads(done.stdout) == [
        zero, zero, cold, cold, reasoning, reasoning, rejection, rejection, rejection, final, 0,
    ]  # fmt: skip
    for name in STAGES:
        weights = [(folder / name / "model/model.safetensors").read_bytes() for folder in (out, finished)]
        assert weights[0] == weights[1], name
    assert (out / "3-rejection-sampling/data.jsonl").read_bytes() == (
        finished / "3-rejection-sampling/data.jsonl"
    ).read_bytes()


def test_a_stage_is_done_anew_with_other_settings_and_what_it_left_is_kept(finished, recipe, tmp_path, capsys):
    out = tmp_path / "ladder"
    shutil.copytree(finished, out)
    words = ["r1", str(recipe), "--out", str(out), "--from-stage", "4", "--set", "all_scenarios_rl.steps=1"]
    assert run([*words, "--set", "reasoning_rl.lr=0.5"]) == 2
    assert "the settings of 2-reasoning-rl are not those it was made with" in capsys.readouterr().err
    assert run(words) == 0
    assert (out / "aside-1/4-all-scenarios-rl/model").is_dir() and (out / "aside-1/result.json").exists()
    assert json.loads((out / "4-all-scenarios-rl/run.json").read_bytes())["settings"]["steps"] == 1
    assert json.loads((out / "run.json").read_bytes())["settings"]["all_scenarios_rl"]["steps"] == 1
    before, after = ((folder / "4-all-scenarios-rl/model/model.safetensors") for folder in (finished, out))
    assert before.read_bytes() != after.read_bytes()
    assert run(["resume", str(out)]) == 0
    assert "4-all-scenarios-rl/model" in capsys.readouterr().out


def test_a_dry_run_says_the_plan_of_every_stage_and_writes_nothing(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["r1", str(recipe), "--minutes", "60", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert (
        list(tmp_path.iterdir()) == [] and said.count("plan: ") == 5 and all(f"\n{name}: " in said for name in STAGES)
    )
    assert "at most 19:12" in said  # R1-Zero's 8 parts of 25 of an hour


def test_a_ladder_from_files_has_no_stage_of_r1_zero_and_stops_where_it_is_told(recipe, tmp_path, capsys):
    data, out = tmp_path / "cold.jsonl", tmp_path / "ladder"
    data.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n} !"}) + "\n" for n in range(12)))
    words = ["r1", str(recipe), "--out", str(out), "--set", f"cold_start_data={json.dumps([str(data)])}"]
    assert run([*words, "--stop-after", "1"]) == 0
    assert json.loads((out / "1-cold-start/run.json").read_bytes())["verb"] == "sft"
    stages = json.loads((out / "ladder.json").read_bytes())["stages"]
    assert [(one["name"], one["state"]) for one in stages] == [
        ("1-cold-start", "measured"), *((name, "waiting") for name in STAGES[2:]),
    ]  # fmt: skip
    assert f"model   {out / '1-cold-start/model'}" in capsys.readouterr().out


WRONG = [
    (
        ["--set", "reasoning_rl.grup_size=4"],
        "unknown setting reasoning_rl.grup_size; did you mean reasoning_rl.group_size?",
    ),
    (["--set", "cold_start.filters.corect=true"], "did you mean cold_start.filters.correct?"),
    (["--set", "shares.asking=1.5"], "shares.asking = 1.5"),
    (["--set", "reasoning_rl.model=other"], "reasoning_rl.model is 'other': a ladder has one model"),
    (["--set", "rejection_sampling.lora.rank=4"], "rejection_sampling.lora: the next stage needs a model"),
    (["--set", "all_scenarios_rl.measure_n=4"], "all_scenarios_rl.measure_n: the ladder measures every stage"),
    (["--stop-after", "cold-strat"], "there is no stage 'cold-strat' in this ladder; did you mean 1-cold-start?"),
    (["--from-stage", "2"], "ladder is not a run: it has no run.json"),
    (["--set", 'general_prompts=["none.jsonl"]'], "reading none.jsonl: no such file"),
    (["--set", 'trained_r1_zero="none"'], "none"),
]


@pytest.mark.parametrize(("more", "said"), WRONG, ids=[" ".join(more) for more, _ in WRONG])
def test_a_wrong_setting_is_one_line_and_exit_code_2(more, said, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["r1", str(recipe), "--out", "ladder", "--offline", *more]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and os.listdir(tmp_path) == []
