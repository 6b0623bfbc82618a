"""Every token trained once, predicted from the right row, within the budget, shared prompts computed once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.rl.packing import Trained, TrainedGroup, pack
from smallpress.rl.policy import logprobs_of

FP32_REASSOCIATION = 2e-5


def group(prompt_ids, *rollouts, advantage=1.0, weight=1.0):
    """A group whose sampler log-probabilities name the rollout and the place: -(10 * rollout + place)."""
    return TrainedGroup(
        tuple(prompt_ids),
        tuple(
            Trained(tuple(ids), tuple(-(10.0 * r + t) for t in range(len(ids))), advantage + r, weight / (1 + r))
            for r, ids in enumerate(rollouts)
        ),
    )


def told(batches):
    """Each trained token with all that is told of it, sorted."""
    return sorted(
        told
        for batch in batches
        for told in zip(
            batch.targets_P.tolist(),
            batch.sampler_logprobs_P.tolist(),
            batch.advantages_P.tolist(),
            batch.weights_P.tolist(),
            strict=True,
        )
    )


def test_one_group_lies_as_prompt_and_completions_without_last_tokens():
    (batch,) = pack([group([1, 2, 3], [4], [5, 6, 7])], token_budget=64)
    assert batch.tree == TokenTree((Group(1, (0, 2)),), prefix_len=2)
    assert batch.ids_N.tolist() == [1, 2, 3, 5, 6]
    assert batch.targets_P.tolist() == [4, 5, 6, 7]
    assert batch.rows_P.tolist() == [2, 2, 3, 4]  # the prompt's last row predicts both first tokens
    assert batch.rollout_P.tolist() == [0, 1, 1, 1]
    assert batch.sampler_logprobs_P.tolist() == [0.0, -10.0, -11.0, -12.0]
    assert batch.advantages_P.tolist() == [1.0, 2.0, 2.0, 2.0]
    assert batch.weights_P.tolist() == [1.0, 0.5, 0.5, 0.5]


def test_what_all_prompts_begin_with_is_computed_once():
    (batch,) = pack([group([1, 2, 3, 4], [9, 9]), group([1, 2, 5], [8, 8])], token_budget=64)
    assert batch.tree == TokenTree((Group(2, (1,)), Group(1, (1,))), prefix_len=2)
    assert batch.ids_N.tolist() == [1, 2, 3, 4, 9, 5, 8]


def test_equal_prompts_and_one_within_another_keep_a_token_of_their_own():
    (batch,) = pack([group([1, 2], [9]), group([1, 2], [8]), group([1, 2, 3], [7])], token_budget=64)
    assert batch.tree.prefix_len == 1
    assert sorted(g.prompt_len for g in batch.tree.groups) == [1, 1, 2]


def test_prompts_without_a_common_start_share_nothing():
    (batch,) = pack([group([1, 2], [9]), group([3, 2], [8]), group([4], [8])], token_budget=64)
    assert batch.tree.prefix_len == 0


def test_a_group_over_the_budget_is_taken_apart_and_its_prompt_repeated():
    """Prompt 4, rollouts of 2, 3 and 3 tokens, budget 10: 4 + 2 + 3 = 9, then 4 + 3 = 7."""
    batches = pack([group([1, 2, 3, 4], [5] * 3, [6] * 2, [7] * 3)], token_budget=10)
    assert [len(batch.targets_P) for batch in batches] == [5, 3]
    assert told(batches) == told(pack([group([1, 2, 3, 4], [5] * 3, [6] * 2, [7] * 3)], token_budget=99))


def test_a_rollout_over_the_budget_gets_a_batch_of_its_own():
    batches = pack([group([1] * 8, [5] * 20, [6], [7])], token_budget=10)
    assert sorted(len(batch.targets_P) for batch in batches) == [2, 20]
    assert [len(batch.targets_P) for batch in pack([group([1] * 30, [5], [6])], token_budget=10)] == [1, 1]


ids = st.lists(st.integers(0, 3), min_size=1, max_size=6)
some_groups = st.lists(st.builds(lambda prompt, rollouts: group(prompt, *rollouts), ids, st.lists(ids, min_size=1)))


@settings(max_examples=60)
@given(some_groups.filter(bool), st.integers(8, 40))
def test_every_token_is_trained_once_and_every_batch_keeps_the_budget(groups, budget):
    batches = pack(groups, budget)
    wanted = sorted(
        (id, logprob, rollout.advantage, rollout.weight)
        for g in groups
        for rollout in g.rollouts
        for id, logprob in zip(rollout.ids, rollout.sampler_logprobs, strict=True)
    )
    assert [tuple(map(pytest.approx, token)) for token in wanted] == told(batches)
    for batch in batches:
        assert batch.tree.n_tokens == len(batch.ids_N)
        alone = len(batch.tree.groups) == 1 and len(batch.tree.groups[0].completion_lens) == 1
        assert batch.tree.n_tokens <= budget or alone
        assert len(batch.rollout_P.unique()) == int(batch.rollout_P.max()) + 1


@pytest.mark.parametrize("budget", [12, 20, 500])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_packed_logprobs_are_those_of_each_rollout_alone(tiny_model, budget, temperature):
    model = tiny_model(biases="qkv")
    groups = [group([1, 2, 3], [4], [5, 6, 7], [8] * 5), group([1, 2, 9, 9], [10, 11]), group([1, 5], [30], [31, 2])]
    wanted = {}
    for g in groups:
        for rollout in g.rollouts:
            sequence = torch.tensor(g.prompt_ids + rollout.ids)
            tree = TokenTree((Group(len(sequence)),))
            hidden = model(sequence, tree.positions(), PackedCausal(tree))
            logprobs = (model.logits(hidden)[len(g.prompt_ids) - 1 : -1] / temperature).log_softmax(-1)
            wanted[rollout.ids] = logprobs.gather(1, torch.tensor(rollout.ids)[:, None])[:, 0]

    found = {}
    for batch in pack(groups, budget):
        logprobs, _ = logprobs_of(model, batch, temperature)
        for n in range(int(batch.rollout_P.max()) + 1):
            own = batch.rollout_P == n
            found[tuple(batch.targets_P[own].tolist())] = logprobs[own]
    assert found.keys() == wanted.keys()
    for rollout_ids, logprobs in wanted.items():
        torch.testing.assert_close(found[rollout_ids], logprobs, rtol=0, atol=FP32_REASSOCIATION)
