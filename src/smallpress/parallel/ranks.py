"""Where this process stands among those that train one model, and what they tell each other.

    world = stages x replicas x shard, the last running fastest

The processes of a stage hold different data. Neighbours in `shard` are thought to be on one machine, replicas on
machines of their own. Experts are dealt out over `expert` neighbours among the processes of a stage.
"""

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

from smallpress.parallel.failure import end_with_parent, named
from smallpress.parallel.settings import Parallel


@dataclass(frozen=True)
class Ranks:
    """This process among `world`. Alone it needs no torch.distributed, and the same calls do nothing."""

    settings: Parallel
    rank: int = 0
    world: int = 1
    mesh: DeviceMesh | None = None
    """stage x replica x shard"""
    experts: DeviceMesh | None = None
    """stage x copy x expert, over the same processes"""
    in_step: dist.ProcessGroup | None = None
    """Those whose gradients make one step: all, or one replica where weights are averaged every few steps only."""
    of_stage: dist.ProcessGroup | None = None
    """Those of them that hold the same layers."""
    of_layers: dist.ProcessGroup | None = None
    """All that hold the same layers, of every replica."""

    @property
    def alone(self) -> bool:
        return self.mesh is None

    @property
    def first(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    @property
    def restarted(self) -> bool:
        """Whether torchrun started all once more after a failure."""
        return not self.alone and _attempt() > 0

    @property
    def stage(self) -> int:
        return 0 if self.mesh is None else self.mesh.get_local_rank("stage")

    @property
    def n_data(self) -> int:
        """How many parts a step's data have."""
        return self.world // self.settings.stages

    @property
    def data(self) -> int:
        """Which part is this process's."""
        return self.rank % self.n_data

    @property
    def replica(self) -> int:
        return self.data // self.settings.shard

    @property
    def n_replicas(self) -> int:
        return self.n_data // self.settings.shard

    @property
    def loose(self) -> bool:
        """Whether replicas go their own ways between averages of the weights."""
        return self.settings.sync_every > 1 and self.n_replicas > 1

    def group(self, axis: str) -> dist.ProcessGroup | None:
        """Neighbours along "stage", "replica", "shard", "expert" or "copy" (with the same experts); None: none."""
        mesh = self.experts if axis in ("expert", "copy") else self.mesh
        return None if mesh is None or mesh[axis].size() == 1 else mesh.get_group(axis)

    def sums(self, *values: float) -> list[float]:
        """Each value added up over all processes whose gradients make one step, in fp64."""
        return self._added(values, self.in_step)

    def counts(self, *values: float) -> list[float]:
        """Each value of this process's data added up over the data of a step, which all stages of a pipeline share."""
        return self._added(values, self.of_stage)

    def logged(self, *values: float) -> list[float]:
        """The same sums as all processes know them: the mean where replicas take steps of their own."""
        added = self._added(values, None)
        return [value / self.n_replicas for value in added] if self.loose else added

    def worst(self, value: float) -> float:
        """The largest anywhere; infinity where one is no number."""
        if self.mesh is None:
            return value
        largest = torch.tensor(value if math.isfinite(value) else math.inf, dtype=torch.float64)
        largest = largest.to(self.mesh.device_type)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return float(largest)

    def add_up_(self, tensors: Iterable[Tensor]) -> None:
        """Each one, in place, over all data of all replicas."""
        if self.mesh is not None:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self.of_layers)

    def _added(self, values: Sequence[float], group: dist.ProcessGroup | None) -> list[float]:
        if self.mesh is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.mesh.device_type)
        dist.all_reduce(total, group=group)
        return total.tolist()

    def mine(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's part of a step's items, which lie one after another; all of them where they do not divide.

        All make as many passes then, and sums over the counted tokens stay right: everything is counted as often.
        """
        n, rest = divmod(len(items), self.n_data)
        return items if rest else items[self.data * n : (self.data + 1) * n]

    def told(self, value: Any) -> Any:
        """What the first process says; `value`, which JSON knows, counts there alone."""
        if self.mesh is None:
            return value
        text = json.dumps(value).encode()
        size = torch.tensor(len(text), device=self.mesh.device_type)
        dist.broadcast(size, src=0)
        said = torch.zeros(int(size), dtype=torch.uint8, device=self.mesh.device_type)
        if self.first:
            said.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(said, src=0)
        return json.loads(bytes(said.tolist()))

    def wait(self) -> None:
        """Until all are here."""
        if self.mesh is not None:
            dist.barrier()


ALONE = Ranks(Parallel())


def _attempt() -> int:
    """How often torchrun has started all processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def joined(settings: Parallel, fit: bool = False) -> Iterator[Ranks]:
    """This process among those torchrun started; alone where it did not. What breaks the bond names this rank.

    `fit`: where the processes are not those the settings call for, the settings are made to fit them.

    Raises UserError where the processes do not fit the settings, or another one is lost.
    """
    world = int(os.environ["WORLD_SIZE"]) if launched() else 1
    settings = settings.fitted(world) if fit else settings
    n_replicas = settings.replicas(world)
    if not launched():
        yield ALONE
        return
    end_with_parent()
    # FSDP2 warns that a caller might change the model's output in place; none does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if settings.interface is not None:
            os.environ[variable] = settings.interface
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rank, wait = int(os.environ["RANK"]), timedelta(seconds=settings.timeout_seconds)
    with named(rank, world):
        store, _, _ = next(rendezvous("env://", timeout=wait))
        store = PrefixStore(f"attempt-{_attempt()}", store)  # else torchrun's has the addresses of the dead ones
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=wait)
        try:
            yield arranged(settings, device, n_replicas)
        finally:
            dist.destroy_process_group()


def arranged(settings: Parallel, device: str, n_replicas: int) -> Ranks:
    """The meshes and groups of a world that is connected."""
    mesh = init_device_mesh(
        device, (settings.stages, n_replicas, settings.shard), mesh_dim_names=("stage", "replica", "shard")
    )
    n_data = n_replicas * settings.shard
    experts = init_device_mesh(
        device,
        (settings.stages, n_data // settings.expert, settings.expert),
        mesh_dim_names=("stage", "copy", "expert"),
    )
    ranks = Ranks(settings, dist.get_rank(), dist.get_world_size(), mesh, experts)
    of_layers = mesh["replica", "shard"]._flatten("data").get_group()
    of_stage = mesh.get_group("shard") if ranks.loose else of_layers
    in_step = _step_group(ranks)
    for group in (*mesh.get_all_groups(), *experts.get_all_groups(), of_layers, in_step):
        _set_pg_timeout(timedelta(seconds=settings.timeout_seconds), group)
    return replace(ranks, in_step=in_step, of_stage=of_stage, of_layers=of_layers)


def _step_group(ranks: Ranks) -> dist.ProcessGroup | None:
    if not ranks.loose:
        return dist.group.WORLD
    of_replica: dict[int, list[int]] = {}
    for rank in range(ranks.world):
        of_replica.setdefault(rank % ranks.n_data // ranks.settings.shard, []).append(rank)
    groups = {replica: dist.new_group(members) for replica, members in of_replica.items()}
    return groups[ranks.replica]
