"""The 8-bit optimizer against its authors' library, where that is installed: `pip install bitsandbytes`."""

import pytest
import torch

from smallpress.lowbit.dynamic_map import dynamic_map
from smallpress.optim.adamw8 import AdamW8

functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")


@pytest.mark.parametrize("signed", [True, False])
def test_the_map_is_the_same_to_the_bit(signed):
    assert torch.equal(dynamic_map(signed), functional.create_dynamic_map(signed))


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_ten_steps_leave_the_same_parameters_and_moments(plain, weight_decay):
    """Nearly: on a CPU the library finds a code through a table of 2^16 equal steps over [-1, 1], so values below
    2^-15 of the scale come out otherwise, and a value near a tie may fall the other way."""
    from bitsandbytes.optim import AdamW8bit

    start = torch.randn(64, 256)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    options = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": weight_decay}
    mine, other = AdamW8([ours], plain=plain, **options), AdamW8bit([theirs], **options)
    for step in range(10):
        gradient = torch.randn(start.shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
        if step == 0:
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    state, peer = mine.state[ours], other.state[theirs]
    for name, number, signed in (("exp_avg", 1, True), ("exp_avg_sq", 2, False)):
        torch.testing.assert_close(state[f"{name}_scales"], peer[f"absmax{number}"], rtol=1e-2, atol=0)
        table = dynamic_map(signed)
        found, wanted = (table[codes.long()] for codes in (state[name], peer[f"state{number}"]))
        assert (found - wanted).abs().max() < 0.03, name  # two of the largest steps, 0.9 / 64
        assert (found - wanted).abs().mean() < 5e-4, name
    assert (ours - theirs).norm() < 0.01 * (ours - start).norm()
