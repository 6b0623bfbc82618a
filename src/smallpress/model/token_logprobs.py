"""Log-probabilities of chosen tokens without ever holding all logits: N x V is the largest array of training.

For 2,000 tokens and 49,152 words the logits and their gradients would be 0.8 GB. Rows are taken a chunk at a time, and
in the backward pass computed once more: one product in four, in exchange for memory that does not grow with N.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK, CACHED = 512, 64
"""Rows whose gradients are multiplied together, and those whose logits, 200 KB each in fp32, are passed over while they
are in a processor's caches."""


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NM: Tensor, head_VM: Tensor, ids_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies, norms = [], [], []
        for hidden, ids in zip(hidden_NM.split(CACHED), ids_N.split(CACHED), strict=True):
            logits = _logits(hidden, head_VM, temperature)
            peak_N1 = logits.amax(-1, keepdim=True)
            logits -= peak_N1
            chosen = logits.gather(-1, ids[:, None])[:, 0]
            odds = logits.exp()
            total = odds.sum(-1)
            mean_logit = torch.bmm(odds[:, None], logits[:, :, None]).flatten() / total  # under the softmax
            log_total = total.log()
            logprobs.append(chosen - log_total)
            entropies.append(log_total - mean_logit)
            norms.append(peak_N1[:, 0] + log_total)
        norm_N = torch.cat(norms)
        ctx.save_for_backward(hidden_NM, head_VM, ids_N, norm_N)
        ctx.temperature = temperature
        entropy_N = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy_N)
        return torch.cat(logprobs), entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_NM, head_VM, ids_N, norm_N = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden_NM)
        grad_head = None  # stays so where the head is frozen
        if ctx.needs_input_grad[1]:
            grad_head = torch.zeros(head_VM.shape, dtype=torch.float32, device=head_VM.device)
        scaled_N = grad_N / ctx.temperature
        narrow = hidden_NM.new_empty(min(CHUNK, len(ids_N)), len(head_VM))
        for start in range(0, len(ids_N), CHUNK):
            end = min(start + CHUNK, len(ids_N))
            for first in range(start, end, CACHED):
                rows = slice(first, min(first + CACHED, end))
                logits = _logits(hidden_NM[rows], head_VM, ctx.temperature)
                grad_logits = logits.sub_(norm_N[rows, None]).exp_().mul_(-scaled_N[rows, None])
                grad_logits.scatter_add_(1, ids_N[rows, None], scaled_N[rows, None])
                narrow[first - start : rows.stop - start] = grad_logits
            torch.mm(narrow[: end - start], head_VM, out=grad_hidden[start:end])
            if grad_head is not None:
                grad_head += narrow[: end - start].T @ hidden_NM[start:end]
        return grad_hidden, None if grad_head is None else grad_head.to(head_VM.dtype), None, None


def _logits(hidden_NM: Tensor, head_VM: Tensor, temperature: float) -> Tensor:
    """[N, V] in fp32, divided by the temperature in the same pass that widens them."""
    return (hidden_NM @ head_VM.T) * torch.full((1, 1), 1 / temperature, device=hidden_NM.device)


def token_logprobs(
    hidden_NM: Tensor, head_VM: Tensor, ids_N: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log softmax(hidden @ head^T / temperature)[id] of each row, and the entropy of each row in nats; both fp32 [N].

    The gradient flows through the log-probabilities only; the entropy is for the log.
    """
    return _TokenLogprobs.apply(hidden_NM, head_VM, ids_N, temperature)
