"""Weights that are only read: low-bit codes with a scale for each block, made numbers again where they are used.

    nf4   16 levels that halve a normal distribution evenly, blocks of 64: 4.25 bits (Dettmers et al. 2023, appendix E;
          without their second quantization, of the scales)
    q4_0  whole numbers -8 to 7, blocks of 32: 4.5 bits; a GGUF's own codes
    q8_0  whole numbers -127 to 127, blocks of 32: 8.5 bits; a GGUF's own codes

Rows are whole blocks. Two codes of 4 bits share a byte, neighbours in a row, so that a table of 256 pairs decodes both
at once.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from smallpress.lowbit.encode import q4_0, q8_0
from smallpress.run.errors import UserError

FrozenFormat = Literal["nf4", "q4_0", "q8_0"]

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    block: int
    levels: tuple[float, ...] | None  # of a code; None: signed bytes


LAYOUTS: dict[str, Layout] = {
    "nf4": Layout(64, NF4),
    "q4_0": Layout(32, tuple(float(code - 8) for code in range(16))),
    "q8_0": Layout(32, None),
}


class FrozenMatrix(nn.Module):
    """[O, M] in low-bit codes. Buffers only: nothing of it is trained, and a change of dtype leaves it alone."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight_OM: Tensor, format: FrozenFormat, what: str):
        """Raises UserError naming `what` where a row is no whole number of blocks or a weight is not finite."""
        super().__init__()
        self.shape, self.layout = tuple(weight_OM.shape), LAYOUTS[format]
        if self.shape[1] % self.layout.block:
            wrong = f"{what} has rows of {self.shape[1]}, and {format} has blocks of {self.layout.block}"
            raise UserError(wrong, "choose another format, or none, for lora.base")
        values = weight_OM.detach().float().reshape(-1, self.layout.block)
        if not bool(torch.isfinite(values).all()):
            raise UserError(f"{what} holds a number that is not finite", "the model is damaged: make it again")
        scales, codes = _nf4(values) if format == "nf4" else _of_ggml(values, format)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales.view(torch.int16), persistent=False)  # f16, out of reach of `.to(dtype)`

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """[O, M]: code times scale, computed in `dtype`."""
        scales = self.scales.view(torch.float16).to(dtype)
        if self.layout.levels is None:
            values = self.codes.view(torch.int8).to(dtype)
        else:
            values = _pairs(self.layout.levels, dtype)[self.codes.int()].view(dtype)
        return (values.view(-1, self.layout.block) * scales[:, None]).view(self.shape)

    def nbytes(self) -> int:
        return self.codes.numel() + 2 * self.scales.numel()


class FrozenProduct(torch.autograd.Function):
    """x W^T, where the numbers of W exist only while they are used, in both passes."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x_NM: Tensor, matrix: FrozenMatrix) -> Tensor:
        ctx.matrix = matrix  # type: ignore[attr-defined]
        return x_NM @ matrix.matrix(x_NM.dtype).T

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_NO: Tensor) -> tuple[Tensor, None]:
        return grad_NO @ ctx.matrix.matrix(grad_NO.dtype), None  # type: ignore[attr-defined]


def _pairs(levels: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    """[256]: what each byte stands for, two numbers of `dtype` seen as one whole number of twice the width."""
    table = torch.tensor(levels, dtype=dtype)
    byte = torch.arange(256)
    both = torch.stack((table[byte & 15], table[byte >> 4]), dim=1)
    return both.view(torch.int32 if both.element_size() == 2 else torch.int64)[:, 0]


def _nf4(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest magnitude of a block is its scale; codes are the nearest levels."""
    scales = values.abs().amax(1).half()
    wide = scales.float()[:, None]
    scaled = torch.where(wide > 0, values / wide.clamp(min=1e-30), 0.0)
    levels = torch.tensor(NF4)
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
    return scales, _packed(codes.to(torch.uint8))


def _of_ggml(values: Tensor, format: FrozenFormat) -> tuple[Tensor, Tensor]:
    """The scales and codes that a GGUF file of these values has."""
    raw = (q8_0 if format == "q8_0" else q4_0)(values.numpy())
    scales = torch.from_numpy(np.ascontiguousarray(raw[:, :2]).view(np.float16)[:, 0].copy())
    bytes_ = raw[:, 2:]
    if format == "q4_0":  # there the halves of a block share bytes, here neighbours
        codes = np.concatenate((bytes_ & np.uint8(15), bytes_ >> np.uint8(4)), axis=1)
        return scales, _packed(torch.from_numpy(codes))
    return scales, torch.from_numpy(np.ascontiguousarray(bytes_)).reshape(-1)


def _packed(codes: Tensor) -> Tensor:
    """Neighbours in one byte, the first in its low half."""
    flat = codes.reshape(-1)
    return flat[::2] | flat[1::2] << 4
