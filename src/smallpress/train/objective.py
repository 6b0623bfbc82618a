"""What supervised training makes large: an objective turns items into a gradient, and into numbers for the log."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from smallpress.model.hidden_rows import hidden_rows
from smallpress.model.token_logprobs import token_logprobs
from smallpress.model.transformer import Transformer
from smallpress.train.packing import MicroBatch, pack
from smallpress.train.samples import Sample


class Objective(Protocol):
    """`accumulate` runs the passes and adds up gradients, `measure` the forward ones alone; both give means over the
    items by name, and under "tokens" how many tokens went through."""

    def accumulate(self, model: Transformer, items: Sequence[Any], step: int) -> dict[str, float]: ...
    def measure(self, model: Transformer, items: Sequence[Any]) -> dict[str, float]: ...
    def fingerprint(self, item: Any) -> str:
        """Text that differs where the item does."""
        ...


def logprobs_of(model: Transformer, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """[P] log-probabilities of the trained tokens, and entropies; fp32. Only these rows have logits."""
    hidden_PM = hidden_rows(model, batch.tree, batch.ids_N, batch.rows_P)
    return token_logprobs(hidden_PM, model.head_weight, batch.targets_P)


class Likelihood:
    """loss = -(1 / trained tokens) sum of log p(token): every trained token of the step counts once."""

    def __init__(self, micro_batch_tokens: int):
        self.budget = micro_batch_tokens

    def accumulate(self, model: Transformer, items: Sequence[Sample], step: int = 0) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for batch in pack(items, self.budget):
            logprob_P, entropy_P = logprobs_of(model, batch)
            loss = -(logprob_P * batch.weights_P).sum()
            loss.backward()
            sums["loss"] += float(loss.detach())
            sums["entropy"] += float((entropy_P * batch.weights_P).sum())
            sums["tokens"] += sum(len(items[i].ids) for i in set(batch.sample_P.tolist()))
            sums["tokens/trained"] += len(batch.targets_P)
        return dict(sums)

    @torch.no_grad()
    def measure(self, model: Transformer, items: Sequence[Sample]) -> dict[str, float]:
        loss = 0.0
        for batch in pack(items, self.budget):
            logprob_P, _ = logprobs_of(model, batch)
            loss -= float((logprob_P * batch.weights_P).sum())
        return {"loss": loss}

    def fingerprint(self, item: Sample) -> str:
        return f"{item.ids}{item.loss_mask}"
