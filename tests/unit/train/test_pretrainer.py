"""A model made from nothing learns and keeps its experts even, and neither a kill nor a spike changes what comes."""

import math

import pytest
import torch

from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics
from smallpress.train import pretrain_run
from smallpress.train.pretrain_run import PretrainLoop
from smallpress.weights.checkpoint import load_checkpoint


def quiet(*_):
    pass


def rows_of(path):
    clocks = ("seconds/", "minutes", "tokens_per_second")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in read_metrics(path / "metrics.jsonl")]


def checkpoint_of(path):
    return load_checkpoint(RunFolder.open(path).checkpoints.newest().path)


def run(path, trainer, on_step=quiet, say=quiet):
    folder = RunFolder.open(path) if (path / "run.json").exists() else RunFolder.create(path, {})
    PretrainLoop(folder, trainer).go(on_step, say)
    return trainer


def poisoned(trainer, steps):
    """The loss of these steps is no number; which they are is a matter of the step alone."""
    accumulate = trainer.objective.accumulate

    def spoilt(model, rows, step):
        log = accumulate(model, rows, step)
        return log | {"loss": math.nan} if step in steps else log

    trainer.objective.accumulate = spoilt
    return trainer


def test_it_learns_looks_further_and_says_how_even_its_experts_are(make_pretrainer):
    trainer = make_pretrainer(steps=30, lr=2e-2)
    before = trainer.measure()
    first = trainer.step()[0]
    for _ in range(29):
        last = trainer.step()[0]
    after = trainer.measure()
    assert after["eval/loss"] < 0.7 * before["eval/loss"] and last["loss/mtp1"] < 0.8 * first["loss/mtp1"]
    assert after["eval/bits_per_byte"] / before["eval/bits_per_byte"] == pytest.approx(
        after["eval/loss"] / before["eval/loss"]
    )
    assert 0 < last["load/entropy"] <= 1 <= last["load/max_over_mean"] and last["loss/balance"] > 0
    assert (first["tokens"], last["tokens/seen"]) == (128, 30 * 128)
    assert last["lr"] == pytest.approx(2e-3)  # 29 of 30 steps: past the cosine


EMA_AND_HOLES = {"ema": 0.9, "fim_rate": 0.5, "mask_documents": True, "optimizer": "adamw8"}


@pytest.mark.parametrize("more", [{}, EMA_AND_HOLES], ids=["plain", "all at once"])
@pytest.mark.parametrize("killed_after", [1, 5])
def test_a_killed_run_ends_like_an_unbroken_one(make_pretrainer, tmp_path, more, killed_after):
    settings = {"eval_every": 3, "save_every": 2, "first_batch_tokens": 32, "ramp_tokens": 400, **more}

    def kill(step, _):
        if step == killed_after:
            raise KeyboardInterrupt

    run(tmp_path / "whole", make_pretrainer(**settings))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", make_pretrainer(**settings), kill)
    run(tmp_path / "killed", make_pretrainer(**settings))
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    ours, theirs = checkpoint_of(tmp_path / "killed"), checkpoint_of(tmp_path / "whole")
    names = set(theirs)
    assert set(ours) == names and all(torch.equal(ours.read(name), theirs.read(name)) for name in names)
    assert any("expert_bias" in name for name in names) and any(n.startswith("average/") for n in names) == (
        "ema" in more
    )


def test_steps_in_which_the_loss_is_no_number_are_skipped_and_said(make_pretrainer, tmp_path):
    said = []
    trainer = run(tmp_path / "a", poisoned(make_pretrainer(), {2}), say=said.append)
    assert [row["skipped"] for row in rows_of(tmp_path / "a")[1:]] == [0, 0, 1, 0, 0, 0]
    assert trainer.n_skipped == 1 and any(sentence.startswith("step 3: skipped") for sentence in said)
    assert all(torch.isfinite(parameter).all() for parameter in trainer.weights.master.values())


