"""Master weights of which each process keeps a part, and the one gradient they all step on.

Dense weights lie in shards over `shard` processes (FSDP2, which gathers and rounds them for each block's passes, and
scatters gradients), experts whole on the process they were dealt to. A loss is a sum over this process's tokens divided
by the tokens of all, so gradients are added up, never averaged: steps are exact where processes hold unequal counts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from smallpress.model.moe import Router
from smallpress.model.transformer import Transformer
from smallpress.optim.adamw8 import MIN_8BIT_SIZE
from smallpress.optim.master import Collect, MasterWeights
from smallpress.parallel.experts import SpreadExperts, spread_experts
from smallpress.parallel.outer import Outer
from smallpress.parallel.ranks import Ranks
from smallpress.parallel.reduce import Traffic, all_reduce
from smallpress.parallel.stages import keep_stages
from smallpress.run.errors import UserError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight lies: rows of `shape` shared out over `mesh`, or whole on each process where that is None."""

    shape: torch.Size
    mesh: DeviceMesh | None
    copies: int
    """Processes that hold the same part, of those whose gradients make one step."""
    group: dist.ProcessGroup | None
    """Those that hold the same part and other data, over which gradients are added up; None: nobody."""


def spread(model: Transformer, dtype: torch.dtype, ranks: Ranks, **options: Any) -> MasterWeights:
    """`model`, fp32 and the same on every process, under an optimizer over `ranks`; `options` are MasterWeights'."""
    if ranks.alone:
        return MasterWeights(model, dtype, take=True, **options)
    if ranks.settings.stages > 1:
        keep_stages(model, ranks.settings, ranks.stage)
    experts = ranks.group("expert")
    if experts is not None:
        _check_experts(model, ranks.settings.expert)
        spread_experts(model, experts)
    if ranks.group("shard") is not None:
        _shard(model, dtype, ranks)
    return SpreadWeights(model, dtype, ranks, **options)


def _check_experts(model: Transformer, n: int) -> None:
    counts = {len(module.weight) for module in model.modules() if isinstance(module, Router)}
    if not counts:
        raise UserError(f"expert={n}, but the model has no experts", "leave expert out")
    if any(count % n for count in counts):
        raise UserError(f"expert={n} does not divide {min(counts)} experts", "choose a divisor")


def _shard(model: Transformer, dtype: torch.dtype, ranks: Ranks) -> None:
    """Each block on its own, so that one block at a time is whole; the rest stays whole between the passes."""
    assert ranks.mesh is not None
    apart = {p for module in model.modules() if isinstance(module, SpreadExperts) for p in module.parameters()}
    apart |= {p for p in model.parameters() if not p.requires_grad}  # selection biases: fp32, and no gradient
    policy = MixedPrecisionPolicy(None if dtype == torch.float32 else dtype, torch.float32, cast_forward_inputs=False)
    for module in (*model.layers, *model.mtp, model):
        sharded = fully_shard(
            module,
            mesh=ranks.mesh["shard"],
            mp_policy=policy,
            ignored_params=apart,
            reshard_after_forward=module is not model,
        )
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


