"""The objective of pretraining: the next token, the ones after it, and experts used evenly within a sequence.

    loss = -(1/n) sum log p(t_{i+1}) + (lambda/D) sum_d -(1/n) sum log p_d(t_{i+1+d}) + alpha sum over routers f . P

n is the number of next tokens that count in the whole step, whatever micro-batches it is taken in.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallpress.corpus.rows import Row
from smallpress.model.attention import PackedCausal
from smallpress.model.token_logprobs import token_logprobs
from smallpress.model.transformer import Transformer
from smallpress.parallel.passes import Passes
from smallpress.parallel.stages import LossOf
from smallpress.train.balance import RouterWatch, evenness, sequence_loss
from smallpress.train.row_batch import Pass, RowBatch


class NextTokens:
    """`mtp_weight`: lambda at a step; `alpha`: of the sequence-wise loss; `bytes_V`: how many bytes of text each token
    stands for. After `accumulate`, `watch.loads` holds what the step sent to each expert."""

    def __init__(
        self,
        passes: Passes,
        micro_batch_tokens: int,
        bytes_V: NDArray[np.int64],
        mask_documents: bool = False,
        mtp_weight: Callable[[int], float] = lambda step: 0.0,
        alpha: float = 0.0,
    ):
        self.budget, self.mask_documents = micro_batch_tokens, mask_documents
        self.mtp_weight, self.alpha = mtp_weight, alpha
        self.passes, self.ranks, self.bytes_V = passes, passes.ranks, torch.from_numpy(bytes_V)
        self.watch = RouterWatch(passes.model)

    def accumulate(self, model: Transformer, rows: Sequence[Row], step: int) -> dict[str, float]:
        mine = self.ranks.mine(rows)
        batches = self._batches(mine)
        n_here = sum(float(batch.at_depth(0).counted_N.sum()) for batch in batches)
        n_counted, n_rows = self.ranks.counts(n_here, len(mine))
        self.watch.forget()
        if self.passes.pipeline is not None:
            sums = self._through_stages(model, batches, n_counted)
        else:
            sums = self._one_by_one(model, batches, n_counted, n_rows, self.mtp_weight(step))
        self.ranks.add_up_(self.watch.loads.values())
        logged = dict(zip(sums, self.ranks.logged(*sums.values()), strict=True))
        logged["tokens"] = float(sum(len(row.ids) - 1 for row in rows))
        return logged | (evenness(self.watch.loads) if self.watch.loads else {})

    def _one_by_one(
        self, model: Transformer, batches: Sequence[RowBatch], n_counted: float, n_rows: float, mtp_weight: float
    ) -> dict[str, float]:
        """The losses of this process by name, which add up to those of the step; `n_rows` are of the whole step."""
        sums: dict[str, float] = defaultdict(float)
        weight = mtp_weight / max(1, len(model.mtp))
        for batch in batches:
            with self.watch:
                losses = self._losses(model, batch, n_counted, with_mtp=weight > 0)
            total = losses["loss"]
            for name, loss in losses.items():
                sums[name] += float(loss.detach())
                total = total if name == "loss" else total + weight * loss
            if self.alpha > 0 and self.watch.seen:
                balance = self._balance(batch) / n_rows
                sums["loss/balance"] += float(balance.detach())
                total = total + self.alpha * balance
            total.backward()
        return dict(sums)

    def _through_stages(self, model: Transformer, batches: Sequence[RowBatch], n_counted: float) -> dict[str, float]:
        """The next token alone."""
        inputs = [batch.at_depth(0) for batch in batches]
        with self.watch:
            loss = self.passes.learn([_Staged(at, self.passes.dtype) for at in inputs], _next(model, inputs, n_counted))
        return {"loss": loss}

    @torch.no_grad()
    def measure(self, model: Transformer, rows: Sequence[Row]) -> dict[str, float]:
        """The next token alone; bits for each byte of the text that was predicted."""
        inputs = [batch.at_depth(0) for batch in self._batches(self.ranks.mine(rows))]
        nll = self.passes.measure([_Staged(at, self.passes.dtype) for at in inputs], _next(model, inputs, 1.0))
        n_here = sum(float(at.counted_N.sum()) for at in inputs)
        bytes_here = sum(float((self.bytes_V[at.targets_N] * at.counted_N).sum()) for at in inputs)
        (nll,), (n_counted, n_bytes) = self.ranks.sums(nll), self.ranks.counts(n_here, bytes_here)
        return {"loss": nll / n_counted, "bits_per_byte": nll / math.log(2) / n_bytes}

    def fingerprint(self, item: Row) -> str:
        return f"{item.ids.tolist()}{item.starts.tolist()}"

    def _batches(self, rows: Sequence[Row]) -> list[RowBatch]:
        """Micro-batches of as many rows as the budget holds, one at least."""
        n = max(1, self.budget // (len(rows[0].ids) - 1))
        return [RowBatch.of(rows[first : first + n], self.mask_documents) for first in range(0, len(rows), n)]

    def _losses(self, model: Transformer, batch: RowBatch, n_counted: float, with_mtp: bool) -> dict[str, Tensor]:
        """By name, each divided by `n_counted`: of the decoder and of the modules that predict further."""
        B, T = batch.shape
        losses, hidden_NM = {}, torch.empty(0)
        for depth in range(1 + (len(model.mtp) if with_mtp else 0)):
            at = batch.at_depth(depth)
            attend, positions_N = PackedCausal(at.tree, self.passes.dtype), at.tree.positions()
            if depth == 0:
                hidden_NM = model(at.ids_N, positions_N, attend)
            else:
                before_NM = hidden_NM.view(B, T - depth + 1, -1)[:, :-1].flatten(0, 1)
                hidden_NM = model.predict_further(depth - 1, before_NM, at.ids_N, positions_N + depth, attend)
            logprob_N, _ = token_logprobs(hidden_NM, model.head_weight, at.targets_N)
            losses[f"loss/mtp{depth}" if depth else "loss"] = -(logprob_N * at.counted_N).sum() / n_counted
        return losses

    def _balance(self, batch: RowBatch) -> Tensor:
        """Added up over routers and rows."""
        return torch.stack([sequence_loss(routing, batch.shape[0]) for routing in self.watch.seen.values()]).sum()


class _Staged:
    """The inputs of a pass as each stage of a pipeline is told them."""

    def __init__(self, at: Pass, dtype: torch.dtype):
        self.ids_N, self.positions_N, self.attend = at.ids_N, at.tree.positions(), PackedCausal(at.tree, dtype)


def _next(model: Transformer, inputs: Sequence[Pass], n_counted: float) -> LossOf:
    """The loss of the next token in micro-batch i."""

    def loss_of(hidden_NM: Tensor, i: int) -> Tensor:
        logprob_N, _ = token_logprobs(hidden_NM, model.head_weight, inputs[i].targets_N)
        return -(logprob_N * inputs[i].counted_N).sum() / n_counted

    return loss_of
