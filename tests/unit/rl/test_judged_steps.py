"""Steps whose rewards come from judges too: of tasks, of prompts that nothing can check, and of none that failed."""

import math

import pytest
import torch

from smallpress.rl.general import GENERAL
from smallpress.rl.run import Run
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics
from smallpress.tasks.example import Example
from smallpress.weights.checkpoint import load_checkpoint

PROMPTS = [Example(f"say {n}", "", GENERAL, 0, str(n), {}) for n in range(3)]
BOTH = {"helpfulness": {"by": "m", "weight": 0.5}, "harmlessness": {"by": "m", "scale": "raw"}}


class ShareOfNines:
    """A text's share of words that are 9; no score where `fails` says so."""

    bounded = True

    def __init__(self, fails=lambda answer: False):
        self.fails, self.n = fails, 0

    def scores(self, asked):
        self.n += len(asked)
        return [
            math.nan if self.fails(answer) else answer.split().count("9") / len(answer.split()) for _, answer in asked
        ]


def test_the_reward_is_rules_and_judges_weighed(make_trainer):
    metrics, groups = make_trainer(judge=ShareOfNines(), **BOTH).step()
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        parts = rollout.parts
        wanted = parts["accuracy"] + 0.5 * parts["helpfulness"] + parts["harmlessness"]
        assert rollout.reward == pytest.approx(wanted)
    for name in BOTH:
        assert 0 < metrics[f"rewards/{name}/mean"] < 1 and metrics[f"judges/{name}/failed"] == 0.0
    assert metrics["seconds/judging"] > 0


def test_what_nothing_can_check_is_rewarded_by_judges_and_has_no_accuracy_at_all(make_trainer):
    trainer = make_trainer(judge=ShareOfNines(), general=PROMPTS, prompts="p", prompts_share=0.5, **BOTH)
    metrics, groups = trainer.step()
    kinds = [group.example.family for group in groups]
    assert kinds == ["addition"] * 2 + [GENERAL] * 2
    for group in groups:
        for rollout in group.rollouts:
            assert ("accuracy" in rollout.parts) == (rollout.correct is not None) == (group.example.family != GENERAL)
    checked = [rollout for group in groups[:2] for rollout in group.rollouts]
    assert metrics["accuracy"] == metrics["rewards/accuracy/mean"] == sum(r.correct for r in checked) / len(checked)
    assert set(trainer.curriculum.accuracy) == {("addition", 2)}


def test_a_step_of_general_prompts_alone_trains(make_trainer):
    trainer = make_trainer(judge=ShareOfNines(), general=PROMPTS, prompts="p", prompts_share=1.0, **BOTH)
    metrics, _ = trainer.step()
    assert math.isnan(metrics["accuracy"]) and "rewards/accuracy/mean" not in metrics and metrics["grad_norm"] > 0


def test_judges_and_their_prompts_come_in_at_their_step(make_trainer):
    judge = ShareOfNines()
    trainer = make_trainer(judge=judge, general=PROMPTS, prompts="p", judges_from_step=1, **BOTH)
    metrics, groups = trainer.step()
    assert judge.n == 0 and not any(group.general for group in groups) and "rewards/helpfulness/mean" not in metrics
    metrics, groups = trainer.step()
    assert judge.n == 2 * 32 and sum(group.general for group in groups) == 1 and "rewards/helpfulness/mean" in metrics


def test_a_failed_judge_costs_its_group_and_raises_an_alarm(make_trainer):
    def fails(answer):
        return answer.startswith(("17", "31"))

    trainer = make_trainer(judge=ShareOfNines(fails), prompts_per_step=8, helpfulness="m")
    metrics, groups = trainer.step()
    lost = [any(fails(rollout.text) for rollout in group.rollouts) for group in groups]
    assert 0 < metrics["skipped_groups"] == sum(lost) < len(groups)
    assert math.isfinite(metrics["reward"]) and math.isfinite(metrics["rewards/helpfulness/mean"])
    n_failed = sum(fails(rollout.text) for group in groups for rollout in group.rollouts)
    assert metrics["judges/helpfulness/failed"] == pytest.approx(n_failed / 64)
    assert any("the judge of helpfulness failed to score" in sentence for sentence in trainer.alarms.check(metrics))


def test_a_judge_alone_teaches_what_it_likes(make_trainer):
    trainer = make_trainer(judge=ShareOfNines(), general=PROMPTS, prompts="p", prompts_share=1.0, helpfulness="m")
    rewards = [trainer.step()[0]["rewards/helpfulness/mean"] for _ in range(12)]
    assert rewards[-1] > 0.5 > 5 * rewards[0]


def test_a_killed_run_with_judges_ends_like_an_unbroken_one(make_trainer, tmp_path):
    given = {"judge": ShareOfNines(), "general": PROMPTS, "prompts": "p", "steps": 4, "save_every": 2, **BOTH}

    def kill(step, _):
        if step == 3:
            raise KeyboardInterrupt

    def go(path, trainer, on_step):
        Run(path, trainer, lambda: {"eval/accuracy": 0.5}).go(on_step, lambda *_: None)

    go(RunFolder.create(tmp_path / "unbroken", {}), make_trainer(**given), lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        go(RunFolder.create(tmp_path / "killed", {}), make_trainer(**given), kill)
    go(RunFolder.open(tmp_path / "killed"), make_trainer(model_seed=9, **given), lambda *_: None)
    rows, arrays = [], []
    for name in ("unbroken", "killed"):
        folder = RunFolder.open(tmp_path / name)
        rows.append([row["rewards/helpfulness/mean"] for row in read_metrics(folder.metrics)[1:]])
        checkpoint = load_checkpoint(folder.checkpoints.newest().path)
        arrays.append({key: checkpoint.read(key) for key in checkpoint})
    assert rows[0] == rows[1] and len(rows[0]) == 4
    assert all(torch.equal(arrays[0][key], arrays[1][key]) for key in arrays[0])
