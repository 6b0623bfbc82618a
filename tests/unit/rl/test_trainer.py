"""A step in all its cases: what it trains on, what it skips, what it logs, when it ends."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from smallpress.rl.reward import PARTS
from smallpress.rl.trainer import MAX_ROUNDS
from smallpress.tasks.example import Verdict

ALWAYS = {
    *("reward", "reward_std", "accuracy", "frac_reward_zero_std", "rewards/accuracy/mean", "n_prompts"),
    *("completions/mean_length", "completions/max_length", "completions/clipped_ratio", "completions/repeated_share"),
    *("n_levels_open", "skipped_groups", "temperature", "grad_norm", "seconds/rollout", "seconds/update"),
}
TRAINED = {
    *("loss", "entropy", "lr", "skipped", "clip_ratio/low_mean", "clip_ratio/high_mean"),
    *("sampling/logp_difference/mean", "sampling/importance_ratio/mean"),
}


class AllAlike:
    """A task on which every answer is right, or none."""

    name, levels = "addition", (2, 3)

    def __init__(self, other, correct):
        self.other, self.correct = other, correct

    def examples(self, split, seed, level):
        return self.other.examples(split, seed, level)

    def check(self, example, completion, reading="strict", opened=False):
        return Verdict(self.correct, None, well_formed=False, reason="")


@pytest.fixture
def agreeing(make_trainer):
    """A trainer whose groups all agree: every answer is right, or every one wrong."""

    def make(correct, **given):
        trainer = make_trainer(**given)
        trainer.tasks = {"addition": AllAlike(trainer.tasks["addition"], correct)}
        return trainer

    return make


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.weights.tensors() if name.startswith("weights/")}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_logs_what_it_did(make_trainer):
    metrics, groups = make_trainer().step()
    assert metrics.keys() == ALWAYS | TRAINED
    assert all(math.isfinite(value) for value in metrics.values())
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert len(groups) == metrics["n_prompts"] == 4 and len(rollouts) == 32
    assert metrics["reward"] == metrics["accuracy"] == sum(rollout.correct for rollout in rollouts) / 32
    assert metrics["completions/max_length"] == max(len(rollout.completion.ids) for rollout in rollouts) <= 4
    assert metrics["skipped"] == 0.0 and metrics["lr"] == 1e-2


def test_the_policy_under_training_is_the_one_that_answered(make_trainer):
    """In the first update every ratio is 1, and the trainer's log-probabilities are the sampler's up to rounding."""
    trainer = make_trainer(temperature=0.7)
    for _ in range(3):
        metrics, _ = trainer.step()
        assert metrics["sampling/logp_difference/mean"] < 1e-5
        assert metrics["sampling/importance_ratio/mean"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["clip_ratio/low_mean"] == metrics["clip_ratio/high_mean"] == 0.0


def test_the_reward_is_the_weighted_sum_of_its_parts(make_trainer):
    metrics, groups = make_trainer(rewards={"accuracy": 1.0, "format": 0.5}).step()
    for group in groups:
        for rollout in group.rollouts:
            assert rollout.reward == rollout.parts["accuracy"] + 0.5 * rollout.parts["format"]
    assert metrics["reward"] == pytest.approx(metrics["rewards/accuracy/mean"] + 0.5 * metrics["rewards/format/mean"])


def test_a_stop_id_is_trained_on_and_does_not_reach_the_checker(make_trainer):
    _, groups = make_trainer(group_size=32, max_tokens=12).step()
    stopped = [r for group in groups for r in group.rollouts if r.completion.finish_reason == "stop"]
    assert stopped
    for rollout in stopped:
        assert rollout.completion.ids[-1] == 0 and "0" not in rollout.text.split()
        assert len(rollout.completion.logprobs) == len(rollout.completion.ids)


def test_groups_that_agree_are_left_out(make_trainer, monkeypatch):
    trainer, seen = make_trainer(), []
    monkeypatch.setattr(trainer, "_update", lambda groups: seen.extend(groups) or {})
    _, groups = trainer.step()
    kinds = Counter(group.degenerate for group in groups)
    assert kinds[True] and kinds[False]  # this seed shows both
    assert seen == [group for group in groups if not group.degenerate]


@pytest.mark.parametrize("correct", [True, False])
def test_a_step_on_which_all_agree_changes_nothing_but_the_count(agreeing, correct):
    trainer = agreeing(correct)
    before = weights_of(trainer)
    metrics, _ = trainer.step()
    assert metrics.keys() == ALWAYS | {"skipped_empty"}
    assert metrics["skipped_empty"] == metrics["frac_reward_zero_std"] == 1.0 and metrics["grad_norm"] == 0.0
    assert same(weights_of(trainer), before) and trainer.n_done == 1 and trainer.guard.lengths == []


def test_an_empty_step_leaves_no_pages_behind(agreeing):
    """A run resumed after it has none either, and where a prompt's pages come from may show in the last bit."""
    trainer, asked = agreeing(True, prompts_per_step=1, group_size=2), set()
    for _ in range(6):
        _, (group,) = trainer.step()
        asked.add(group.prompt_ids)
        assert group.rollouts[0].completion.n_cached == 0
    assert len(asked) < 6  # some prompt came twice