class SpreadWeights(MasterWeights):
    """MasterWeights of one process among `ranks`: `master` holds its parts, in plain fp32 tensors."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, ranks: Ranks, **options: Any):
        self.ranks, self.traffic = ranks, Traffic()
        self._summed, self._n_apart = False, 0
        self.places = _places(model, ranks)
        super().__init__(model, dtype, take=True, **options)  # type: ignore[arg-type]
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        self.outer = Outer(self.master, frozen, ranks) if ranks.loose else None

    def _split(self, parameter: nn.Parameter) -> nn.Parameter:
        """The part of a sharded weight is its own master: the optimizer moves it in place, FSDP2 rounds it."""
        if isinstance(parameter, DTensor):
            return nn.Parameter(parameter.to_local().detach())
        return super()._split(parameter)

    def _collect(self, parameter: nn.Parameter, master: nn.Parameter) -> None:
        if not isinstance(parameter, DTensor):
            super()._collect(parameter, master)

    def _groups(self, weight_decay: float, apart: bool) -> list[dict[str, Any]]:
        """Without what has no row here. What is too small for moments in 8 bits is so by its whole size."""
        groups = super()._groups(weight_decay, apart)
        for group in groups:
            group["params"] = [p for p in group["params"] if p.numel()]
        if apart:
            small = {self.master[name] for name, place in self.places.items() if place.shape.numel() < MIN_8BIT_SIZE}
            groups = [
                group | {"params": [p for p in group["params"] if (p in small) == is_small], "min_8bit_size": size}
                for group in groups
                for is_small, size in ((False, 0), (True, MIN_8BIT_SIZE))
            ]
        return [group for group in groups if group["params"]]

    def grad_norm(self) -> float:
        """The length of the whole model's gradient; the first call of a step adds it up over all processes.

        Where replicas take steps of their own, the longest of their gradients: all judge a step alike.
        """
        if not self._summed:
            self._sum_gradients()
            self._summed = True
        squares = torch.zeros((), dtype=torch.float64)
        for name, master in self.master.items():
            if master.grad is not None:
                squares += torch.linalg.vector_norm(master.grad, dtype=torch.float64) ** 2 / self.places[name].copies
        (total,) = self.ranks.sums(float(squares))
        norm = math.sqrt(total) if math.isfinite(total) else math.inf
        return self.ranks.worst(norm) if self.ranks.loose else norm

    @torch.no_grad()
    def _sum_gradients(self) -> None:
        for name, parameter in self.model.named_parameters():
            if isinstance(parameter, DTensor) and parameter.grad is not None:
                self.master[name].grad = parameter.grad.to_local()  # type: ignore[attr-defined]
            elif parameter.grad is not None:  # put off by a pipeline's schedule, which calls no hook
                Collect(self.master[name])(parameter)
        self._fill_gaps()
        together: dict[dist.ProcessGroup, list[Tensor]] = {}
        for name, master in self.master.items():
            group = self.places[name].group
            if group is not None and master.grad is not None:
                together.setdefault(group, []).append(master.grad)
        for group, grads in together.items():
            all_reduce(grads, group, self.ranks.settings.reduce, self.traffic)

    def _fill_gaps(self) -> None:
        """A weight with a gradient on any process gets one on all that have its layer: zeros where there was none."""
        has = torch.tensor([master.grad is not None for master in self.master.values()], dtype=torch.int32)
        dist.all_reduce(has, op=dist.ReduceOp.MAX, group=self.ranks.of_stage)
        for master, anywhere in zip(self.master.values(), has.tolist(), strict=True):
            if anywhere and master.grad is None:
                master.grad = torch.zeros_like(master)

    def forget_gradient(self) -> None:
        super().forget_gradient()
        self._summed = False
        for parameter in self.model.parameters():
            parameter.grad = None

    def end_step(self, n_done: int) -> None:
        """After every step, taken or skipped: every `sync_every` of them replicas become one again."""
        self._n_apart += 1
        if n_done % self.ranks.settings.sync_every == 0:
            self.settle()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """This process's part of everything a resume needs."""
        yield from super().tensors()
        if self.outer is not None:
            yield from self.outer.tensors()

    def part(self, name: str, whole: Tensor) -> Tensor:
        mesh = self.places[name].mesh
        if mesh is None:
            return whole
        parts, i = whole.chunk(mesh.size()), mesh.get_local_rank()
        return parts[i] if i < len(parts) else whole[:0]

    def rows(self, name: str) -> tuple[int, int]:
        place = self.places[name]
        if place.mesh is None:
            return super().rows(name)
        n_rows = place.shape[0]
        return min(n_rows, place.mesh.get_local_rank() * -(-n_rows // place.mesh.size())), n_rows

    def settle(self) -> None:
        """Become one model where replicas are on their ways."""
        if self.outer is not None and self._n_apart:
            self.outer.sync(self.traffic)
            self.publish()
            self._n_apart = 0

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self._n_apart = 0
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what a measurement left gathered is of before
        super().restore(tensors)
        if self.outer is not None:
            self.outer.restore(tensors)

    @torch.no_grad()
    def publish(self) -> None:
        for name, parameter in self.model.named_parameters():
            if not isinstance(parameter, DTensor):
                parameter.copy_(self.master[name])


def _places(model: nn.Module, ranks: Ranks) -> dict[str, Place]:
    """By name of every parameter. Where replicas go their own ways, a step is one replica's."""
    dealt = {p for module in model.modules() if isinstance(module, SpreadExperts) for p in module.parameters()}
    n_in_step = ranks.settings.shard if ranks.loose else ranks.n_data
    places = {}
    for name, parameter in model.named_parameters():
        shape, mesh, axis = parameter.shape, None, "replica"
        if isinstance(parameter, DTensor):
            mesh = parameter.device_mesh
        elif parameter in dealt:
            assert ranks.experts is not None
            mesh, axis = ranks.experts["expert"], "copy"
            shape = torch.Size((shape[0] * mesh.size(), *shape[1:]))
        copies = n_in_step // (1 if mesh is None else mesh.size())
        places[name] = Place(shape, mesh, copies, None if ranks.loose else ranks.group(axis))
    return places
