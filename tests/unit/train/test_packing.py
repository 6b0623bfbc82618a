"""Packed samples are what they are alone: nothing is seen across, every trained token counts once."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpress.train.objective import Likelihood, logprobs_of
from smallpress.train.packing import pack
from smallpress.train.samples import Sample

FP32_REASSOCIATION = 2e-5

ids = st.integers(1, 31)


@st.composite
def drawn(draw):
    own = draw(st.lists(ids, min_size=2, max_size=9))
    all_ids = (*([5, 6, 7] if draw(st.booleans()) else []), *own)
    mask = [False, *draw(st.lists(st.booleans(), min_size=len(all_ids) - 1, max_size=len(all_ids) - 1))]
    mask[-1] = True
    return Sample(all_ids, tuple(mask))


def alone(model, one):
    (batch,) = pack([one], 64)
    return logprobs_of(model, batch)[0]


@given(st.lists(drawn(), min_size=1, max_size=8), st.sampled_from([12, 40, 200]))
@settings(max_examples=25, deadline=None)
def test_a_sample_among_others_has_the_logprobs_it_has_alone(tiny_model, samples, budget):
    model = tiny_model()
    batches = pack(samples, budget)
    found = {i: [] for i in range(len(samples))}
    for batch in batches:
        assert batch.n_tokens == len(batch.ids_N) and (
            len(set(batch.sample_P.tolist())) == 1 or batch.n_tokens <= budget
        )
        for i, value in zip(batch.sample_P.tolist(), logprobs_of(model, batch)[0], strict=True):
            found[i].append(value)
    for i, one in enumerate(samples):
        torch.testing.assert_close(torch.stack(found[i]), alone(model, one), atol=FP32_REASSOCIATION, rtol=1e-4)
    weights = torch.cat([batch.weights_P for batch in batches])
    assert len(weights) == sum(one.n_trained for one in samples)
    assert torch.allclose(weights.sum(), torch.tensor(1.0))


def test_what_all_begin_with_is_computed_once_and_like_lengths_lie_together():
    long, short = Sample((1, 2, 3, 4, 5, 6, 7, 8), (False,) * 7 + (True,)), Sample((1, 2, 9), (False, False, True))
    (batch,) = pack([long, long, short], 64)
    assert batch.tree.prefix_len == 1 and [group.completion_lens for group in batch.tree.groups] == [(6, 6), (1,)]
    assert batch.ids_N.tolist() == [1, 2, 3, 4, 5, 6, 7, 2, 3, 4, 5, 6, 7, 2]
    assert batch.rows_P.tolist() == [6, 12, 13] and batch.targets_P.tolist() == [8, 8, 9]


def test_the_gradient_of_packed_batches_is_that_of_one_mean(tiny_model, samples):
    ours, plain = tiny_model(), tiny_model()
    log = Likelihood(micro_batch_tokens=24).accumulate(ours, samples)
    loss = -torch.cat([alone(plain, one) for one in samples]).mean()
    loss.backward()
    assert abs(log["loss"] - float(loss.detach())) < 1e-5
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=FP32_REASSOCIATION, rtol=1e-3, msg=name)
