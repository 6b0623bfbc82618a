"""What holds for models of every kind: packing does not show, nothing looks ahead, training moves and resumes."""

import pytest
import torch
from pydantic import ValidationError

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import DynamicNTK, ModelConfig, Window
from smallpress.model.shapes import tensor_shapes
from smallpress.model.token_logprobs import token_logprobs
from smallpress.model.transformer import Transformer
from smallpress.optim.master import MasterWeights

REASSOCIATION = 1e-4
TREE = TokenTree((Group(2, (6, 3)), Group(4, (5,))), prefix_len=3)
ALONE = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    [0, 1, 2, 3, 4, 11, 12, 13],
    [0, 1, 2, 14, 15, 16, 17, 18, 19, 20, 21, 22],
]
"""The rows of the tree that each of its sequences is made of."""
IDS = torch.randint(0, 97, (23,), generator=torch.Generator().manual_seed(5))


def logits(model, ids_N, tree):
    attend = PackedCausal(tree, model.head_weight.dtype, window=model.config.attention.window)
    return model.logits(model(ids_N, tree.positions(), attend))


def test_a_packed_tree_is_each_sequence_alone_in_value_and_gradient(odd_model):
    packed = logits(odd_model, IDS, TREE)
    weights = [p for name, p in odd_model.named_parameters() if p.requires_grad and not name.startswith("mtp.")]
    cotangent = torch.randn(23, 97, generator=torch.Generator().manual_seed(6))
    alone = torch.empty_like(packed)
    for rows in ALONE:
        alone[rows] = logits(odd_model, IDS[rows], TokenTree((Group(len(rows)),)))
    torch.testing.assert_close(packed, alone, atol=REASSOCIATION, rtol=0)
    found = torch.autograd.grad((packed * cotangent).sum(), weights)
    wanted = torch.autograd.grad((alone * cotangent).sum(), weights)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6


@torch.no_grad()
def test_nothing_looks_ahead(odd_model):
    tree, changed = TokenTree((Group(12),)), IDS[:12].clone()
    changed[7] += 1 if changed[7] < 96 else -1
    before, after = logits(odd_model, IDS[:12], tree), logits(odd_model, changed, tree)
    torch.testing.assert_close(after[:7], before[:7], atol=REASSOCIATION, rtol=0)
    assert (after[7] - before[7]).abs().max() > 0.01


@torch.no_grad()
def test_a_window_hides_what_is_farther_than_all_layers_reach(config_of, random_model):
    model = random_model(config_of["a window on every layer"])  # three layers of six: a token reaches 3 * 5 back
    tree, changed = TokenTree((Group(20),)), IDS[:20].clone()
    changed[0] = (changed[0] + 1) % 97
    gap = (logits(model, IDS[:20], tree) - logits(model, changed, tree)).abs().amax(-1)
    assert gap[15] > 0 and gap[16:].max() == 0


def test_the_names_and_shapes_are_those_of_the_transformer(odd_model):
    assert {name: tuple(p.shape) for name, p in odd_model.named_parameters()} == tensor_shapes(odd_model.config)


def step(weights, seed):
    ids = torch.randint(0, 97, (9,), generator=torch.Generator().manual_seed(seed))
    tree = TokenTree((Group(8),))
    attend = PackedCausal(tree, weights.dtype, window=weights.model.config.attention.window)
    hidden = weights.model(ids[:-1], tree.positions(), attend)
    loss = -token_logprobs(hidden, weights.model.head_weight, ids[1:])[0].mean()
    loss.backward()
    weights.step(1e-2, 1.0)
    return loss.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_learns_resumes_bit_for_bit_and_leaves_the_selection_bias_alone(odd_model, dtype):
    weights = MasterWeights(odd_model, dtype)
    losses = [step(weights, seed=0) for _ in range(8)]
    assert losses[-1] < losses[0] - 1
    kept = {name: tensor.clone() for name, tensor in weights.tensors()}
    step(weights, seed=1)
    again = MasterWeights(odd_model, dtype)
    again.restore(kept)
    step(again, seed=1)
    for (name, ours), theirs in zip(again.master.items(), weights.master.values(), strict=True):
        assert torch.equal(ours, theirs), name
    for name, parameter in weights.model.named_parameters():
        if name.endswith("expert_bias"):
            assert torch.equal(parameter, dict(odd_model.named_parameters())[name])


def test_a_config_of_every_kind_survives_json(odd_model):
    config = odd_model.config
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": (0, 3)}, "layers 0 to 2"),
        ({"layers": (1, 0)}, "in order"),
        ({"layers": (1, 1)}, "each once"),
    ],
)
def test_a_window_names_layers_there_are(config_of, changes, says):
    config = config_of["a window on every layer"].model_dump()
    config["attention"]["window"] |= changes
    with pytest.raises(ValidationError, match=says):
        ModelConfig(**config)


def test_ntk_scaling_needs_a_dimension_to_scale(config_of):
    config = config_of["a window on every layer"].model_dump()
    config["attention"] |= {"head_dim": 2, "window": None}
    config["rope_scaling"] = DynamicNTK(factor=2, original_max_seq_len=8)
    with pytest.raises(ValidationError, match="more than two"):
        ModelConfig(**config)
    assert Window(length=1, layers=(0,)).rope_theta is None


@torch.no_grad()
def test_an_mtp_module_takes_the_embedding_first_unless_told_otherwise(config_of, random_model):
    """Swapping the halves of its projection is the other order."""
    config = config_of["latent, experts, mtp"]
    model = random_model(config)
    other = Transformer(config.model_copy(update={"mtp": config.mtp.model_copy(update={"hidden_first": True})}))
    other.load_state_dict(model.state_dict())
    left, right = model.mtp[0].proj.weight.chunk(2, 1)
    other.mtp[0].proj.weight.copy_(torch.cat((right, left), 1))
    tree = TokenTree((Group(6),))
    hidden = model(IDS[:6], tree.positions(), PackedCausal(tree))
    ours, theirs = (
        m.predict_further(0, hidden, IDS[1:7], tree.positions() + 1, PackedCausal(tree)) for m in (model, other)
    )
    torch.testing.assert_close(ours, theirs)
