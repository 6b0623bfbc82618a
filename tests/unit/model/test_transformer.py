"""The whole decoder: against one written plainly, causality by gradients, packing, heads, biases, precision."""

import math

import pytest
import torch

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.transformer import Transformer, init_weights

FP32_REASSOCIATION = 2e-5
BF16_LOGITS = 0.03
"""Mean absolute difference, in standard deviations of the logits, that 8 bits of mantissa may make in two layers."""


def random_ids(n, seed=0, vocab_size=32):
    return torch.randint(0, vocab_size, (n,), generator=torch.Generator().manual_seed(seed))


def hidden_of(model, ids_N, tree=None):
    tree = tree or TokenTree((Group(len(ids_N)),))
    return model(ids_N, tree.positions(), PackedCausal(tree, model.head_weight.dtype))


def plain_logits(model, ids):
    """One sequence through a llama decoder, written from the papers with loops over heads: the reference."""
    weights, heads = dict(model.state_dict()), model.config.attention
    D, J = heads.head_dim, heads.n_heads // heads.n_kv_heads

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + model.config.norm_eps).sqrt() * weights[f"{name}.weight"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    def turned(x):  # each pair (i, i + D / 2) as a complex number, turned by position * theta^(-2i / D)
        angles = torch.arange(len(x))[:, None] * model.config.rope_theta ** (-torch.arange(0, D, 2) / D)
        z = torch.complex(x[:, : D // 2], x[:, D // 2 :]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((z.real, z.imag), -1)

    x = weights["embed.weight"][ids]
    future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    for layer in range(model.config.n_layers):
        at, y, outs = f"layers.{layer}", norm(x, f"layers.{layer}.attn_norm"), []
        q, k, v = (linear(y, f"{at}.attn.{name}") for name in "qkv")
        for head in range(heads.n_heads):
            own, shared = slice(head * D, (head + 1) * D), slice(head // J * D, (head // J + 1) * D)
            scores = turned(q[:, own]) @ turned(k[:, shared]).T / math.sqrt(D)
            outs.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[:, shared])
        x = x + linear(torch.cat(outs, -1), f"{at}.attn.o")
        y = norm(x, f"{at}.mlp_norm")
        gate = linear(y, f"{at}.mlp.gate")
        x = x + linear(gate * gate.sigmoid() * linear(y, f"{at}.mlp.up"), f"{at}.mlp.down")
    return norm(x, "norm") @ weights["embed.weight" if model.config.tied_head else "head.weight"].T


@pytest.mark.parametrize("biases", ["", "q", "k", "v", "o", "qkvo"])
@pytest.mark.parametrize("tied_head", [True, False])
def test_the_decoder_is_the_one_written_plainly(tiny_model, tied_head, biases):
    model, ids = tiny_model(tied_head=tied_head, biases=biases), random_ids(11)
    names = {name for name in model.state_dict() if name.endswith("bias")}
    assert names == {f"layers.{layer}.attn.{name}.bias" for layer in range(2) for name in biases}
    logits = model.logits(hidden_of(model, ids))
    torch.testing.assert_close(logits, plain_logits(model, ids), rtol=0, atol=FP32_REASSOCIATION)


def sees(model, ids, tree=None):
    """[N, N]: whether row t's hidden state depends on row s's embedding, by gradients."""
    seen = {}
    handle = model.embed.register_forward_hook(lambda _module, _ids, out: seen.update(x=out))
    hidden = hidden_of(model, ids, tree)
    handle.remove()
    rows = [torch.autograd.grad(row.sum(), seen["x"], retain_graph=True)[0] for row in hidden]
    return torch.stack([row.abs().amax(-1) > 0 for row in rows])


def test_no_hidden_state_depends_on_a_later_id(tiny_model):
    assert torch.equal(sees(tiny_model(), random_ids(6)), torch.ones(6, 6, dtype=torch.bool).tril())


def test_a_completion_sees_prefix_prompt_and_itself_never_a_sibling(tiny_model):
    tree = TokenTree((Group(1, (2, 1)), Group(1, (1,))), prefix_len=1)  # rows: x | p a a b | r c
    expected = [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 1, 1],
    ]
    assert sees(tiny_model(), random_ids(7), tree).int().tolist() == expected


def test_a_packed_tree_gives_each_sequences_own_logits_and_the_gradient_of_their_sum(tiny_model):
    model, ids = tiny_model(tied_head=False, biases="qkvo"), random_ids(15)
    tree = TokenTree((Group(2, (3, 0, 1)), Group(1, (5,))), prefix_len=3)
    rows = [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 8], [0, 1, 2, 9, 10, 11, 12, 13, 14]]
    own = [slice(5, 8), slice(5, 6), slice(4, 9)]  # the completion within each sequence
    cotangent = torch.randn(9, 32)

    packed = model.logits(hidden_of(model, ids, tree))[[5, 6, 7, 8, 10, 11, 12, 13, 14]]
    packed.backward(cotangent)
    together = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    alone = torch.cat([model.logits(hidden_of(model, ids[r]))[s] for r, s in zip(rows, own, strict=True)])
    alone.backward(cotangent)

    torch.testing.assert_close(packed, alone, rtol=0, atol=FP32_REASSOCIATION)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_only_distances_count_not_places(tiny_model):
    model, ids = tiny_model(), random_ids(9)
    attend, here = PackedCausal(TokenTree((Group(9),))), torch.arange(9)
    torch.testing.assert_close(model(ids, here, attend), model(ids, here + 37, attend), rtol=0, atol=1e-4)
    assert not torch.allclose(model(ids, here, attend), model(ids, 2 * here, attend), atol=1e-2)


def test_a_tied_head_is_the_embedding_and_has_no_weight_of_its_own(tiny_model):
    tied, untied = tiny_model(tied_head=True), tiny_model(tied_head=False)
    assert "head.weight" not in tied.state_dict() and tied.head_weight is tied.embed.weight
    assert untied.head_weight is untied.head.weight
    assert set(untied.state_dict()) - set(tied.state_dict()) == {"head.weight"}


def test_a_tied_embedding_gets_the_gradient_of_both_its_uses(tiny_model):
    tied, untied, ids = tiny_model(tied_head=True), tiny_model(tied_head=False), random_ids(5)
    untied.load_state_dict(tied.state_dict() | {"head.weight": tied.embed.weight})
    for model in (tied, untied):
        model.logits(hidden_of(model, ids)).log_softmax(-1)[:, 3].sum().backward()
    torch.testing.assert_close(tied.embed.weight.grad, untied.embed.weight.grad + untied.head.weight.grad)


def test_bf16_stays_within_its_budget_of_fp32(tiny_model):
    model, ids = tiny_model(), random_ids(40)
    with torch.no_grad():
        wide = model.logits(hidden_of(model, ids))
        narrow = model.to(torch.bfloat16).logits(hidden_of(model, ids))
    assert narrow.dtype == torch.bfloat16
    gap = ((narrow.float() - wide).abs().mean() / wide.std()).item()
    assert 0 < gap < BF16_LOGITS, gap


def test_ids_and_positions_are_one_row_of_equal_length(tiny_model):
    with pytest.raises(AssertionError):
        tiny_model()(random_ids(4), torch.arange(3), None)
    with pytest.raises(AssertionError):
        tiny_model()(random_ids(4)[None], torch.arange(4)[None], None)


def test_init_weights_is_the_same_for_one_seed_and_another_for_another(tiny_model):
    first, again, other = (Transformer(tiny_model(biases="q", tied_head=False).config) for _ in range(3))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        init_weights(model, std=0.02, seed=seed)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == (a.ndim == 1), name  # matrices are drawn, the rest is set
    assert first.layers[0].attn.q.bias.abs().max() == 0
    assert first.norm.weight.eq(1).all()
    everything = torch.cat([p.flatten() for p in first.parameters() if p.ndim == 2])
    assert everything.std().item() == pytest.approx(0.02, rel=0.03) and abs(everything.mean().item()) < 0.001


def test_init_weights_leaves_the_callers_randomness_alone(tiny_model):
    model = tiny_model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    init_weights(model, std=0.02, seed=0)
    assert torch.equal(torch.rand(3), expected)
