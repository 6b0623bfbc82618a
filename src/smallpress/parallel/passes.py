"""The passes of a step, whether this process holds the whole depth of the model or some stages of a pipeline."""

from collections.abc import Sequence

import torch

from smallpress.optim.master import MasterWeights
from smallpress.parallel.ranks import Ranks
from smallpress.parallel.stages import Batch, LossOf, Pipeline


class Passes:
    """Runs micro-batches through the model of `weights`.

    A loss is this process's part of the step's: a sum over its tokens, divided by what `Ranks.counts` says all have.
    """

    def __init__(self, weights: MasterWeights, ranks: Ranks):
        self.model, self.dtype, self.ranks = weights.model, weights.dtype, ranks
        self.pipeline = Pipeline(self.model, ranks, weights.dtype) if ranks.settings.stages > 1 else None

    def learn(self, batches: Sequence[Batch], loss_of: LossOf) -> float:
        """Forward and backward passes of a step; the loss this process saw, 0 where another has the last stage."""
        return self._run(batches, loss_of, learn=True)

    def measure(self, batches: Sequence[Batch], loss_of: LossOf) -> float:
        """Forward passes alone."""
        return self._run(batches, loss_of, learn=False)

    def _run(self, batches: Sequence[Batch], loss_of: LossOf, learn: bool) -> float:
        if self.pipeline is not None:
            return float(sum(float(loss) for loss in self.pipeline.run(batches, loss_of, learn)))
        total = 0.0
        for i, batch in enumerate(batches):
            with torch.set_grad_enabled(learn):
                loss = loss_of(self.model(batch.ids_N, batch.positions_N, batch.attend), i)
                if learn:
                    loss.backward()
            total += float(loss.detach())
        return total
