"""Products of matrices in 8 bits, as DeepSeek-V3 trains with (arXiv 2412.19437, section 3.3), in int8 or FP8 E4M3.

left @ right.T is summed over columns. Both factors are cut into spans of columns; within a span a row has one scale, or
128 rows together have one, and numbers are scale * code. A span's products of codes are summed exactly, or in fp32
where they are FP8, and added up over the spans in fp32: an outlier spoils its own span alone.

    int8   code = round(x / scale), scale = max|x| / 127
    fp8    code = x / scale as E4M3, scale = max|x| / 448
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smallpress.lowbit.native_core import native_core

SPAN = 128
"""Columns that share a scale, and rows where they do: V3's 1 x 128 and 128 x 128."""

WHOLE_ROW = 1 << 30
"""A span as long as any row: one scale for each."""

TINY = 1e-36
"""What is smaller counts as zero: the inverse of its scale might be no number."""

Format = Literal["int8", "fp8"]
LARGEST: dict[Format, float] = {"int8": 127.0, "fp8": 448.0}

Product = Callable[[Tensor, Tensor, bool], Tensor]
"""(left_MK, right_NK, right_in_blocks) -> left @ right.T, [M, N] in left's dtype."""


@dataclass(frozen=True, slots=True)
class Coded:
    """`codes` [rows, spans * span], whole numbers or E4M3 values as fp32; `scales` [rows, spans]."""

    codes: Tensor
    scales: Tensor
    span: int


def encode(x_RK: Tensor, format: Format, span: int, in_blocks: bool) -> Coded:
    """Scales of rows, or `in_blocks` of 128 rows each. A span that is not finite has the scale NaN.

    >>> coded = encode(torch.tensor([[254.0, -2.0, 1.0]]), "int8", span=128, in_blocks=False)
    >>> coded.codes[0].tolist(), coded.scales.tolist()
    ([127.0, -1.0, 0.0], [[2.0]])
    """
    R, K = x_RK.shape
    span = min(span, K)
    n_spans = -(-K // span)
    x_RSK = torch.nn.functional.pad(x_RK.float(), (0, n_spans * span - K)).view(R, n_spans, span)
    peaks_RS = x_RSK.abs().amax(2)
    if in_blocks:
        n_blocks = -(-R // SPAN)
        padded = torch.nn.functional.pad(peaks_RS, (0, 0, 0, n_blocks * SPAN - R))
        peaks_RS = padded.view(n_blocks, SPAN, n_spans).amax(1).repeat_interleave(SPAN, 0)[:R]
    peaks_RS = torch.where(peaks_RS.isfinite(), peaks_RS, torch.nan)
    largest = peaks_RS.new_tensor(LARGEST[format])  # a plain number / tensor is rounded twice
    inverse_RS = torch.where(peaks_RS > TINY, largest / peaks_RS, 0.0)
    scaled_RSK = (x_RSK * inverse_RS[:, :, None]).nan_to_num_(nan=0.0)
    codes_RSK = scaled_RSK.round_() if format == "int8" else scaled_RSK.to(torch.float8_e4m3fn).float()
    scales_RS = torch.where(peaks_RS <= TINY, 0.0, peaks_RS / largest)
    return Coded(codes_RSK.view(R, n_spans * span), scales_RS, span)


def simulated(format: Format, span: int = SPAN) -> Product:
    """The arithmetic in plain torch, on any device: what the fast forms are held against. Sums of whole numbers are
    exact: 128 products of codes stay below 2^24, and longer spans are summed in fp64."""

    def product(left_MK: Tensor, right_NK: Tensor, right_in_blocks: bool) -> Tensor:
        left, right = encode(left_MK, format, span, False), encode(right_NK, format, span, right_in_blocks)
        dtype = torch.float32 if left.span <= 1024 else torch.float64
        total_MN = torch.zeros(len(left_MK), len(right_NK), device=left_MK.device)
        for s in range(left.scales.shape[1]):
            columns = slice(s * left.span, (s + 1) * left.span)
            dots_MN = (left.codes[:, columns].to(dtype) @ right.codes[:, columns].to(dtype).T).float()
            total_MN += dots_MN * (left.scales[:, s, None] * right.scales[:, s])
        return total_MN.to(left_MK.dtype)

    return product


def int8(span: int = SPAN) -> Product:
    """In the native core, or where there is none in plain torch."""
    return simulated("int8", span) if native_core() is None else native_int8(span)


def native_int8(span: int = SPAN, n_threads: int | None = None, kernels: str = "") -> Product:
    """int8 in the native core, for fp32 and bf16 on a CPU; `n_threads` None: torch's number."""
    core = native_core()
    assert core is not None, "native_int8 needs the native core"

    def product(left_MK: Tensor, right_NK: Tensor, right_in_blocks: bool) -> Tensor:
        out_MN = torch.empty(len(left_MK), len(right_NK), dtype=left_MK.dtype)
        columns = min(span, -(-left_MK.shape[1] // 64) * 64)
        left, right, out = (_array(x.detach()) for x in (left_MK, right_NK, out_MN))
        core.product_8bit(n_threads or torch.get_num_threads(), left, right, columns, right_in_blocks, out, kernels)
        return out_MN

    return product


def _array(x: Tensor) -> object:
    """A numpy view, bf16 as uint16; a copy where neither rows nor columns are contiguous."""
    if not (x.is_contiguous() or x.T.is_contiguous()):
        x = x.contiguous()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def scaled_mm_fp8(span: int = SPAN) -> Product:
    """FP8 E4M3 by torch._scaled_mm, a span at a time with scales of 1, and V3's promotion to fp32 between spans.

    `torch._scaled_mm` runs where the device has FP8 products, and in torch's CPU build; it wants 16 columns a step.
    """

    def product(left_MK: Tensor, right_NK: Tensor, right_in_blocks: bool) -> Tensor:
        left, right = encode(left_MK, "fp8", span, False), encode(right_NK, "fp8", span, right_in_blocks)
        one = torch.ones((), device=left_MK.device)
        total_MN = torch.zeros(len(left_MK), len(right_NK), device=left_MK.device)
        rows = -len(right_NK) % 16
        for s in range(left.scales.shape[1]):
            columns = slice(s * left.span, (s + 1) * left.span)
            filling = -left.span % 16
            left_8 = torch.nn.functional.pad(left.codes[:, columns], (0, filling)).to(torch.float8_e4m3fn)
            right_8 = torch.nn.functional.pad(right.codes[:, columns], (0, filling, 0, rows)).to(torch.float8_e4m3fn)
            dots_MN = torch._scaled_mm(left_8, right_8.T, one, one, out_dtype=torch.float32)[:, : len(right_NK)]
            total_MN += dots_MN * (left.scales[:, s, None] * right.scales[:, s])
        return total_MN.to(left_MK.dtype)

    return product
