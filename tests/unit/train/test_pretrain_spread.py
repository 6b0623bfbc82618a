"""Pretraining on two processes under torchrun: a killed rank is named, the run goes on, and nothing is left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smallpress.cli.main import run
from smallpress.parallel.checkpoint import read_whole
from smallpress.parallel.ranks import arranged
from smallpress.parallel.settings import Parallel
from smallpress.run.metrics import read_metrics
from smallpress.train.pretrain_run import open_pretrainer, settled
from smallpress.train.pretrain_settings import PretrainSettings

SPREAD = {"shard": 2, "expert": 2, "interface": "lo", "timeout_seconds": 200}

DYING = """
import os, signal, sys
from smallpress.cli.main import run
from smallpress.parallel.weights import SpreadWeights
step, left = SpreadWeights.step, [3]
def dying(*args):
    left[0] -= 1
    if left[0] < 0 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    step(*args)
SpreadWeights.step = dying
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def recipe(corpus, make_pretrainer) -> dict:
    """V3's shape in small; six steps of eight rows, a checkpoint after every second."""
    settings = make_pretrainer(save_every=2, eval_every=3, parallel=SPREAD).settings
    return settings.model_dump(mode="json")


@pytest.fixture(scope="module")
def killed(recipe, tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run under torchrun whose second process is killed in the fourth step, and what it left."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "dying.py").write_text(DYING)
    keys = [f"--set={key}={json.dumps(value)}" for key, value in flat(recipe) if value is not None]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [*torchrun, str(folder / "dying.py"), "pretrain", f"--out={folder / 'run'}", *keys]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr
    return done, folder


def flat(tree: dict, before: str = ""):
    """(a.b, value) of a nested mapping, as --set takes them."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def test_the_killed_rank_is_named_and_no_process_is_left(killed):
    done, folder = killed
    assert "exitcode: -9) local_rank: 1" in done.stderr
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.is_file()]
    assert not [command for command in commands if str(folder).encode() in command]


def test_only_the_first_rank_speaks(killed):
    done, _ = killed
    assert done.stderr.count("training in ") == 2  # it began, and began again
    assert done.stderr.count("going on from step 2") == 1
    assert len([line for line in done.stdout.splitlines() if line.startswith("step 6/6")]) == 1


def test_after_a_restart_the_run_is_the_unbroken_one(killed, recipe, corpus, on_two_ranks):
    """Every loss to the last bit, and weights that one process puts together."""
    _, folder = killed

    def job(_):
        settings = settled(PretrainSettings(**recipe), corpus)
        trainer = open_pretrainer(settings, corpus, arranged(Parallel(**SPREAD), "cpu", 1))
        return [trainer.step()[0]["loss"] for _ in range(6)]

    unbroken = on_two_ranks(job)[0]
    logged = [row["loss"] for row in read_metrics(folder / "run" / "metrics.jsonl") if "loss" in row]
    assert logged == unbroken


def test_one_process_goes_on_where_two_left_off(killed, recipe, make_pretrainer):
    _, folder = killed
    whole = read_whole(folder / "run/checkpoints/step-000006")
    one = make_pretrainer()
    one.load(folder / "run/checkpoints/step-000006", ["seconds"])
    assert one.n_done == 6
    for name, weight in one.weights.master.items():
        assert torch.equal(weight, whole[name]), name
    assert run(["resume", str(folder / "run")]) == 0  # finished: says so


def test_one_process_learns_the_same(recipe, make_pretrainer, killed):
    _, folder = killed
    one = make_pretrainer()
    logged = [row["loss"] for row in read_metrics(folder / "run" / "metrics.jsonl") if "loss" in row]
    assert logged == pytest.approx([one.step()[0]["loss"] for _ in range(6)], rel=1e-5)
