"""Log-probabilities of chosen tokens without ever holding all logits: N x V is the largest array of training.

For 2,000 tokens and 49,152 words the logits and their gradients would be 0.8 GB. Rows are taken a chunk at a time, and
in the backward pass computed once more: one product in four, in exchange for memory that does not grow with N. Where
all of them are few, their probabilities are kept instead.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK, CACHED = 512, 128
"""Rows whose gradients are multiplied together, and those whose logits, 200 KB each in fp32, are passed over while they
are in a processor's caches."""

KEPT = 1 << 25
"""Probabilities, of all rows and words, that are kept for the backward pass."""


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NM: Tensor, head_VM: Tensor, ids_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logprob_N, entropy_N, norm_N = hidden_NM.new_empty(3, len(ids_N), dtype=torch.float32)
        logits_of = Logits(hidden_NM, head_VM, CACHED, temperature)
        odds_CV = logits_of.like()
        learns = any(ctx.needs_input_grad) and len(ids_N) * len(head_VM) <= KEPT
        kept_NV = hidden_NM.new_empty(len(ids_N), len(head_VM)) if learns else None
        for rows in row_chunks(len(ids_N), CACHED):
            logits = logits_of(rows)
            peak_N1 = logits.amax(-1, keepdim=True)
            logits -= peak_N1
            chosen = logits.gather(-1, ids_N[rows, None])[:, 0]
            odds = torch.exp(logits, out=odds_CV[: len(logits)])
            total = odds.sum(-1)
            mean_logit = torch.bmm(odds[:, None], logits[:, :, None]).flatten() / total  # under the softmax
            log_total = total.log()
            logprob_N[rows] = chosen - log_total
            entropy_N[rows] = log_total - mean_logit
            norm_N[rows] = peak_N1[:, 0] + log_total
            if kept_NV is not None:
                torch.mul(odds, total.reciprocal_()[:, None], out=kept_NV[rows])
        if kept_NV is not None:
            kept_NV.scatter_(1, ids_N[:, None], logprob_N[:, None].expm1().to(kept_NV.dtype))
        ctx.save_for_backward(hidden_NM, head_VM, ids_N, norm_N, logprob_N, kept_NV)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy_N)
        return logprob_N, entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """A row's gradient is p - onehot, times -grad / temperature; p - 1 of the chosen token from its logarithm."""
        hidden_NM, head_VM, ids_N, norm_N, logprob_N, kept_NV = ctx.saved_tensors
        logits_of = Logits(hidden_NM, head_VM, CACHED, ctx.temperature)

        def fill(rows: slice, out: Tensor) -> None:
            out.copy_(logits_of(rows).sub_(norm_N[rows, None]).exp_())
            out.scatter_(1, ids_N[rows, None], logprob_N[rows, None].expm1().to(out.dtype))

        scale_N1 = (grad_N / -ctx.temperature)[:, None]
        scaled_NM = (hidden_NM * scale_N1).to(hidden_NM.dtype)
        grad_hidden, grad_head = head_backward(scaled_NM, head_VM, ctx.needs_input_grad[1], fill, CACHED, kept_NV)
        return grad_hidden.mul_(scale_N1), grad_head, None, None


def head_backward(
    hidden_NM: Tensor,
    head_VM: Tensor,
    learns: bool,
    fill: Callable[[slice, Tensor], None],
    at_once: int,
    kept_NV: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of hidden state and head, the head's None unless it `learns`; those of the logits are all there as
    `kept_NV`, or `fill` writes them for some rows, of `at_once` at most, where it is told, in the hidden state's dtype.
    """
    grad_hidden = torch.empty_like(hidden_NM)
    grad_head = None
    if learns:
        grad_head = torch.zeros(head_VM.shape, dtype=torch.float32, device=head_VM.device)
    grads_CV = hidden_NM.new_empty(min(CHUNK, len(hidden_NM)) if kept_NV is None else 0, len(head_VM))
    for chunk in row_chunks(len(hidden_NM), CHUNK):
        grads = grads_CV[: chunk.stop - chunk.start] if kept_NV is None else kept_NV[chunk]
        if kept_NV is None:
            for rows, part in zip(row_chunks(chunk.stop, at_once, chunk.start), grads.split(at_once), strict=True):
                fill(rows, part)
        torch.mm(grads, head_VM, out=grad_hidden[chunk])
        if grad_head is None:
            continue
        if grads.dtype == grad_head.dtype:
            grad_head.addmm_(grads.T, hidden_NM[chunk])
        else:
            grad_head += grads.T @ hidden_NM[chunk]
    return grad_hidden, None if grad_head is None else grad_head.to(head_VM.dtype)


def row_chunks(end: int, size: int, start: int = 0) -> Iterator[slice]:
    """As torch's split: of no rows one chunk without any."""
    return (slice(first, min(first + size, end)) for first in range(start, max(end, start + 1), size))


class Logits:
    """[N, V] in fp32 of a few rows at a time, divided by the temperature in the pass that widens them.

    They lie where those before lay: the faults of fresh pages take as long as the product does.
    """

    def __init__(self, hidden_NM: Tensor, head_VM: Tensor, at_once: int, temperature: float = 1.0):
        self.hidden_NM, self.head_MV, self.temperature = hidden_NM, head_VM.T, temperature
        self.product_CV = hidden_NM.new_empty(min(at_once, len(hidden_NM)), len(head_VM))
        self.logits_CV = self.product_CV if hidden_NM.dtype == torch.float32 else self.like()

    def like(self) -> Tensor:
        return torch.empty_like(self.product_CV, dtype=torch.float32)

    def __call__(self, rows: slice) -> Tensor:
        n = rows.stop - rows.start
        product = torch.mm(self.hidden_NM[rows], self.head_MV, out=self.product_CV[:n])
        if product.dtype == torch.float32 and self.temperature == 1.0:
            return product
        return torch.mul(
            product, torch.full((1, 1), 1 / self.temperature, device=product.device), out=self.logits_CV[:n]
        )


def token_logprobs(
    hidden_NM: Tensor, head_VM: Tensor, ids_N: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log softmax(hidden @ head^T / temperature)[id] of each row, and the entropy of each row in nats; both fp32 [N].

    The gradient flows through the log-probabilities only; the entropy is for the log.
    """
    return _TokenLogprobs.apply(hidden_NM, head_VM, ids_N, temperature)
