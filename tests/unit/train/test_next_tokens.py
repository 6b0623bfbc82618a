"""The loss of pretraining against its formulas, and what a document may see."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from smallpress.corpus.rows import Row, row_of
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import MTP
from smallpress.parallel.passes import Passes
from smallpress.parallel.ranks import ALONE
from smallpress.train.balance import RouterWatch, move_bias
from smallpress.train.next_tokens import NextTokens
from smallpress.train.row_batch import RowBatch

END = 1


def rows(*documents: list[int]) -> list[Row]:
    """Each a row of its own, cut at ends."""
    return [row_of(np.array(ids), END) for ids in documents]


@pytest.fixture(scope="module")
def v3(random_model, config_of):
    """V3 in small, with two modules that look further."""
    return random_model(config_of["latent, experts, mtp"].model_copy(update={"mtp": MTP(n_modules=2)}))


def passes(model) -> Passes:
    """Of a model whose gradients stay where they are made."""
    return Passes(SimpleNamespace(model=model, dtype=torch.float32), ALONE)


def logprobs(model, hidden_NM, targets):
    return model.logits(hidden_NM).log_softmax(-1)[torch.arange(len(targets)), torch.tensor(targets)]


def test_the_losses_of_multi_token_prediction_are_those_of_the_formula(v3):
    """L_d = -(1/T) sum log p_d(t_{i+1+d}), where h^d comes from h^{d-1} at i and the embedding of t_{i+d}."""
    ids = [5, 9, 2, 17, 30, 8, 44]  # T = 6 inputs and a last target
    T, losses = 6, []

    def layout(n):
        tree = TokenTree((Group(n),))
        return tree.positions(), PackedCausal(tree)

    hidden_NM = v3(torch.tensor(ids[:T]), *layout(T))
    losses.append(-logprobs(v3, hidden_NM, ids[1:]).sum() / T)
    for d in (1, 2):
        hidden_NM = v3.predict_further(d - 1, hidden_NM[:-1], torch.tensor(ids[d:T]), *layout(T - d))
        losses.append(-logprobs(v3, hidden_NM, ids[d + 1 :]).sum() / T)

    objective = NextTokens(passes(v3), 64, np.ones(97, np.int64), mtp_weight=lambda step: 0.3)
    log = objective.accumulate(v3, rows(ids), step=0)
    assert [log["loss"], log["loss/mtp1"], log["loss/mtp2"]] == pytest.approx(
        [loss.item() for loss in losses], rel=1e-5
    )

    summed = {name: p.grad.clone() for name, p in v3.named_parameters() if p.grad is not None}
    v3.zero_grad()
    (losses[0] + 0.3 / 2 * (losses[1] + losses[2])).backward()
    for name, parameter in v3.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(summed[name], parameter.grad, rtol=1e-4, atol=1e-6)
    v3.zero_grad()


def test_bits_per_byte_are_those_of_the_bytes_that_were_predicted(v3):
    bytes_of = np.arange(97)
    objective = NextTokens(passes(v3), 64, bytes_of)
    with torch.no_grad():
        measured = objective.measure(v3, rows([5, 9, 2, 17], [3, 8, 44, 6]))
    n_bytes = 9 + 2 + 17 + 8 + 44 + 6
    assert measured["bits_per_byte"] == pytest.approx(measured["loss"] * 6 / np.log(2) / n_bytes)


def test_which_predictions_count_where_documents_are_apart():
    (row,) = rows([7, 8, END, 4, 5, 6])
    assert row.starts.tolist() == [0, 3]
    apart, together = RowBatch.of([row], mask_documents=True), RowBatch.of([row], mask_documents=False)
    # 7 8 | 4 5 6: the end predicts nothing, and nothing predicts the first word of the next document.
    assert apart.at_depth(0).counted_N.tolist() == [1, 1, 0, 1, 1]
    assert apart.at_depth(1).counted_N.tolist() == [1, 0, 0, 1]
    assert together.at_depth(0).counted_N.tolist() == [1] * 5
    assert [g.completion_lens for g in apart.at_depth(0).tree.groups] == [(3,), (2,)]
    assert [g.completion_lens for g in together.at_depth(0).tree.groups] == [(5,)]
    assert apart.at_depth(0).tree.positions().tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("masked", [True, False])
def test_a_document_is_seen_by_no_other_where_they_are_masked(v3, masked):
    """The losses and gradients of the second document's tokens do not know the first one, at any depth."""
    found = []
    for first in ([7, 8, 20, END], [33, 60, 12, END]):
        batch = RowBatch.of(rows([*first, 4, 5, 6, 9, 11]), masked)
        hidden_NM, seen = torch.empty(0), []
        for depth in range(3):
            at = batch.at_depth(depth)
            layout = at.tree.positions() + depth, PackedCausal(at.tree)
            hidden_NM = (
                v3.predict_further(depth - 1, hidden_NM[:-1], at.ids_N, *layout) if depth else v3(at.ids_N, *layout)
            )
            second = slice(4, 8 - 2 * (depth > 0) - (depth > 1))
            seen.append((hidden_NM * at.counted_N[:, None])[second])
        loss = sum(hidden.square().sum() for hidden in seen)
        (grad,) = torch.autograd.grad(loss, v3.embed.weight)
        found.append((seen, grad[[7, 8, 20, 33, 60, 12]]))
    (a, grad_a), (b, grad_b) = found
    same = all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))
    leaked = bool(grad_a.abs().max() > 1e-6 or grad_b.abs().max() > 1e-6)
    assert (same, leaked) == (masked, not masked)


def test_the_watch_counts_every_choice_and_leaves_nothing_behind(v3):
    watch = RouterWatch(v3)
    objective = NextTokens(passes(v3), 6, np.ones(97, np.int64), mtp_weight=lambda step: 0.3, alpha=0.1)
    objective.accumulate(v3, rows([5, 9, 2, 17, 30, 8, 44], [3, 8, 44, 6, 20, 7, 9]), step=0)
    v3.zero_grad()
    loads = objective.watch.loads
    assert set(loads) == set(watch.routers) and len(loads) == 4  # two layers, two modules
    # 3 experts a token; 12 tokens at depth 0, 10 and 8 at the others.
    assert sorted(int(load.sum()) for load in loads.values()) == [24, 30, 36, 36]
    v3(torch.tensor([1, 2]), torch.arange(2), PackedCausal(TokenTree((Group(2),))))
    assert sum(int(load.sum()) for load in loads.values()) == 126


def test_the_bias_makes_a_router_that_prefers_one_expert_use_all(random_model, config_of):
    """64 tokens, 8 experts, 3 a token: even is 24 each. One expert scores far above the others at the start."""
    router = random_model(config_of["latent, experts, mtp"]).layers[1].mlp.router
    with torch.no_grad():
        router.weight.mul_(0.3)
        router.expert_bias.zero_()[2] = 1.0
        x_NM = torch.randn(64, 20, generator=torch.Generator().manual_seed(0))
        peaks = []
        for _ in range(60):
            load_E = router(x_NM).experts_NA.flatten().bincount(minlength=8)
            peaks.append(int(load_E.max()) / 24)
            move_bias(router.expert_bias, load_E, gamma=0.02)
    assert peaks[0] == pytest.approx(64 / 24) and sum(peaks[-10:]) / 10 < 1.35