@pytest.mark.parametrize("killed_after", [None, 6])
def test_skipped_too_often_the_weights_return_and_the_data_go_on(make_pretrainer, tmp_path, killed_after):
    settings = {"steps": 8, "save_every": 3, "roll_back_after": 2, "ema": 0.5}

    def kill(step, _):
        if step == killed_after:
            raise KeyboardInterrupt

    path = tmp_path / "run"
    if killed_after:
        with pytest.raises(KeyboardInterrupt):
            run(path, poisoned(make_pretrainer(**settings), {4, 5}), kill)
    said = []
    trainer = run(path, poisoned(make_pretrainer(**settings), {4, 5}), say=said.append)
    assert [row["rolled_back"] for row in rows_of(path)[1:]] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert (trainer.n_done, trainer.n_rolled_back, trainer.n_skipped) == (8, 1, 2)

    # The weights of step 3, and the rows of steps 7 and 8.
    other = make_pretrainer(**settings)
    for _ in range(3):
        other.step()
    other.n_done = 6
    other.step(), other.step()
    assert all(torch.equal(a, b) for a, b in zip(trainer.tensors().values(), other.tensors().values(), strict=True))


def test_without_a_checkpoint_it_returns_to_its_beginning_and_gives_up_where_that_never_helps(
    make_pretrainer, tmp_path
):
    trainer = poisoned(make_pretrainer(steps=20, roll_back_after=2), set(range(2, 20)))
    with pytest.raises(UserError, match=r"no step could be taken after 3 returns.*a lower lr"):
        run(tmp_path / "a", trainer)
    fresh = make_pretrainer(steps=20)
    assert all(torch.equal(trainer.weights.master[name], fresh.weights.master[name]) for name in fresh.weights.master)


def test_another_corpus_than_the_runs_is_refused(make_pretrainer, tmp_path):
    run(tmp_path / "a", make_pretrainer(steps=1))
    other = make_pretrainer(steps=2)
    other.data_digest = "other"
    with pytest.raises(UserError, match="the data are not those the run was begun with"):
        run(tmp_path / "a", other)


@pytest.mark.parametrize(
    ("arithmetic", "dtype"),
    [("bfloat16", "auto"), ("int8", "float32"), ("int8", "bfloat16"), ("fp8", "float32"), ("fp8", "bfloat16")],
)
def test_in_fewer_bits_the_first_step_is_nearly_the_same(make_pretrainer, arithmetic, dtype):
    exact, coarse = make_pretrainer().step()[0], make_pretrainer(arithmetic=arithmetic, dtype=dtype).step()[0]
    assert coarse["loss"] == pytest.approx(exact["loss"], rel=0.01) and coarse["loss"] != exact["loss"]
    assert coarse["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)


def test_beside_8_bits_the_faster_dtype_is_written_down(make_pretrainer, monkeypatch):
    for faster in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(
            pretrain_run, "compute_dtype", lambda choice, faster=faster: {"auto": faster}.get(choice, torch.float32)
        )
        trainer = make_pretrainer(arithmetic="int8")
        assert trainer.settings.dtype == str(faster).removeprefix("torch.")
        assert trainer.weights.dtype == faster
    assert make_pretrainer(arithmetic="bfloat16").settings.dtype == "bfloat16"
    with pytest.raises(ValueError, match="dtype=float32 is of what 8 bits leave out"):
        make_pretrainer(arithmetic="bfloat16", dtype="float32")


def test_micro_batches_and_blocks_computed_twice_change_nothing_but_the_rounding(make_pretrainer):
    logs = [make_pretrainer(**more).step()[0] for more in ({}, {"micro_batch_tokens": 1000}, {"recompute": True})]
    for name in ("loss", "loss/mtp1", "loss/balance", "load/entropy", "grad_norm"):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=1e-5) and logs[2][name] == logs[0][name]
