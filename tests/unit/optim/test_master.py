"""fp32 weights behind a computing copy: AdamW as torch has it, whole gradients, exact resume."""

import copy

import pytest
import torch

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.token_logprobs import token_logprobs
from smallpress.optim.master import MasterWeights
from smallpress.run.errors import UserError

NO_CLIP = float("inf")


def loss_of(model, seed):
    """Minus the mean log-probability of one random sequence."""
    ids = torch.randint(0, 32, (9,), generator=torch.Generator().manual_seed(seed))
    tree = TokenTree((Group(8),))
    hidden = model(ids[:-1], tree.positions(), PackedCausal(tree, model.head_weight.dtype))
    return -token_logprobs(hidden, model.head_weight, ids[1:])[0].mean()


def assert_same(ours, theirs):
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def plain_adamw(model, weight_decay=0.0, fused=True):
    matrices, others = ([p for p in model.parameters() if (p.ndim >= 2) == wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=fused)


@pytest.mark.parametrize("tied_head", [True, False])
def test_in_fp32_a_step_is_torchs_adamw_bit_for_bit(tiny_model, tied_head):
    ours, plain = (
        MasterWeights(tiny_model(tied_head=tied_head), torch.float32, weight_decay=0.1),
        tiny_model(tied_head=tied_head),
    )
    optimizer = plain_adamw(plain, weight_decay=0.1)
    for step in range(4):
        loss_of(ours.model, step).backward()
        ours.step(lr=1e-2, max_norm=NO_CLIP)
        optimizer.zero_grad()
        loss_of(plain, step).backward()
        optimizer.step()
        assert_same(ours.model.state_dict(), plain.state_dict())
        assert_same(ours.master, dict(plain.named_parameters()))


def test_the_fused_step_is_the_plain_loop_up_to_rounding(tiny_model):
    ours, plain = MasterWeights(tiny_model(), torch.float32), tiny_model()
    optimizer = plain_adamw(plain, fused=False)
    loss_of(ours.model, 0).backward()
    loss_of(plain, 0).backward()
    ours.step(lr=1e-2, max_norm=NO_CLIP)
    optimizer.step()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ours.master[name], parameter, rtol=1e-5, atol=1e-6)


