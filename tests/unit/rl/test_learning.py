"""Every algorithm learns; the same seed learns the same, also when it was cut off and went on."""

import json
from statistics import fmean

import pytest
import torch

from smallpress.rl.algorithms import ALGORITHMS

N_STEPS = 16


def arrays(trainer):
    return {name: tensor.clone() for name, tensor in trainer.tensors().items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def what_counts(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("seconds/")}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_reward_rises(make_trainer, name):
    """One id of 32 is right; four random ones hold it about one time in eight."""
    trainer = make_trainer(algorithm=name)
    rewards = [trainer.step()[0]["reward"] for _ in range(N_STEPS)]
    assert fmean(rewards[:2]) < 0.4 and fmean(rewards[-3:]) > 0.9, rewards


def test_it_learns_in_bf16_too(make_trainer):
    trainer = make_trainer(dtype=torch.bfloat16)
    rewards = [trainer.step()[0]["reward"] for _ in range(N_STEPS)]
    assert fmean(rewards[-3:]) > 0.9, rewards


BUSY = {
    "tasks": ("addition:2-3",),
    "unlock_at": 0.2,
    "algorithm": "dapo",
    "beta": 0.05,
    "ref_reset_every": 2,
    "updates_per_rollout": 2,
    "weight_decay": 0.1,
    "lr_shape": "cosine",
    "steps": 5,
    "target_entropy": 5.0,  # above what 32 words can hold: the temperature rises at every step
}
"""Everything that has a state: two levels, a reference that is reset, a schedule, moments, resampling, a thermostat."""


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(make_trainer):
    one, twin, other = make_trainer(**BUSY), make_trainer(**BUSY), make_trainer(**BUSY, seed=1)
    for _ in range(3):
        assert what_counts(one.step()[0]) == what_counts(twin.step()[0])
        other.step()
    assert_same(arrays(one), arrays(twin))
    assert not torch.equal(one.weights.master["norm.weight"], other.weights.master["norm.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_cut_off_anywhere_goes_on_bit_for_bit(make_trainer, dtype):
    unbroken = make_trainer(**BUSY, dtype=dtype)
    saved, logs = [], []
    for _ in range(5):
        saved.append((arrays(unbroken), json.dumps(unbroken.state())))
        logs.append(what_counts(unbroken.step()[0]))
        unbroken.alarms.check(logs[-1])
    for at in (1, 2, 4):
        resumed = make_trainer(**BUSY, dtype=dtype, model_seed=9)  # its own start must not matter
        tensors, state = saved[at]
        resumed.restore({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(state))
        for step in range(at, 5):
            assert what_counts(resumed.step()[0]) == logs[step], f"resumed at {at}, step {step}"
            resumed.alarms.check(logs[step])
        assert_same(arrays(resumed), arrays(unbroken))
        assert resumed.state() == unbroken.state() and resumed.alarms.state() == unbroken.alarms.state()


def test_a_run_cut_off_after_an_empty_step_goes_on_bit_for_bit(make_trainer):
    """One prompt and two rollouts a step: many steps are empty."""
    small = {"prompts_per_step": 1, "group_size": 2, "max_tokens": 3}
    unbroken = make_trainer(**small)
    at = next(step for step in range(1, 30) if "skipped_empty" in unbroken.step()[0])
    tensors, state = arrays(unbroken), json.dumps(unbroken.state())
    resumed = make_trainer(**small, model_seed=9)
    resumed.restore(tensors, json.loads(state))
    assert resumed.n_done == at
    for _ in range(6):
        assert what_counts(resumed.step()[0]) == what_counts(unbroken.step()[0])
    assert_same(arrays(resumed), arrays(unbroken))


def test_only_the_curriculums_open_levels_are_asked_until_they_are_learned(make_trainer):
    trainer = make_trainer(tasks=("addition:2-3",), unlock_at=0.7, group_size=16)
    levels = []
    for _ in range(N_STEPS):
        _, groups = trainer.step()
        levels.append({group.example.level for group in groups})
    assert levels[0] == {2} and {2, 3} in levels