def test_rollouts_of_one_token_are_trained_on(make_trainer):
    trainer = make_trainer(max_tokens=1, group_size=32)
    metrics, _ = trainer.step()
    assert metrics["completions/mean_length"] == 1.0 and metrics["grad_norm"] > 0


def nan_for(some):
    """The accuracy part with NaN for rollouts that `some` picks."""
    return lambda judged: math.nan if some(judged) else float(judged.verdict.correct)


def test_a_group_with_nan_in_its_rewards_is_left_out_and_counted(make_trainer, monkeypatch):
    trainer = make_trainer(prompts_per_step=8)
    monkeypatch.setitem(PARTS, "accuracy", nan_for(lambda judged: judged.example.key == "2" and "3" in judged.text))
    metrics, groups = trainer.step()
    assert 0 < metrics["skipped_groups"] == sum(not group.sound for group in groups) < 8
    assert math.isfinite(metrics["reward"]) and math.isfinite(metrics["reward_std"]) and metrics["grad_norm"] > 0
    assert math.isnan(metrics["rewards/accuracy/mean"])  # which part it was
    assert all(tensor.isfinite().all() for tensor in weights_of(trainer).values())


@pytest.mark.parametrize("given", [{}, {"beta": 0.1}, {"algorithm": "dapo"}])
def test_when_all_rewards_are_nan_the_step_is_empty(make_trainer, monkeypatch, given):
    trainer = make_trainer(**given)
    before = weights_of(trainer)
    monkeypatch.setitem(PARTS, "accuracy", nan_for(lambda judged: True))
    metrics, groups = trainer.step()
    assert metrics["skipped_groups"] == len(groups) and metrics["skipped_empty"] == 1.0
    assert math.isnan(metrics["reward"]) and same(weights_of(trainer), before)
    assert "groups were left out" in trainer.alarms.check(metrics)[0]


def test_a_nan_gradient_is_skipped_counted_and_forgotten(make_trainer):
    trainer, sane = make_trainer(), make_trainer()
    before, objective = weights_of(trainer), trainer.algorithm.objective

    def broken(terms, clip):
        objective_P, held_P = objective(terms, clip)
        return objective_P * math.nan, held_P

    trainer.algorithm = replace(trainer.algorithm, objective=broken)
    metrics, _ = trainer.step()
    assert metrics["skipped"] == 1.0 and math.isnan(metrics["grad_norm"])
    assert same(weights_of(trainer), before)
    assert "1 so far" in trainer.alarms.check(metrics)[0]
    trainer.algorithm = sane.algorithm
    trainer.n_done = 0  # the same problems once more, now with a gradient
    assert trainer.step()[0]["skipped"] == 0.0
    sane.step()
    assert same(weights_of(trainer), weights_of(sane))


def test_a_spike_is_skipped(make_trainer):
    trainer = make_trainer(max_grad_norm=1e-6)
    trainer.guard.lengths = [1e-6] * 10
    before = weights_of(trainer)
    assert trainer.step()[0]["skipped"] == 1.0
    assert same(weights_of(trainer), before)


def test_dynamic_sampling_asks_again_for_groups_that_agree_but_not_for_ever(agreeing, make_trainer):
    metrics, groups = agreeing(False, algorithm="dapo").step()
    assert metrics["n_prompts"] == len(groups) == 4 * MAX_ROUNDS and metrics["skipped_empty"] == 1.0

    metrics, groups = make_trainer(algorithm="dapo").step()
    telling = sum(not group.degenerate for group in groups)
    assert 4 < len(groups) == metrics["n_prompts"] < 4 * MAX_ROUNDS and telling == 4


