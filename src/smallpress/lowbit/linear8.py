"""A linear layer for training: one product forward, two backward, in the arithmetic it is given.

    y = x w^T + b      columns of x, w:   M    activations in 1 x 128 tiles, weights in 128 x 128 blocks
    dx = dy w          columns of dy, w:  O    the same, so that w has the same codes both ways
    dw = dy^T x        tokens             N    tiles of 128 tokens for both

Gradients are never scaled by blocks of tokens: their outliers are of whole tokens, and V3's appendix B.2 reports a run
that diverged so. Embedding, head, router, norms and attention's own products stay as they are.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smallpress.lowbit.product8 import SPAN, WHOLE_ROW, Product, int8

Backward = Literal["same", "int8"]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The products of a linear layer. None: torch's own, in the dtype of what is multiplied.

    `weight_gradient` in high precision while the others are in 8 bits is SwitchBack (arXiv 2304.13013).
    """

    forward: Product | None = None
    input_gradient: Product | None = None
    weight_gradient: Product | None = None

    @classmethod
    def all_in(cls, product: Product) -> "Arithmetic":
        return cls(product, product, product)

    def output(self, x_NM: Tensor, weight_OM: Tensor, out: Tensor | None = None) -> Tensor:
        return _product(self.forward, x_NM, weight_OM, True, out)

    def grad_x(self, grad_NO: Tensor, weight_OM: Tensor, out: Tensor | None = None) -> Tensor:
        return _product(self.input_gradient, grad_NO, weight_OM.T, True, out)

    def grad_weight(self, grad_NO: Tensor, x_NM: Tensor, out: Tensor | None = None) -> Tensor:
        return _product(self.weight_gradient, grad_NO.T, x_NM.T, False, out)


def _product(
    product: Product | None, left_MK: Tensor, right_NK: Tensor, right_in_blocks: bool, out_MN: Tensor | None
) -> Tensor:
    """left @ right.T, written where `out_MN` says."""
    if product is None:
        return torch.mm(left_MK, right_NK.T, out=out_MN)
    made_MN = product(left_MK, right_NK, right_in_blocks)
    return made_MN if out_MN is None else out_MN.copy_(made_MN)


PLAIN = Arithmetic()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NM: Tensor, weight_OM: Tensor, bias_O: Tensor | None, arithmetic: Arithmetic) -> Tensor:
        ctx.save_for_backward(x_NM, weight_OM)
        ctx.arithmetic, ctx.has_bias = arithmetic, bias_O is not None
        y_NO = arithmetic.output(x_NM, weight_OM)
        return y_NO if bias_O is None else y_NO + bias_O

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NM, weight_OM = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        return (
            ctx.arithmetic.grad_x(grad_NO, weight_OM) if wants_x else None,
            ctx.arithmetic.grad_weight(grad_NO, x_NM) if wants_weight else None,
            grad_NO.sum(0) if ctx.has_bias and wants_bias else None,
            None,
        )


def linear8(x: Tensor, weight_OM: Tensor, bias_O: Tensor | None, arithmetic: Arithmetic) -> Tensor:
    """[..., M] to [..., O], with gradients for all three."""
    y_NO = _Linear.apply(x.reshape(-1, x.shape[-1]), weight_OM, bias_O, arithmetic)
    return y_NO.view(*x.shape[:-1], len(weight_OM))


def use(arithmetic: Arithmetic, layers: nn.Module, keep: tuple[str, ...] = ("router",)) -> list[str]:
    """Let every linear layer within `layers` (a transformer's, not its embedding or head) compute in `arithmetic`.

    Parameters, their names and the modules stay; those whose last name is in `keep` stay as they are. A feed-forward
    that multiplies by its own last matrix has an `arithmetic` of its own. Returns the names of what computes so now.
    """
    changed = []
    for name, module in layers.named_modules():
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] not in keep:
            module.forward = partial(_forward, module, arithmetic)  # type: ignore[method-assign]
            changed.append(name)
        if hasattr(module, "arithmetic"):
            module.arithmetic = arithmetic
    return changed


def set_backward(choice: Backward, layers: nn.Module) -> None:
    """Let gradients of the linear layers within `layers` be computed as a recipe's `backward` says.

    For models that were trained in high precision: some of their activations are so large that products forward in 8
    bits would be another model, while gradients keep their direction to a cosine of .998 (docs/RECORDS.md).
    """
    if choice == "int8":
        use(Arithmetic(None, int8(SPAN), int8(WHOLE_ROW)), layers)


def _forward(module: nn.Linear, arithmetic: Arithmetic, x: Tensor) -> Tensor:
    return linear8(x, module.weight, module.bias, arithmetic)
