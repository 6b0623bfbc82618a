"""A run in its folder: killed anywhere, it goes on as if nothing had been."""

import json

import pytest
import torch

from smallpress.optim.adamw8 import AdamW8
from smallpress.optim.compute_dtype import compute_dtype
from smallpress.rl.run import Run
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics
from smallpress.weights.checkpoint import load_checkpoint

SETTINGS = {"steps": 5, "eval_every": 2, "save_every": 2, "samples_every": 2, "prompts_per_step": 2}


class AdamW8From512(AdamW8):
    """Moments in 8 bits for the matrices of a tiny model too."""

    def __init__(self, params, **options):
        super().__init__(params, min_8bit_size=512, **options)


class Measured:
    """Counts how often it was asked; the accuracy it gives is that count."""

    def __init__(self):
        self.n = 0

    def __call__(self):
        self.n += 1
        return {"eval/accuracy": float(self.n)}


def quiet(*_):
    pass


def rows_of(path):
    clocks = ("seconds/", "minutes")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in read_metrics(path / "metrics.jsonl")]


def final_arrays(path):
    newest = RunFolder.open(path).checkpoints.newest()
    checkpoint = load_checkpoint(newest.path)
    return newest.step, {name: checkpoint.read(name) for name in checkpoint}


def whole_run(make_trainer, path):
    Run(RunFolder.create(path, {}), make_trainer(**SETTINGS), Measured()).go(quiet, quiet)


def test_a_run_measures_writes_samples_and_saves_when_it_should(make_trainer, tmp_path):
    seen = []
    run = Run(RunFolder.create(tmp_path / "a", {}), make_trainer(**SETTINGS), Measured())
    run.go(lambda step, metrics: seen.append(step), quiet)
    assert seen == [1, 2, 3, 4, 5]
    rows = rows_of(tmp_path / "a")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [0, 2, 4, 5]  # the first, every second, the last
    samples = sorted((tmp_path / "a/samples").iterdir())
    assert [file.name for file in samples] == ["step-000001.jsonl", "step-000002.jsonl", "step-000004.jsonl"]
    sample = json.loads(samples[0].read_text().splitlines()[0])
    assert sample["family"] == "addition" and sample["reward"] == max(sample["rewards"].values())
    step, tensors = final_arrays(tmp_path / "a")
    assert step == 5 and tensors["adamw/step/norm.weight"].shape == ()


@pytest.mark.parametrize("killed_after", [1, 3, 4])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8"])
def test_a_killed_run_ends_like_an_unbroken_one(make_trainer, tmp_path, monkeypatch, optimizer, killed_after):
    monkeypatch.setattr("smallpress.optim.master.AdamW8", AdamW8From512)
    settings = SETTINGS | {"optimizer": optimizer}

    def kill(step, _):
        if step == killed_after:
            raise KeyboardInterrupt

    def measure():
        return {"eval/accuracy": 0.5}

    Run(RunFolder.create(tmp_path / "unbroken", {}), make_trainer(**settings), measure).go(quiet, quiet)
    with pytest.raises(KeyboardInterrupt):
        Run(RunFolder.create(tmp_path / "killed", {}), make_trainer(**settings), measure).go(kill, quiet)
    said, saved = [], killed_after // 2 * 2
    trainer = make_trainer(**settings, model_seed=9 if saved else 0)
    Run(RunFolder.open(tmp_path / "killed"), trainer, measure).go(quiet, said.append)
    assert said[:1] == ([f"going on from step {saved}"] if saved else [])
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "unbroken")
    (step, ours), (last, theirs) = final_arrays(tmp_path / "killed"), final_arrays(tmp_path / "unbroken")
    assert any(tensor.dtype == torch.uint8 for tensor in ours.values()) == (optimizer == "adamw8")
    assert step == last == 5 and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_run_does_nothing_more(make_trainer, tmp_path):
    whole_run(make_trainer, tmp_path / "a")
    before = rows_of(tmp_path / "a")
    Run(RunFolder.open(tmp_path / "a"), make_trainer(**SETTINGS), Measured()).go(pytest.fail, quiet)
    assert rows_of(tmp_path / "a") == before


def test_a_checkpoint_of_other_settings_or_another_version_is_refused_by_name(make_trainer, tmp_path):
    whole_run(make_trainer, tmp_path / "a")
    with pytest.raises(UserError, match=r"reference/embed\.weight differs"):
        Run(RunFolder.open(tmp_path / "a"), make_trainer(**SETTINGS, beta=0.1), Measured()).go(pytest.fail, quiet)
    newer = make_trainer(**SETTINGS)
    state = newer.state()
    newer.state = lambda: state | {"mood": 1}
    with pytest.raises(UserError, match="step-000005 has no mood; go on with the smallpress that wrote it"):
        Run(RunFolder.open(tmp_path / "a"), newer, Measured()).go(pytest.fail, quiet)


def test_minutes_hold_what_went_before_and_what_must_come_after(make_trainer, tmp_path):
    """One minute, 30 seconds used, 30 to be kept: no step is left, and the state is saved all the same."""
    trainer = make_trainer(**(SETTINGS | {"minutes": 1.0}))
    run = Run(RunFolder.create(tmp_path / "a", {}), trainer, Measured(), used=30.0, reserve=30.0)
    run.go(pytest.fail, quiet)
    assert final_arrays(tmp_path / "a")[0] == 0
    roomy = make_trainer(**(SETTINGS | {"minutes": 1.0, "steps": None}))
    assert not Run(RunFolder.open(tmp_path / "a"), roomy, Measured(), used=20.0, reserve=30.0).over


def test_alarms_reach_the_person(make_trainer, tmp_path):
    trainer, said = make_trainer(**SETTINGS), []
    trainer.alarms.check = lambda metrics: ["something is wrong"]
    Run(RunFolder.create(tmp_path / "a", {}), trainer, Measured()).go(quiet, said.append)
    assert said == [f"step {step}: something is wrong" for step in range(1, 6)]


def test_the_dtype_is_the_chosen_one_or_what_this_machine_multiplies_faster():
    assert compute_dtype("bfloat16") is torch.bfloat16 and compute_dtype("float32") is torch.float32
    assert compute_dtype("auto") in (torch.bfloat16, torch.float32)
