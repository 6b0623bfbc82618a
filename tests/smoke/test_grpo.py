"""smallpress grpo and smallpress resume, from the words to the exit code, on a model of some ten thousand weights."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smallpress.cli.main import run
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics

COMMAND = [sys.executable, "-m", "smallpress.cli.main"]
KILLS = Path(__file__).with_name("kills.py")


def newest_state(path: Path) -> dict:
    from smallpress.weights.checkpoint import load_checkpoint

    return load_checkpoint(RunFolder.open(path).checkpoints.newest().path).state


def edit(path: Path, change) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_recipe) -> Path:
    """A run of four steps that came to its end; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert run(["grpo", str(tiny_recipe), "--out", str(path)]) == 0
    return path


@pytest.fixture
def stopped(finished, tmp_path) -> Path:
    """The same run as a kill after its checkpoint of step 2 left it."""
    path = tmp_path / "stopped run"
    shutil.copytree(finished, path)
    shutil.rmtree(path / "checkpoints/step-000004")
    shutil.rmtree(path / "model")
    return path


def test_a_run_measures_trains_measures_again_and_says_what_it_gained(tiny_recipe, tmp_path):
    from smallpress.weights.load import load_transformer

    out = tmp_path / "my run"
    words = ["--out", out, "--steps", 2, "--set", "measure_n=4", "--set", "dtype=auto", "--offline"]
    done = subprocess.run([*COMMAND, "grpo", tiny_recipe, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("plan: ")
    assert f"training in {out}; Ctrl-C stops, smallpress resume {out} goes on\n" in done.stderr
    assert "seconds a step" in done.stderr and "peak memory" in done.stderr  # the plan beside what was measured
    step_1, step_2, *rest = done.stdout.splitlines()
    assert step_1.startswith("step 1/2  reward ") and step_1.endswith(" left")
    assert step_2.startswith("step 2/2  reward ") and "eval/accuracy" in step_2
    assert rest[-2:] == [f"report  {out / 'report.html'}", f"model   {out / 'model'}"]

    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [0, 1, 2]
    assert [file.name for file in sorted((out / "samples").iterdir())] == ["step-000001.jsonl", "step-000002.jsonl"]
    assert [item.name for item in (out / "checkpoints").iterdir()] == ["step-000002"]
    settings = json.loads((out / "run.json").read_bytes())["settings"]
    assert settings["steps"] == 2 and settings["dtype"] in ("bfloat16", "float32")  # what "auto" came to
    assert load_transformer(out / "model").embed.weight.shape == (512, 32)
    report = (out / "report.html").read_text()
    assert "<svg" in report and "What it gained" in report

    result = json.loads((out / "result.json").read_bytes())
    asked = {when: json.loads((out / f"{when}.json").read_bytes()) for when in ("before", "after")}
    before = asked["before"]["results"][asked["before"]["best"]]
    for when, measured in (("before", before), ("after", asked["after"])):
        accuracy = measured["overall"]["accuracy"]
        assert result[when] == accuracy | {
            "pass_at_1": accuracy["value"],
            "template": measured["form"],
            "extraction": measured["reading"],
        }
        assert 0 <= result[when]["low"] <= result[when]["pass_at_1"] <= result[when]["high"] <= 1
        assert result[when]["n"] == 4
    assert 0 < result["seconds"] == pytest.approx(newest_state(out)["seconds"] + asked["after"]["seconds"], abs=0.1)


def test_a_dry_run_takes_a_step_and_writes_nothing(tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["grpo", str(tiny_recipe), "--minutes", "2", "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().out
    assert "one step took" in said and "4 steps would take" in said and "steps fit in 2 minutes" in said


def test_gradients_in_8_bits_are_a_setting_that_the_run_keeps(tiny_recipe, tmp_path):
    path = tmp_path / "run"
    assert run(["grpo", str(tiny_recipe), "--out", str(path), "--steps", "1", "--set", "backward=int8"]) == 0
    assert RunFolder.open(path).settings["backward"] == "int8"
    assert read_metrics(path / "metrics.jsonl")[-1]["grad_norm"] > 0


WRONG = [
    (["--set", "grup_size=4"], "unknown setting grup_size; did you mean group_size?"),
    (["--set", "lr=fast"], "lr = 'fast'"),
    (["--set", "lr"], "'lr' is not of the form key.sub=value"),
    (["--set", "group_size=1"], "group_size = 1"),
    (["--set", 'tasks=["chained_som:2"]'], "did you mean chained_sum?"),
    (["--set", 'eval_tasks=["product:99"]'], "'product:99' names no level of product"),
    (["--set", "rewards={acuracy=1.0}"], "there is no reward part 'acuracy'; did you mean accuracy?"),
    (["--set", "form=r2"], "form = 'r2'"),
    (["--steps", "0"], "steps = 0"),
    (["--steps", "many"], "many"),
    (["--minutes", "nan"], "minutes = "),
    (["--minutes", "-1"], "minutes = -1.0"),
    (["--model", "./no-such-model"], "./no-such-model does not exist"),
    (["--model", 'no "such" model'], 'no "such" model does not exist'),
    (["--model", "smolm2-135m"], "did you mean smollm2-135m"),
    (["--out", "recipe.toml/run"], "recipe.toml"),
    (["--out", "."], "is not empty; choose a new name, or continue that run: smallpress resume"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_wrong_setting_is_one_line_and_exit_code_2(words, said, tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMALLPRESS_HOME", str(tmp_path / "home"))
    shutil.copy(tiny_recipe, "recipe.toml")
    assert run(["grpo", "recipe.toml", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert [item.name for item in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"model = \n", "mend the recipe's TOML"),
        (b'model = "a\xff"\n', "is not UTF-8"),
        (b'model = "tiny"\nsteps = 3\n', "tasks is missing"),
        (b'model = "tiny"\ntasks = ["product:1"]\n', "the run has no end"),
        (b'[model]\nname = "tiny"\n', "model = {'name': 'tiny'}"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_exit_code_2(content, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("recipe.toml").write_bytes(content)
    assert run(["grpo", "recipe.toml"]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not Path("runs").exists()


def test_a_wrong_setting_is_told_before_torch_is_imported():
    program = "import sys; sys.modules['torch'] = None; from smallpress.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "grpo", "--set", "sead=1"], capture_output=True, text=True)
    assert done.returncode == 2 and "unknown setting sead (and 2 more); did you mean seed?" in done.stderr


def after_plan(stderr: str) -> list[str]:
    """What a run says after its plan, a line with further ones indented, and after where it is."""
    plan, *said = stderr.splitlines()
    assert plan.startswith("plan: ")
    return [line for line in said if not line.startswith((" ", "training in "))]


def test_ctrl_c_is_one_line_and_resume_goes_on(tiny_recipe, tmp_path, capfd):
    out = tmp_path / "run"
    command = [*COMMAND, "grpo", str(tiny_recipe), "--out", str(out), "--steps", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as going:
        for line in going.stdout:
            if line.startswith("step  3/30"):
                going.send_signal(signal.SIGINT)
        assert going.wait() == 130
        assert after_plan(going.stderr.read()) == ["smallpress: interrupted"]
    assert run(["resume", str(out)]) == 0
    assert "going on from step " in capfd.readouterr().err
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == list(range(31))


ALL_STATE = """
steps = 6
measure_n = 2
algorithm = "dapo"
beta = 0.01
ref_reset_every = 3
target_entropy = 7.0
"""
"""What adds to a run's state: rounds of sampling, a reference that moves, a temperature that rises."""


@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the points are reached by forking")
def test_a_run_killed_anywhere_ends_like_an_unbroken_one_bit_for_bit(tiny_recipe, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tiny_recipe.read_text(encoding="utf-8").replace("\nsteps = 4\n", ALL_STATE), encoding="utf-8")
    done = subprocess.run([sys.executable, KILLS, recipe, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["n_kills"] >= 80, found


def test_a_finished_run_says_so_and_is_left_as_it_is(finished, capsys):
    def state():
        return {item: item.stat().st_mtime_ns for item in finished.rglob("*") if item.name != "report.html"}

    before = state()
    assert run(["resume", str(finished)]) == 0
    assert capsys.readouterr().out.startswith(f"{finished} is finished\n\nreport  ")
    assert {item for item, when in state().items() if before.get(item) != when} <= {finished, finished / ".lock"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no-run is not a run: it has no run.json; give the folder of a run"),
        (lambda path: path.mkdir(), "no-run is not a run: it has no run.json"),
        (lambda path: path.write_text("a file"), "no-run is not a run"),
        (lambda path: [path.mkdir(), (path / "run.json").write_text('{"settings": {')], "run.json is damaged"),
        (lambda path: [path.mkdir(), (path / "run.json").write_text('{"settings": {}, "keep": 2}')], "is missing"),
    ],
    ids=["missing", "empty", "a file", "damaged", "of nothing"],
)
def test_what_is_no_run_cannot_be_resumed(make, said, tmp_path, capsys):
    make(tmp_path / "no-run")
    assert run(["resume", str(tmp_path / "no-run")]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(finished, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    shutil.rmtree(path / "model")
    damaged = path / "checkpoints/step-000004/tensors.safetensors"
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert run(["resume", str(path)]) == 0
    said = capsys.readouterr().err
    assert f"{damaged} is damaged" in said and "going on from step 2\n" in said
    assert damaged.read_bytes() == good
    for name in ("model/model.safetensors", "samples/step-000004.jsonl"):
        assert (path / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_without_a_whole_checkpoint_says_which_file_is_damaged(stopped, capsys):
    (stopped / "checkpoints/step-000002/state.json").unlink()
    assert run(["resume", str(stopped)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "no checkpoint is whole" in said and "state.json is missing; start the run again in a new folder" in said


def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_stands(stopped, finished, capsys, monkeypatch):
    from smallpress.weights import checkpoint

    def save_to_full_disk(*arguments):
        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            save(*arguments)

    save = checkpoint.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", save_to_full_disk)
        assert run(["resume", str(stopped)]) == 2
    *said, fault = after_plan(capsys.readouterr().err)
    assert "no space left on device; free some space" in fault
    assert said == ["going on from step 2"]
    assert [item.name for item in (stopped / "checkpoints").iterdir()] == ["step-000002"]
    assert run(["resume", str(stopped)]) == 0
    assert newest_state(stopped)["curriculum"] == newest_state(finished)["curriculum"]
    assert (stopped / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("version", "said"),
    [("0.0.9", "was begun with smallpress 0.0.9, this is 0.1.0"), ("0.1.0", "known: algorithm, backward, beta,")],
)
def test_settings_of_another_version_are_one_line(version, said, stopped, capsys):
    def change(record):
        record["settings"]["flavour"] = "sweet"
        record["versions"]["smallpress"] = version

    edit(stopped / "run.json", change)
    assert run(["resume", str(stopped)]) == 2
    captured = capsys.readouterr().err
    assert "run.json: unknown setting flavour; " in captured and said in captured and captured.count("\n") == 1


def rewrite_checkpoint(path: Path, change) -> None:
    """`change` its tensors and its state, and seal it again."""
    from smallpress.weights.checkpoint import load_checkpoint, save_checkpoint

    old = load_checkpoint(path)
    tensors, state = {name: old.read(name) for name in old}, dict(old.state)
    change(tensors, state)
    shutil.rmtree(path)
    save_checkpoint(path, tensors, state)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, state: state.pop("temperature"), "has no temperature; go on with the smallpress that wrote"),
        (lambda tensors, state: tensors.pop("weights/norm.weight"), "of another model: weights/norm.weight differs"),
        (
            lambda tensors, state: tensors.update({"weights/norm.weight": tensors["weights/norm.weight"][:-1]}),
            "of another model: weights/norm.weight differs; restore the run's model",
        ),
    ],
    ids=["state", "tensor", "shape"],
)
def test_a_checkpoint_of_something_else_is_one_line(change, said, stopped, capsys):
    rewrite_checkpoint(stopped / "checkpoints/step-000002", change)
    assert run(["resume", str(stopped)]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_minutes_go_on_from_where_the_checkpoint_left_them(stopped, finished, tmp_path, capsys):
    """1000 minutes: a run that has used them up takes no further step, one that has 900 left takes the other two."""
    edit(stopped / "run.json", lambda record: record["settings"].update(minutes=1000.0))
    for used, last_step in ((60_000.0, 2), (6_000.0, 4)):
        path = tmp_path / str(used)
        shutil.copytree(stopped, path)
        rewrite_checkpoint(
            path / "checkpoints/step-000002", lambda tensors, state, used=used: state.update(seconds=used)
        )
        began = time.perf_counter()
        assert run(["resume", str(path)]) == 0
        assert newest_state(path)["n_done"] == last_step
        assert used <= newest_state(path)["seconds"] <= used + time.perf_counter() - began
        assert read_metrics(path / "metrics.jsonl")[-1]["step"] == last_step


def test_a_run_whose_minutes_the_measuring_takes_says_that_nothing_was_trained(tiny_recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(["grpo", str(tiny_recipe), "--out", str(out), "--minutes", "1e-6"]) == 0
    assert "no step fits into 1e-06 minutes: nothing was trained" in capsys.readouterr().err
    assert (out / "model").is_dir() and newest_state(out)["n_done"] == 0


FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
[ "$1" != "${FAILS:-}" ]
"""


@pytest.fixture
def demo(tmp_path):
    """runs/demo.sh with a smallpress that only writes down how it was called; what it was called with."""
    fake, calls = tmp_path / "bin/smallpress", tmp_path / "calls"
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)
    script = Path(__file__).parents[2] / "runs/demo.sh"
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"

    def call(**environment) -> tuple[int, list[str]]:
        calls.write_text("")
        done = subprocess.run(
            ["bash", script], env=os.environ | {"PATH": path, "CALLS": str(calls)} | environment, capture_output=True
        )
        return done.returncode, calls.read_text().splitlines()

    return call


def test_the_demo_begins_goes_on_and_begins_anew(demo, tmp_path):
    out = tmp_path / "a demo"
    begin = f"grpo recipes/demo.toml --minutes 15 --seed 0 --out {out}"
    assert demo(OUT=str(out)) == (0, ["pull smollm2-135m", begin])
    assert demo(OUT=str(out), MINUTES="3", SEED="7")[1][1] == f"grpo recipes/demo.toml --minutes 3 --seed 7 --out {out}"
    out.mkdir()
    (out / "run.json").touch()
    assert demo(OUT=str(out)) == (0, ["pull smollm2-135m", f"resume {out}"])
    (out / "result.json").touch()
    assert demo(OUT=str(out)) == (0, ["pull smollm2-135m", begin])
    assert not out.exists()
    (aside,) = tmp_path.glob("a demo-*")
    assert sorted(item.name for item in aside.iterdir()) == ["result.json", "run.json"]


@pytest.mark.parametrize(("fails", "n_calls"), [("pull", 1), ("grpo", 2)])
def test_the_demo_stops_at_the_first_failure(fails, n_calls, demo, tmp_path):
    code, calls = demo(OUT=str(tmp_path / "run"), FAILS=fails)
    assert code == 1 and len(calls) == n_calls
