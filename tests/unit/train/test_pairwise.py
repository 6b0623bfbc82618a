"""A reward model from pairs: the loss by its formula, what it teaches, what is measured and what is left out."""

import json

import pytest
import torch

from smallpress.model.reward_model import RewardModel, all_scores, tokens_of
from smallpress.optim.master import MasterWeights
from smallpress.run.errors import UserError
from smallpress.run.settings import settings_from
from smallpress.train.pairwise import Pairwise, ScoredPair, read_scored_pairs
from smallpress.train.samples import Sample
from smallpress.train.settings import SFTSettings

GIVEN = {"model": "m", "data": ["d"], "pairwise": {}, "micro_batch_tokens": 64}


def settings(**more):
    return settings_from(SFTSettings, GIVEN | more, "here")


def scored(*ids):
    return Sample(ids, (False,) * (len(ids) - 1) + (True,))


def pairs(n):
    """The chosen answer ends with 7 more often than with 8; both are of one length."""
    return [ScoredPair(scored(1, 2, k % 20 + 3, 7), scored(1, 2, k % 20 + 3, 8)) for k in range(n)]


@pytest.fixture
def reward_model(tiny_model):
    base = tiny_model()
    model = RewardModel(base.config)
    score = torch.randn(1, 32, generator=torch.Generator().manual_seed(1)) * 0.2
    model.load_state_dict(base.state_dict() | {"score.weight": score})
    return model


def test_what_answers_share_is_computed_once_and_changes_no_score(reward_model):
    texts = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4), (1, 2, 3, 9, 9)]
    assert tokens_of(texts) == 3 + 3 + 1 + 2
    together = all_scores(reward_model, [texts, [(4, 4)]], token_budget=64)
    alone = [all_scores(reward_model, [[text]], 64)[0][0] for text in (*texts, (4, 4))]
    assert [*together[0], *together[1]] == pytest.approx(alone, abs=1e-5)


def test_the_loss_is_bradley_terrys_with_its_margin_and_center(reward_model):
    data = pairs(6)
    log = Pairwise(settings(pairwise={"margin": 0.3, "center": 0.1})).accumulate(reward_model, data)
    rewards = torch.tensor(all_scores(reward_model, [pair.texts for pair in data], 64))
    gap, both = rewards[:, 0] - rewards[:, 1], rewards.sum(1)
    wanted = (-torch.nn.functional.logsigmoid(gap - 0.3) + 0.1 * both**2).mean()
    assert log["loss"] == pytest.approx(float(wanted), abs=1e-5)
    assert log["reward_accuracy"] == float((gap > 0).float().mean())
    assert log["reward_mean"] == pytest.approx(float(rewards.mean()), abs=1e-5)


def test_several_micro_batches_give_the_gradient_of_one(reward_model):
    found = []
    for budget in (64, 1024):
        weights = MasterWeights(reward_model, torch.float32)
        Pairwise(settings(micro_batch_tokens=budget)).accumulate(weights.model, pairs(30))
        found.append(weights.master["score.weight"].grad.clone())
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_it_learns_which_answer_is_preferred(reward_model):
    weights = MasterWeights(reward_model, torch.float32)
    objective, held_out = Pairwise(settings(pairwise={"center": 0.01})), pairs(20)[15:]
    before = objective.measure(weights.model, held_out)
    for step in range(15):
        objective.accumulate(weights.model, pairs(15), step)
        weights.step(3e-3, 1.0)
    after = objective.measure(weights.model, held_out)
    assert after["reward_accuracy"] == 1.0 and after["loss"] < 0.1 < before["loss"]
    assert after["longer_wins"] == 0.5  # length tells nothing here


def test_pairs_of_unlike_length_alike_or_too_long_are_left_out_and_counted(byte_tokenizer, tmp_path):
    answers = [("four", "five"), ("four", "four"), ("four", "it is five"), ("f" * 90, "g" * 90)]
    rows = [{"prompt": "2 + 2?", "chosen": chosen, "rejected": rejected} for chosen, rejected in answers]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_scored_pairs(settings(data=[str(path)], max_tokens=80, pairwise={"longest": 2}), byte_tokenizer())
    assert len(data.items) == 1 and data.items[0].chosen.n_trained == 1 and data.census.n_conversations == 4
    assert dict(data.census.dropped) == {
        "chosen and rejected are the same": 1,
        "one answer is over 2 times as long": 1,
        "over 80 tokens": 1,
    }


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"dpo": {}}, "two ways to learn from pairs"),
        ({"lora": {}}, "leave out lora"),
        ({"form": "plain"}, "leave out form=plain"),
        ({"pairwise": {"centre": 1}}, "did you mean pairwise.center"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, fault):
    with pytest.raises(UserError, match=fault):
        settings(**given)
