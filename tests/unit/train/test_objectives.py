"""Preferences and divergences against their formulas, and what they teach."""

import pytest
import torch

from smallpress.optim.master import MasterWeights
from smallpress.train.distill_settings import Divergence
from smallpress.train.divergence import Imitation, divergences
from smallpress.train.objective import logprobs_of
from smallpress.train.packing import pack
from smallpress.train.preferences import Pair, Preferences
from smallpress.train.samples import Sample
from smallpress.train.settings import SFTSettings

KL = 1e-5


def sample(*ids, asked=2):
    return Sample(tuple(ids), tuple(i >= asked for i in range(len(ids))))


PAIRS = [Pair(sample(1, k, 7, 8), sample(1, k, 9, 5, 6)) for k in range(2, 6)]


def answer_logprob(model, one):
    (batch,) = pack([one], 64)
    return logprobs_of(model, batch)[0].sum()


@pytest.fixture
def preferences(tiny_model, monkeypatch):
    """(objective, model): the reference is another model than the policy, as after some steps."""
    monkeypatch.setattr("smallpress.train.preferences.load_transformer", lambda files, dtype: tiny_model(seed=1))
    settings = SFTSettings(model="m", data=("d",), dpo={"beta": 0.5}, micro_batch_tokens=64)
    model = tiny_model()
    return Preferences(settings, None, MasterWeights(model, torch.float32, take=True)), model


def test_the_loss_and_gradient_of_pairs_are_those_of_the_formula(preferences, tiny_model):
    objective, model = preferences
    plain, ref = tiny_model(), tiny_model(seed=1)
    log = objective.accumulate(model, PAIRS)
    margins = []
    for pair in PAIRS:
        gain = [answer_logprob(plain, one) - answer_logprob(ref, one).detach() for one in (pair.chosen, pair.rejected)]
        margins.append(0.5 * (gain[0] - gain[1]))
    loss = -torch.nn.functional.logsigmoid(torch.stack(margins)).mean()
    loss.backward()
    assert log["loss"] == pytest.approx(float(loss.detach()), abs=1e-4)
    assert log["reward_accuracy"] == sum(float(m.detach()) > 0 for m in margins) / 4
    assert objective.measure(model, PAIRS)["loss"] == pytest.approx(log["loss"], abs=1e-5)
    master = objective_grads(model)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(master[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


def objective_grads(model):
    """What the hooks of `MasterWeights` have moved to the masters, found by the parameters they hang on."""
    found = {}
    for name, parameter in model.named_parameters():
        (hook,) = parameter._post_accumulate_grad_hooks.values()
        found[name] = hook.master.grad
    return found


def test_a_divergence_is_that_of_the_distributions_and_nothing_for_equal_ones():
    student, teacher = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)), torch.randn(5, 40)
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    forward = divergences(student, teacher, Divergence(direction="forward", top_k=0))
    reverse = divergences(student, teacher, Divergence(direction="reverse", top_k=0))
    torch.testing.assert_close(forward, (q.exp() * (q - p)).sum(-1), atol=KL, rtol=KL)
    torch.testing.assert_close(reverse, (p.exp() * (p - q)).sum(-1), atol=KL, rtol=KL)
    for direction in ("forward", "reverse"):
        whole = divergences(student, teacher, Divergence(direction=direction, top_k=0))
        few = [divergences(student, teacher, Divergence(direction=direction, top_k=k)) for k in (5, 20)]
        assert (few[0] >= 0).all() and (few[0] <= few[1] + KL).all() and (few[1] <= whole + KL).all()
        assert divergences(teacher, teacher, Divergence(direction=direction, top_k=5)).abs().max() < KL


def test_a_student_comes_to_speak_as_its_teacher(tiny_model):
    teacher, student = tiny_model(seed=3).requires_grad_(False), tiny_model(seed=0)
    weights = MasterWeights(student, torch.float32, take=True)
    objective = Imitation(Divergence(top_k=8), teacher, micro_batch_tokens=64)
    items = [sample(1, k, 7, 3, k + 9, 2) for k in range(2, 10)]
    before = objective.measure(student, items)
    for step in range(25):
        objective.accumulate(student, items, step)
        weights.step(1e-2, 1.0)
    after = objective.measure(student, items)
    assert after["divergence"] < 0.3 * before["divergence"]


def test_on_policy_the_students_own_answers_are_scored(tiny_model):
    seen = []

    def rollouts(items, step):
        seen.append(step)
        return [sample(*one.ids[:2], 4, 4, 4) for one in items]

    student = tiny_model(seed=0)
    objective = Imitation(Divergence(), tiny_model(seed=3), 64, rollouts)
    log = objective.accumulate(student, [sample(1, 2, 9)], step=5)
    assert seen == [5] and log["tokens"] == 5 and log["tokens/trained"] == 3
