"""It learns, it meets every sample once an epoch, and killed anywhere it goes on as if nothing had been."""

import pytest
import torch

from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics
from smallpress.train.run import Run
from smallpress.train.trainer import Order
from smallpress.weights.checkpoint import load_checkpoint

LORA = {"rank": 4, "alpha": 8.0}


def quiet(*_):
    pass


def rows_of(path):
    clocks = ("seconds/", "minutes", "tokens_per_second")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in read_metrics(path / "metrics.jsonl")]


def arrays_of(path):
    checkpoint = load_checkpoint(RunFolder.open(path).checkpoints.newest().path)
    return {name: checkpoint.read(name) for name in checkpoint}


def test_every_epoch_meets_every_sample_once_in_an_order_of_its_own():
    order = Order(n_items=10, per_step=4, seed=3)
    assert order.n_steps(2.0) == 5
    met = [place for step in range(5) for place in order.at(step)]
    assert sorted(met[:10]) == sorted(met[10:]) == list(range(10)) and met[:10] != met[10:]
    assert order.at(3) == Order(10, 4, 3).at(3) != Order(10, 4, 4).at(3)


@pytest.mark.parametrize("lora", [None, LORA])
def test_it_learns_and_measures_what_is_held_out(make_trainer, lora):
    trainer = make_trainer(lora=lora, lr=3e-2 if lora else 1e-2, steps=40)
    first = trainer.step()[0]
    assert trainer.measure()["eval/loss"] == pytest.approx(trainer.measure()["eval/loss"], abs=0)
    for _ in range(39):
        last = trainer.step()[0]
    assert last["loss"] < (0.8 if lora else 0.6) * first["loss"]
    assert last["lr"] < 0.2 * trainer.settings.lr  # cosine


@pytest.mark.parametrize("killed_after", [1, 3])
@pytest.mark.parametrize(
    "more", [{}, {"backward": "int8"}, {"lora": LORA | {"base": None}}], ids=["whole", "int8", "adapters"]
)
def test_a_killed_run_ends_like_an_unbroken_one(make_trainer, tmp_path, more, killed_after):
    settings = {"steps": 4, "eval_every": 2, "save_every": 2} | more

    def kill(step, _):
        if step == killed_after:
            raise KeyboardInterrupt

    Run(RunFolder.create(tmp_path / "whole", {}), make_trainer(**settings)).go(quiet, quiet)
    with pytest.raises(KeyboardInterrupt):
        Run(RunFolder.create(tmp_path / "killed", {}), make_trainer(**settings)).go(kill, quiet)
    Run(RunFolder.open(tmp_path / "killed"), make_trainer(**settings)).go(quiet, quiet)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    ours, theirs = arrays_of(tmp_path / "killed"), arrays_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if "lora" in more:
        assert all(".a" in name or ".b" in name for name in ours)


def test_other_data_than_the_runs_are_refused(make_trainer, tmp_path):
    Run(RunFolder.create(tmp_path / "a", {}), make_trainer(steps=2)).go(quiet, quiet)
    other = make_trainer(steps=4)
    other.data_digest = "other"
    with pytest.raises(UserError, match="the data are not those the run was begun with"):
        Run(RunFolder.open(tmp_path / "a"), other).go(quiet, quiet)


def test_blocks_computed_twice_give_the_same_step(make_trainer):
    plain, again = make_trainer(), make_trainer(recompute=True)
    assert plain.step()[0]["grad_norm"] == again.step()[0]["grad_norm"]
    assert all(torch.equal(a, b) for a, b in zip(plain.tensors().values(), again.tensors().values(), strict=True))


def test_rising_held_out_loss_is_said(make_trainer, tmp_path):
    run = Run(RunFolder.create(tmp_path / "a", {}), make_trainer())
    said = [run.warnings({"skipped": 0.0, "eval/loss": loss}) for loss in (1.0, 0.5, 0.54, 0.56)]
    assert said[:3] == [[], [], []] and "rose from 0.500 to 0.560" in said[3][0]


def test_a_held_out_loss_that_rises_is_said_where_it_was_measured_and_nowhere_else(make_trainer, tmp_path):
    run = Run(RunFolder.create(tmp_path / "run", {}), make_trainer())
    seen = [{"eval/loss": 1.0}, {}, {"eval/loss": 1.05}, {}, {"eval/loss": 1.2}, {}]
    said = [run.warnings({"skipped": 0.0} | metrics) for metrics in seen]
    assert [len(sentences) for sentences in said] == [0, 0, 0, 0, 1, 0] and "from 1.000 to 1.200" in said[4][0]
