"""Pretraining: rows of a corpus in an endless order, learned under V3's schedules, and what guards a long run.

Which rows a step takes is a matter of its number alone, and the number only grows: a run that rolls its weights back
goes on past the rows that spoilt them, and a resumed one does so in the very same way.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from smallpress.corpus.fill_middle import Marks, holes_in_row
from smallpress.corpus.rows import Row, Rows, row_of
from smallpress.model.transformer import Transformer, init_weights
from smallpress.optim.average import Average
from smallpress.optim.master import MasterWeights
from smallpress.optim.schedule import FALLS
from smallpress.optim.spike_guard import LossGuard, SpikeGuard
from smallpress.parallel.checkpoint import load_spread, save_spread
from smallpress.parallel.ranks import Ranks
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.train.balance import move_bias
from smallpress.train.next_tokens import NextTokens
from smallpress.train.pretrain_settings import PretrainSettings
from smallpress.train.ramp import Ramp
from smallpress.train.steps import Steps
from smallpress.weights.checkpoint import TENSORS

MAX_ROLLED_BACK = 3
"""So often in a row, without one step taken in between, and the run is given up."""


class Feed:
    """Rows by number, some documents of them told with a hole; `marks` None: none are."""

    def __init__(self, rows: Rows, marks: Marks | None, fim_rate: float):
        self.rows, self.marks, self.fim_rate = rows, marks, fim_rate

    def row(self, k: int) -> Row:
        row = self.rows.row(k)
        if self.marks is None or self.fim_rate == 0:
            return row
        chance = Random(derive_seed(self.rows.seed, "hole", k))
        end_id = self.rows.part.end_id
        return row_of(holes_in_row(row.ids, end_id, self.fim_rate, chance, self.marks), end_id)


class Pretrainer(Steps):
    """`objective` is of the same settings; `feed` and `held_out` of one corpus, whose digest is `data_digest`."""

    settings: PretrainSettings
    objective: NextTokens

    def __init__(
        self,
        settings: PretrainSettings,
        weights: MasterWeights,
        objective: NextTokens,
        feed: Feed,
        held_out: list[Row],
        data_digest: str,
        ranks: Ranks,
    ):
        self.ranks = ranks
        self.ramp = Ramp(settings)
        settings = settings.model_copy(update={"steps": self.ramp.n_steps})
        super().__init__(settings, weights, objective, held_out, data_digest)
        self.feed, self.fall, self.losses = feed, FALLS[settings.lr_shape], LossGuard()
        self.average = None if settings.ema is None else Average(weights.master, settings.ema)
        self.n_refused, self.n_rolled_back, self.n_stuck = 0, 0, 0
        objective.mtp_weight = lambda step: settings.mtp.at(self.ramp.share(step))

    def batch(self, step: int) -> list[Row]:
        return [self.feed.row(k) for k in self.ramp.rows(step)]

    def lr(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.settings.warmup)
        return self.settings.lr * rise * self.fall(self.ramp.share(step))

    def admits(self, log: Mapping[str, float]) -> bool:
        by_loss, by_gradient = self.losses.admits(log["loss"]), super().admits(log)
        return by_loss and by_gradient

    def after(self, log: dict[str, float]) -> None:
        step = self.n_done - 1
        log["tokens/seen"] = self.ramp.rows(step).stop * self.settings.seq_len
        if log["skipped"]:
            self.n_refused += 1
        else:
            self.n_refused = self.n_stuck = 0
            self._balance(self.settings.balance.gamma_at(self.ramp.share(step)))
            if self.average is not None:
                self.average.follow(self.weights.master)
        log["rolled_back"] = 1.0 if self.n_refused >= self.settings.roll_back_after else 0.0

    def _balance(self, gamma: float) -> None:
        watch = self.objective.watch  # loads of all processes
        for name, load_E in watch.loads.items():
            bias_E = watch.routers[name].expert_bias
            if gamma > 0 and bias_E is not None:
                master_E = self.weights.master[f"{name}.expert_bias"]
                move_bias(master_E, load_E, gamma)
                bias_E.data.copy_(master_E)

    def roll_back(self, checkpoint: Path | None) -> None:
        """Take the weights, and what belongs to them, from `checkpoint`; None: from the run's beginning.

        The number of steps done stays, and with it the place in the data. Raises UserError where that did not help
        before.
        """
        self.n_stuck += 1
        if self.n_stuck > MAX_ROLLED_BACK:
            what = f"no step could be taken after {MAX_ROLLED_BACK} returns to the last checkpoint: the run diverges"
            raise UserError(what, "start it again with a lower lr or a longer warmup")
        kept = self.n_done, self.n_skipped, self.n_rolled_back + 1, self.n_stuck
        if checkpoint is None:
            self._begin_again()
        else:
            self.load(checkpoint, [])
        self.n_done, self.n_skipped, self.n_rolled_back, self.n_stuck = kept
        self.n_refused = 0

    def _begin_again(self) -> None:
        fresh = Transformer(self.settings.shape)
        init_weights(fresh, self.settings.init_std, self.settings.seed)
        whole = dict(fresh.named_parameters())
        part = self.weights.part
        self.weights.restore({f"weights/{name}": part(name, whole[name].detach()) for name in self.weights.master})
        if self.average is not None:
            self.average = Average(self.weights.master, self.average.decay)
        self.guard, self.losses = SpikeGuard(self.settings.max_grad_norm), LossGuard()

    def save(self, path: Path, more: Mapping[str, Any]) -> None:
        if self.ranks.alone:
            super().save(path, more)
        else:
            save_spread(path, self, more, self.ranks)

    def load(self, path: Path, more: Sequence[str]) -> Mapping[str, Any]:
        """Of any number of processes."""
        if self.ranks.alone and (path / TENSORS).is_file():
            return super().load(path, more)
        return load_spread(path, self, more, self.ranks)

    @property
    def exported_as(self) -> str:
        """What stands before the names of the weights the run is for."""
        return "average/" if self.settings.export == "ema" and self.average is not None else "weights/"

    @property
    def exported(self) -> Mapping[str, torch.Tensor]:
        """The weights the run is for."""
        average = self.average
        return average.weights if average is not None and self.settings.export == "ema" else self.weights.master

    def tensors(self) -> dict[str, torch.Tensor]:
        return super().tensors() | dict(() if self.average is None else self.average.tensors())

    def state(self) -> dict[str, Any]:
        counts = {"n_refused": self.n_refused, "n_rolled_back": self.n_rolled_back, "n_stuck": self.n_stuck}
        return super().state() | counts | {"losses": self.losses.losses}

    def restore(self, tensors: dict[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        super().restore(tensors, state)
        if self.average is not None:
            self.average.restore(tensors)
        self.n_refused, self.n_stuck = state["n_refused"], state["n_stuck"]
        self.n_rolled_back = state["n_rolled_back"]
        self.losses = LossGuard(state["losses"])
