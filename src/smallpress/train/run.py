"""A run of supervised training: the loop every run shares, and what it warns of."""

from smallpress.run.folder import RunFolder
from smallpress.run.loop import Loop
from smallpress.train.trainer import Trainer


class Run(Loop):
    trainer: Trainer

    def __init__(self, folder: RunFolder, trainer: Trainer, used: float = 0.0):
        super().__init__(folder, trainer, trainer.measure, used)
        self.best = float("inf")

    def warnings(self, metrics: dict[str, float]) -> list[str]:
        found = []
        if metrics["skipped"]:
            found.append(f"a step was skipped (NaN or a gradient spike): {self.trainer.n_skipped} so far")
        held_out = metrics.get("eval/loss")
        if held_out is None:  # not measured after this step
            return found
        if held_out > 1.1 * self.best:
            found.append(
                f"held-out loss rose from {self.best:.3f} to {held_out:.3f}: the model learns the data by heart"
            )
        self.best = min(self.best, held_out)
        return found
