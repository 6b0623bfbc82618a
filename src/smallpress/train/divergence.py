"""Distillation by probabilities: the student's next-token distribution is drawn to the teacher's.

    forward   sum over v of p_t(v) (log p_t(v) - log p_s(v))      (Hinton et al. 2015)
    reverse   sum over v of p_s(v) (log p_s(v) - log p_t(v))      (Gu et al. 2023, MiniLLM)

v runs over the teacher's `top_k` likeliest tokens and one event for all the others: by the log-sum inequality never
more than the divergence over all, and near it where the k tokens hold nearly all probability. Where the student's own
answers are scored this is on-policy distillation (Agarwal et al. 2023, GKD).

Both models' logits exist for a chunk of rows at a time, and once more in the backward pass.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from smallpress.model.hidden_rows import hidden_rows
from smallpress.model.token_logprobs import Logits, head_backward, row_chunks
from smallpress.model.transformer import Transformer
from smallpress.train.distill_settings import Divergence
from smallpress.train.packing import MicroBatch, pack
from smallpress.train.samples import Sample

CHUNK = 64
"""Rows whose logits are held at once."""


def divergences(student_NV: Tensor, teacher_NV: Tensor, settings: Divergence) -> Tensor:
    """[N] in nats, from logits in fp32.

    >>> same = torch.tensor([[1.0, 2.0, 3.0]])
    >>> divergences(same, same + 5, Divergence(top_k=2)).abs().max() < 1e-6
    tensor(True)
    """
    student_NV, teacher_NV = (F.log_softmax(x / settings.temperature, -1) for x in (student_NV, teacher_NV))
    if 0 < settings.top_k < teacher_NV.shape[-1] - 1:
        teacher_NK, places_NK = teacher_NV.topk(settings.top_k, -1)
        student_NV, teacher_NV = (
            torch.cat((kept, _rest(kept)), -1) for kept in (student_NV.gather(-1, places_NK), teacher_NK)
        )
    first, second = (teacher_NV, student_NV) if settings.direction == "forward" else (student_NV, teacher_NV)
    return (first.exp() * (first - second)).sum(-1)


def _rest(kept_NK: Tensor) -> Tensor:
    """[N, 1] log of the probability that the tokens kept leave over; never below e^-18, fp32's last digit."""
    return torch.log((1 - kept_NK.exp().sum(-1, keepdim=True)).clamp(min=1.5e-8))


class Rollouts(Protocol):
    def __call__(self, items: Sequence[Sample], step: int) -> list[Sample]:
        """The student's own answers to the prompts of the items."""
        ...


class Imitation:
    """The objective: mean divergence over trained tokens, and `likelihood` times the answers' own mean.

    `rollouts`: what is trained on instead of the answers in the data, anew each step.
    """

    def __init__(
        self, settings: Divergence, teacher: Transformer, micro_batch_tokens: int, rollouts: Rollouts | None = None
    ):
        self.settings, self.teacher, self.budget, self.rollouts = settings, teacher, micro_batch_tokens, rollouts

    def accumulate(self, model: Transformer, items: Sequence[Sample], step: int) -> dict[str, float]:
        if self.rollouts is not None:
            items = self.rollouts(items, step)
        return self._run(model, items, lambda loss: loss.backward())

    @torch.no_grad()
    def measure(self, model: Transformer, items: Sequence[Sample]) -> dict[str, float]:
        """On the answers in the data, also where training is on the student's own."""
        log = self._run(model, items, lambda loss: None)
        return {name: log[name] for name in ("loss", "divergence", "nll")}

    def fingerprint(self, item: Sample) -> str:
        return f"{item.ids}{item.loss_mask}"

    def _run(
        self, model: Transformer, items: Sequence[Sample], backward: Callable[[Tensor], object]
    ) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for batch in pack(items, self.budget):
            divergence_P, nll_P = self._token_terms(model, batch)
            divergence, nll = (divergence_P * batch.weights_P).sum(), (nll_P * batch.weights_P).sum()
            loss = divergence + self.settings.likelihood * nll
            backward(loss)
            sums["loss"] += float(loss.detach())
            sums["divergence"] += float(divergence.detach())
            sums["nll"] += float(nll.detach())
            sums["tokens/trained"] += len(batch.targets_P)
        return dict(sums) | {"tokens": float(sum(len(item.ids) for item in items))}

    def _token_terms(self, model: Transformer, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """[P] divergences and [P] negative log-likelihoods of the tokens trained on."""
        with torch.no_grad():
            teacher_PM = hidden_rows(self.teacher, batch.tree, batch.ids_N, batch.rows_P)
        student_PM = hidden_rows(model, batch.tree, batch.ids_N, batch.rows_P)
        heads = (model.head_weight, self.teacher.head_weight)
        return _Terms.apply(student_PM, heads[0], teacher_PM, heads[1], batch.targets_P, self.settings)


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_PM: Tensor,
        head_VM: Tensor,
        teacher_PM: Tensor,
        other_VM: Tensor,
        ids_P: Tensor,
        *settings: Any,
    ) -> tuple[Tensor, ...]:
        student_of, teacher_of = Logits(student_PM, head_VM, CHUNK), Logits(teacher_PM, other_VM, CHUNK)
        found = [
            _terms(student_of(rows), teacher_of(rows), ids_P[rows], *settings) for rows in row_chunks(len(ids_P), CHUNK)
        ]
        ctx.save_for_backward(student_PM, head_VM, teacher_PM, other_VM, ids_P)
        ctx.settings = settings
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads_P: Tensor) -> tuple[Tensor | None, ...]:
        student_PM, head_VM, teacher_PM, other_VM, ids_P = ctx.saved_tensors
        student_of, teacher_of = Logits(student_PM, head_VM, CHUNK), Logits(teacher_PM, other_VM, CHUNK)

        def fill(rows: slice, out: Tensor) -> None:
            student_NV, teacher_NV = student_of(rows).detach().requires_grad_(), teacher_of(rows)
            with torch.enable_grad():
                terms = _terms(student_NV, teacher_NV, ids_P[rows], *ctx.settings)
            out.copy_(torch.autograd.grad(terms, student_NV, [grad_P[rows] for grad_P in grads_P])[0])

        return *head_backward(student_PM, head_VM, ctx.needs_input_grad[1], fill, CHUNK), None, None, None, None


def _terms(student_NV: Tensor, teacher_NV: Tensor, ids_N: Tensor, settings: Divergence) -> tuple[Tensor, Tensor]:
    """[N] divergences and [N] negative log-likelihoods."""
    # A vocabulary may be padded at its end, by another number of rows.
    V = min(student_NV.shape[-1], teacher_NV.shape[-1])
    return (
        divergences(student_NV[:, :V], teacher_NV[:, :V], settings),
        F.cross_entropy(student_NV, ids_N, reduction="none"),
    )
