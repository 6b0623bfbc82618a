"""Pipelines: each process keeps some of the layers, and micro-batches flow through, by torch's schedules.

    1f1b         one stage a process; forward and backward passes take turns (arXiv 2104.04473)
    zero_bubble  the gradient of weights is put off to when a process would wait (ZB1P, arXiv 2401.10241)
    dualpipe_v   two stages a process, the first and the last on one: a V (DualPipe, DeepSeek-V3, arXiv 2412.19437)

Stages hand on the stream [N, M]; all micro-batches of a step have the same N.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.pipelining.schedules import (
    ScheduleDualPipeV,
    ScheduleInterleavedZeroBubble,
    _PipelineSchedule,
)

from smallpress.model.gqa import Attend
from smallpress.model.transformer import Transformer
from smallpress.parallel.ranks import Ranks
from smallpress.parallel.settings import Parallel
from smallpress.run.errors import UserError


class Batch(Protocol):
    """What a stage is told of a micro-batch."""

    @property
    def ids_N(self) -> Tensor: ...
    @property
    def positions_N(self) -> Tensor: ...
    @property
    def attend(self) -> Attend: ...


LossOf = Callable[[Tensor, int], Tensor]
"""(hidden states [N, M] after the final norm, which micro-batch) -> its part of the step's loss."""


def stages_of(settings: Parallel, place: int) -> list[int]:
    """The stages that the process at `place` of a pipeline keeps.

    >>> [stages_of(Parallel(stages=2, schedule="dualpipe_v"), place) for place in (0, 1)]
    [[0, 3], [1, 2]]
    """
    last = 2 * settings.stages - 1
    return [place, last - place] if settings.schedule == "dualpipe_v" else [place]


def n_stages(settings: Parallel) -> int:
    return settings.stages * (2 if settings.schedule == "dualpipe_v" else 1)