def test_the_model_given_is_left_as_it_is(tiny_model):
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    weights = MasterWeights(model, torch.float32)
    loss_of(weights.model, 0).backward()
    weights.step(lr=1.0, max_norm=1.0)
    assert_same(model.state_dict(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_backward_passes_add_up_to_that_of_their_sum(tiny_model):
    apart, together = (MasterWeights(tiny_model(), torch.float32) for _ in range(2))
    loss_of(apart.model, 0).backward()
    loss_of(apart.model, 1).backward()
    (loss_of(together.model, 0) + loss_of(together.model, 1)).backward()
    for name, parameter in together.master.items():
        torch.testing.assert_close(apart.master[name].grad, parameter.grad, rtol=1e-5, atol=1e-7)
    assert apart.grad_norm() == pytest.approx(together.grad_norm(), rel=1e-5)


def test_gradients_leave_the_computing_copy_and_add_up_in_fp32(tiny_model):
    """In bf16 257 passes of gradient 1 would stop at 256: 8 bits of mantissa hold no 257."""
    weights = MasterWeights(tiny_model(), torch.bfloat16)
    for _ in range(257):
        weights.model.norm.weight.sum().backward()
    assert all(parameter.grad is None for parameter in weights.model.parameters())
    assert weights.master["norm.weight"].grad.dtype == torch.float32
    assert weights.master["norm.weight"].grad.eq(257).all()


def test_steps_too_small_for_bf16_are_not_lost(tiny_model):
    """Each step moves a norm weight by 1/1000: less than half of what bf16 can tell near 1 (1/128), 10 are more."""
    weights = MasterWeights(tiny_model(), torch.bfloat16)
    start = weights.model.norm.weight.detach().clone()
    for _ in range(10):
        weights.model.norm.weight.sum().backward()
        weights.step(lr=1e-3, max_norm=NO_CLIP)
    moved = weights.master["norm.weight"].detach().bfloat16()
    assert torch.equal(weights.model.norm.weight, moved) and not torch.equal(moved, start)


def test_a_longer_gradient_is_scaled_to_the_bound_and_a_shorter_one_is_not(tiny_model):
    """With beta1 = 0.9 the first moment after one step is a tenth of the gradient the optimizer saw."""
    for bound, expected in ((1.5, 1.5), (100.0, 32**0.5)):
        weights = MasterWeights(tiny_model(), torch.float32)
        weights.model.norm.weight.sum().backward()  # 32 ones: length 5.66
        assert weights.grad_norm() == pytest.approx(32**0.5)
        weights.step(lr=1e-3, max_norm=bound)
        seen = 10 * dict(weights.tensors())["adamw/exp_avg/norm.weight"]
        assert float(seen.norm()) == pytest.approx(expected)


def test_only_matrices_decay(tiny_model):
    """A gradient of zero moves nothing, so all that is left of a step is w - lr * decay * w."""
    model = tiny_model(biases="qkvo")
    weights = MasterWeights(model, torch.float32, weight_decay=0.5)
    sum(0.0 * parameter.sum() for parameter in weights.model.parameters()).backward()
    weights.step(lr=0.1, max_norm=1.0)
    for name, parameter in model.named_parameters():
        wanted = parameter * 0.95 if parameter.ndim == 2 else parameter
        torch.testing.assert_close(weights.master[name], wanted, msg=name)


def test_embeddings_and_small_tensors_keep_moments_in_fp32(tiny_model):
    """The head has 256 x 32 values, the embedding as many; no other matrix has 4096."""
    weights = MasterWeights(tiny_model(vocab_size=256, tied_head=False), torch.float32, optimizer="adamw8")
    loss_of(weights.model, 0).backward()
    weights.step(lr=1e-2, max_norm=1.0)
    narrow = [name for name, tensor in weights.tensors() if tensor.dtype == torch.uint8]
    assert narrow == ["adamw/exp_avg/head.weight", "adamw/exp_avg_sq/head.weight"]


def test_every_weight_is_moved_by_either_optimizer_once(tiny_model):
    for optimizer in ("adamw", "adamw8"):
        weights = MasterWeights(tiny_model(biases="qkvo"), torch.float32, optimizer=optimizer)
        grouped = [p for group in weights.optimizer.param_groups for p in group["params"]]
        assert sorted(map(id, grouped)) == sorted(map(id, weights.master.values()))


def test_the_state_of_the_other_optimizer_is_refused(tiny_model):
    def trained(optimizer):
        weights = MasterWeights(tiny_model(vocab_size=256, tied_head=False), torch.float32, optimizer=optimizer)
        loss_of(weights.model, 0).backward()
        weights.step(lr=1e-2, max_norm=1.0)
        return weights

    with pytest.raises(UserError, match="the optimizer's state has"):
        trained("adamw8").restore(dict(trained("adamw").tensors()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8"])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_restored_weights_go_on_bit_for_bit(tiny_model, dtype, optimizer, taken):
    def train(weights, steps):
        for step in steps:
            loss_of(weights.model, step).backward()
            weights.step(lr=1e-2, max_norm=1.0)

    options = {"weight_decay": 0.1, "optimizer": optimizer}
    unbroken = MasterWeights(tiny_model(vocab_size=256, tied_head=False), dtype, **options)
    train(unbroken, range(taken))
    saved = {name: tensor.clone() for name, tensor in unbroken.tensors()}
    train(unbroken, range(taken, 5))

    resumed = MasterWeights(tiny_model(vocab_size=256, tied_head=False, seed=9), dtype, **options)
    train(resumed, [7])  # whatever it did before is forgotten
    loss_of(resumed.model, 8).backward()
    resumed.restore(saved)
    assert resumed.grad_norm() == 0.0
    train(resumed, range(taken, 5))
    assert_same(dict(resumed.tensors()), dict(unbroken.tensors()))
    assert_same(resumed.model.state_dict(), unbroken.model.state_dict())


def test_a_step_on_nan_is_refused(tiny_model):
    weights = MasterWeights(tiny_model(), torch.float32)
    (weights.model.norm.weight.sum() * float("nan")).backward()
    with pytest.raises(AssertionError, match="length nan"):
        weights.step(lr=1e-3, max_norm=1.0)
    weights.forget_gradient()
    assert weights.grad_norm() == 0.0
