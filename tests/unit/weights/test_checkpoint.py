"""Whole-run checkpoints: bit for bit, or refused."""

import pytest
import torch

from smallpress.run.errors import UserError
from smallpress.weights.checkpoint import load_checkpoint, save_checkpoint


def some_tensors():
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 1 << 16, (300,), generator=generator, dtype=torch.int32).to(torch.uint16)
    return {
        "fp32": torch.randint(-(1 << 31), 1 << 31, (40,), generator=generator, dtype=torch.int32).view(torch.float32),
        "bf16": bits.view(torch.bfloat16),
        "fp16": torch.randn(3, 5, generator=generator).half(),
        "int64": torch.randint(-(1 << 62), 1 << 62, (2, 3, 4), generator=generator),
        "uint8": generator.get_state(),
        "flags": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 4),
        "turned": torch.randn(4, 6, generator=generator).T,
    }


def bits_of(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_every_bit_comes_back(tmp_path):
    tensors = some_tensors()
    save_checkpoint(tmp_path / "step-000001", tensors, {"step": 1})
    checkpoint = load_checkpoint(tmp_path / "step-000001")
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        again = checkpoint.read(name)
        assert again.dtype == tensor.dtype and again.shape == tensor.shape
        assert torch.equal(bits_of(again), bits_of(tensor)), name


def test_tensors_are_filled_in_place(tmp_path):
    tensors = some_tensors()
    save_checkpoint(tmp_path / "c", tensors, {})
    checkpoint = load_checkpoint(tmp_path / "c")
    for name, tensor in tensors.items():
        target = torch.zeros_like(tensor)  # keeps the strides of "turned"
        checkpoint.read_into(name, target)
        assert torch.equal(bits_of(target), bits_of(tensor)), name


def test_a_parameter_that_learns_can_be_written_and_filled(tmp_path):
    parameter = torch.nn.Parameter(torch.randn(3))
    save_checkpoint(tmp_path / "c", {"p": parameter}, {})
    other = torch.nn.Parameter(torch.zeros(3))
    load_checkpoint(tmp_path / "c").read_into("p", other)
    assert torch.equal(other, parameter)


def test_what_is_read_may_change_without_changing_the_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "c", {"x": torch.ones(3)}, {})
    load_checkpoint(tmp_path / "c").read("x").zero_()
    assert torch.equal(load_checkpoint(tmp_path / "c").read("x"), torch.ones(3))


def test_the_state_comes_back_to_the_last_digit(tmp_path):
    state = {"step": 10**17, "lr": 0.1 + 0.2, "names": ["a", "ü"], "nested": {"x": None, "y": [True, []]}}
    save_checkpoint(tmp_path / "c", {}, state)
    assert load_checkpoint(tmp_path / "c").state == state


@pytest.mark.parametrize("state", [{1: "a"}, {"a": (1, 2)}])
def test_a_state_json_would_change_is_our_bug(tmp_path, state):
    with pytest.raises(AssertionError):
        save_checkpoint(tmp_path / "c", {}, state)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_flipped_bit_is_found_and_named(tmp_path, name):
    save_checkpoint(tmp_path / "c", {"x": torch.ones(100)}, {"step": 1})
    path = tmp_path / "c" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=name):
        load_checkpoint(tmp_path / "c")


def test_an_unfinished_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="incomplete"):
        load_checkpoint(tmp_path / "c")


def test_a_run_of_another_shape_is_told_so(tmp_path):
    save_checkpoint(tmp_path / "c", {"x": torch.ones(3)}, {})
    checkpoint = load_checkpoint(tmp_path / "c")
    with pytest.raises(UserError, match=r"x is F32 \[3\], but the run calls for F32 \[4\]"):
        checkpoint.read_into("x", torch.zeros(4))
    with pytest.raises(UserError, match="BF16"):
        checkpoint.read_into("x", torch.zeros(3, dtype=torch.bfloat16))
    with pytest.raises(UserError, match="no tensor y"):
        checkpoint.read("y")


def test_an_existing_checkpoint_is_not_overwritten(tmp_path):
    save_checkpoint(tmp_path / "c", {"x": torch.ones(3)}, {})
    with pytest.raises(UserError, match="already exists"):
        save_checkpoint(tmp_path / "c", {"x": torch.zeros(3)}, {})