def test_no_two_rollouts_of_a_step_share_a_seed(agreeing, monkeypatch):
    trainer, seeds = agreeing(False, algorithm="dapo"), []
    generate = trainer.engine.generate
    monkeypatch.setattr(
        trainer.engine, "generate", lambda rows: seeds.extend(row.params.seed for row in rows) or generate(rows)
    )
    trainer.step()
    trainer.step()
    assert len(set(seeds)) == len(seeds) == 2 * 4 * MAX_ROUNDS * 8


def test_the_reference_is_the_start_until_it_is_reset(make_trainer):
    trainer = make_trainer(beta=0.1, ref_reset_every=2)
    start = {name: tensor.clone() for name, tensor in trainer.weights.model.state_dict().items()}
    kl = [trainer.step()[0]["kl"]]
    assert same(trainer.reference.state_dict(), start)
    kl.append(trainer.step()[0]["kl"])
    assert same(trainer.reference.state_dict(), trainer.weights.model.state_dict())  # two steps are done
    kl.append(trainer.step()[0]["kl"])
    assert kl[0] == kl[2] == 0.0 < kl[1]


def test_without_a_leash_there_is_no_reference(make_trainer):
    assert make_trainer().reference is None


def test_with_a_leash_groups_that_agree_still_hold_the_policy_near(make_trainer, agreeing):
    trainer = agreeing(True, beta=0.1)
    with torch.no_grad():
        trainer.weights.master["norm.weight"].mul_(1.5)  # away from the reference
    trainer.weights.publish()
    trainer.engine.update_weights(trainer.weights.master)
    metrics, _ = trainer.step()
    assert metrics["kl"] > 0 and metrics["grad_norm"] > 0 and metrics["skipped"] == 0.0


def test_several_updates_share_out_the_groups_and_use_the_same_old_policy(make_trainer):
    """At a rate this high the second update meets ratios away from 1."""
    trainer = make_trainer(updates_per_rollout=2, lr=0.1, clip_low=0.01, clip_high=0.01, group_size=32)
    metrics, _ = trainer.step()
    steps = dict(trainer.weights.tensors())["adamw/step/norm.weight"]
    assert steps == 2.0
    assert metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"] > 0
    assert metrics["skipped"] == 0.0


def test_there_are_no_more_updates_than_groups(make_trainer):
    trainer = make_trainer(updates_per_rollout=50, group_size=32)
    _, groups = trainer.step()
    steps = dict(trainer.weights.tensors())["adamw/step/norm.weight"]
    assert steps == sum(not group.degenerate for group in groups)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_each_update_averages_over_its_own_rollouts(make_trainer, n):
    """Token weights times lengths add up to 1 in every update, however many there are."""
    trainer, sums = make_trainer(updates_per_rollout=n, group_size=32), []
    one_update = trainer._one_update

    def counting(batches, old):
        sums.append(sum(float(batch.weights_P.sum()) for batch in batches))
        return one_update(batches, old)

    trainer._one_update = counting
    trainer.step()
    assert sums == pytest.approx([1.0] * n)


def test_the_rate_follows_its_schedule(make_trainer):
    trainer = make_trainer(warmup=4, lr=0.02, group_size=32)
    assert [trainer.step()[0]["lr"] for _ in range(5)] == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.02])


def test_a_policy_that_is_too_sure_is_asked_at_a_higher_temperature_and_trained_at_it(make_trainer):
    """5 nats are more than 32 words can hold (ln 32 = 3.5), so every step is below the target."""
    trainer = make_trainer(target_entropy=5.0, temperature=0.5, max_temperature=0.55, group_size=32)
    metrics = [trainer.step()[0] for _ in range(4)]
    assert [step["temperature"] for step in metrics] == pytest.approx([0.5, 0.54, 0.55, 0.55])
    assert all(step["sampling/logp_difference/mean"] < 1e-5 for step in metrics)


def test_without_a_target_the_temperature_stays(make_trainer):
    trainer = make_trainer(temperature=2.0)
    assert [trainer.step()[0]["temperature"] for _ in range(2)] == [2.0, 2.0]


def test_own_clip_bounds_replace_the_algorithms(make_trainer):
    assert (make_trainer(algorithm="dapo").clip.low, make_trainer(algorithm="dapo").clip.high) == (0.2, 0.28)
    clip = make_trainer(algorithm="dapo", clip_high=0.5).clip
    assert (clip.low, clip.high) == (0.2, 0.5)
