"""Attention over a token tree in the native core, in fp32: nothing is padded, laid out twice or computed twice but the
scores, which the backward pass makes again from the sums that the forward pass keeps (Dao et al. 2022)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallpress.lowbit.native_core import native_core

LANES = 16

Segments = NDArray[np.int64]
"""[S, 4]: where a segment begins, its length, the segment it follows (-1: none), and the unit it belongs to: a prompt
with all its completions. What all see is of unit -1 and stands first."""


def runs_natively(q_NHD: Tensor, v_NKW: Tensor) -> bool:
    """bf16 stays with torch, which has the processor's instructions for it where there are any."""
    whole = q_NHD.shape[-1] % LANES == 0 and v_NKW.shape[-1] % LANES == 0
    return whole and q_NHD.dtype == torch.float32 and q_NHD.device.type == "cpu" and native_core() is not None


def tree_attention(segments: Segments, q_NHD: Tensor, k_NKD: Tensor, v_NKW: Tensor) -> Tensor:
    """[N, H, W], with gradients for all three."""
    return _TreeAttention.apply(segments, q_NHD, k_NKD, v_NKW)


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segments: Segments, q_NHD: Tensor, k_NKD: Tensor, v_NKW: Tensor) -> Tensor:
        core = native_core()
        assert core is not None
        q_NHD, k_NKD, v_NKW = (x.contiguous() for x in (q_NHD, k_NKD, v_NKW))
        N, H, D = q_NHD.shape
        out_NHW, lse_NH = q_NHD.new_empty(N, H, v_NKW.shape[-1]), q_NHD.new_empty(N, H)
        arrays = [x.detach().numpy() for x in (q_NHD, k_NKD, v_NKW)]
        core.tree_attention(torch.get_num_threads(), segments, *arrays, D**-0.5, out_NHW.numpy(), lse_NH.numpy())
        ctx.segments = segments
        ctx.save_for_backward(q_NHD, k_NKD, v_NKW, out_NHW, lse_NH)
        return out_NHW

    @staticmethod
    def backward(ctx: Any, grad_NHW: Tensor) -> tuple[Tensor | None, ...]:
        core = native_core()
        assert core is not None
        q_NHD, k_NKD, v_NKW, out_NHW, lse_NH = ctx.saved_tensors
        grads = torch.empty_like(q_NHD), torch.zeros_like(k_NKD), torch.zeros_like(v_NKW)
        given = [x.detach().numpy() for x in (out_NHW, lse_NH, grad_NHW.contiguous(), *grads)]
        arrays = [x.detach().numpy() for x in (q_NHD, k_NKD, v_NKW)]
        core.tree_attention_backward(torch.get_num_threads(), ctx.segments, *arrays, q_NHD.shape[-1] ** -0.5, *given)
        return None, *grads