def layers_of(n_layers: int, stage: int, n: int) -> range:
    """
    >>> [list(layers_of(5, stage, 2)) for stage in (0, 1)]
    [[0, 1], [2, 3, 4]]
    """
    return range(stage * n_layers // n, (stage + 1) * n_layers // n)


def check_stages(model: Transformer, settings: Parallel) -> None:
    """Raises UserError where a pipeline cannot hold the model."""
    config, n = model.config, n_stages(settings)
    if config.n_layers < n:
        raise UserError(f"{config.n_layers} layers do not make {n} stages", "choose fewer stages")
    if config.mtp is not None:
        what = "a pipeline does not hold multi-token prediction: its modules need embedding and head on one stage"
        raise UserError(what, "train with shard or expert, or without mtp")
    if config.tied_head and settings.schedule != "dualpipe_v":
        what = f'a tied head would be on the first and on the last stage, which "{settings.schedule}" keeps apart'
        raise UserError(what, 'choose schedule = "dualpipe_v", or tied_head = false')
    if model.recompute and settings.schedule != "1f1b":
        what = f'"{settings.schedule}" goes back through a block twice, which recompute does not allow'
        raise UserError(what, 'choose schedule = "1f1b", or recompute = false')


def check_micro_batches(settings: Parallel, n: int) -> None:
    """Raises UserError where the schedule cannot run `n` micro-batches a step."""
    least = n_stages(settings)
    if n < least:
        raise UserError(
            f"{settings.schedule} over {settings.stages} processes needs {least} micro-batches a step, not {n}",
            "make micro-batches smaller or steps larger",
        )
    if settings.schedule == "zero_bubble" and n % settings.stages:
        raise UserError(
            f"zero_bubble takes a multiple of {settings.stages} micro-batches a step, not {n}",
            "change the number of sequences a step",
        )


def keep_stages(model: Transformer, settings: Parallel, place: int) -> None:
    """Leave this process its stages' weights; what is dropped has no parameters any more, names stay."""
    check_stages(model, settings)
    n, kept = n_stages(settings), stages_of(settings, place)
    layers = {layer for stage in kept for layer in layers_of(model.config.n_layers, stage, n)}
    for layer in set(range(model.config.n_layers)) - layers:
        model.layers[layer] = nn.Identity()
    if 0 not in kept:
        model.embed = nn.Identity()  # type: ignore[assignment]
    if n - 1 not in kept:
        model.norm = nn.Identity()  # type: ignore[assignment]
        if model.head is not None:
            model.head = nn.Identity()  # type: ignore[assignment]


class Stage(nn.Module):
    """Some layers of a model, with the embedding before the first and the norm and head after the last."""

    def __init__(self, model: Transformer, stage: int, n: int):
        super().__init__()
        self.number, self.first, self.last = stage, stage == 0, stage == n - 1
        self.layers = layers_of(model.config.n_layers, stage, n)
        ends: list[nn.Module] = [model.embed] if self.first else []
        if self.last:
            ends += [model.norm, model.embed if model.head is None else model.head]
        self.own = nn.ModuleList([*(model.layers[layer] for layer in self.layers), *ends])
        self._whole = (model,)  # not registered: another stage's weights are not this one's
        self.batches: Iterator[Batch] = iter(())
        """Those still to come; every schedule sends them through a stage in order."""

    def forward(self, x: Tensor) -> Tensor:
        """Ids [N] in the first stage, the stream [N, M] after it."""
        (model,), batch = self._whole, next(self.batches)
        x_NM = model.embedded(x) if self.first else x
        ropes = model.ropes(batch.positions_N, x_NM.dtype)
        x_NM = model.through(self.layers, x_NM, ropes, batch.attend)
        return model.norm(x_NM) if self.last else x_NM


class Pipeline:
    """Runs the micro-batches of a step through the stages of all processes; gradients stay where the weights are."""

    def __init__(self, model: Transformer, ranks: Ranks, dtype: torch.dtype):
        assert ranks.mesh is not None
        self.settings, self.dtype, self.model = ranks.settings, dtype, model
        self.group, self.device = ranks.group("stage"), torch.device(ranks.mesh.device_type)
        self.stages = [Stage(model, k, n_stages(self.settings)) for k in stages_of(self.settings, ranks.stage)]
        self._loss_of: LossOf | None = None
        self._schedules: dict[tuple[int, int], _PipelineSchedule] = {}

    def run(self, batches: Sequence[Batch], loss_of: LossOf, learn: bool = True) -> list[Tensor]:
        """Forward and, to `learn`, backward passes of all micro-batches; their losses where the last stage is.

        Every process of a pipeline gives the same batches. Raises UserError where the schedule cannot run so many.
        """
        check_micro_batches(self.settings, len(batches))
        lengths = sorted({len(batch.ids_N) for batch in batches})
        if len(lengths) > 1:
            what = f"a pipeline's micro-batches have one length, not {' and '.join(map(str, lengths))} tokens"
            raise UserError(what, "let micro_batch_tokens divide a process's tokens of a step")
        self._loss_of = loss_of
        for stage in self.stages:
            stage.batches = iter(batches)
        schedule = self._schedule(lengths[0], len(batches))
        ids = [torch.cat([batch.ids_N for batch in batches])] if self.stages[0].first else []
        losses: list[Tensor] = []
        run = schedule.step if learn else schedule.eval
        with torch.set_grad_enabled(learn):
            run(*ids, target=torch.arange(len(batches)), losses=losses, return_outputs=False)
        return [loss.detach() for loss in losses]

    def _schedule(self, N: int, n_batches: int) -> _PipelineSchedule:
        if (N, n_batches) not in self._schedules:
            stages = [self._placed(stage, N) for stage in self.stages]
            loss, how = self._loss, self.settings.schedule
            if how == "1f1b":
                schedule: _PipelineSchedule = Schedule1F1B(stages[0], n_batches, loss, scale_grads=False)
            elif how == "zero_bubble":
                schedule = ScheduleInterleavedZeroBubble(list(stages), n_batches, loss, scale_grads=False)
            else:
                schedule = ScheduleDualPipeV(list(stages), n_batches, loss, scale_grads=False)
            self._schedules[N, n_batches] = schedule
        return self._schedules[N, n_batches]

    def _placed(self, stage: Stage, N: int) -> PipelineStage:
        stream = torch.empty(N, self.model.config.dim, dtype=self.dtype, device=self.device, requires_grad=True)
        given = torch.empty(N, dtype=torch.long, device=self.device) if stage.first else stream
        return PipelineStage(
            stage,
            stage.number,
            n_stages(self.settings),
            self.device,
            input_args=given,
            output_args=stream,
            group=self.group,
        )

    def _loss(self, hidden_NM: Tensor, which: Tensor) -> Tensor:
        assert self._loss_of is not None
        return self._loss_of(hidden_NM, int(which))
