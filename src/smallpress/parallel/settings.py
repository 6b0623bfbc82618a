"""How a run is spread over processes: the `[parallel]` table of a recipe. No torch here: planners read it too."""

from math import gcd
from typing import Literal

from pydantic import Field, model_validator

from smallpress.run.errors import UserError
from smallpress.run.settings import Settings, settings_from

Schedule = Literal["1f1b", "zero_bubble", "dualpipe_v"]
Reduce = Literal["float32", "bfloat16", "int8"]


class Parallel(Settings):
    """`stages` x `replicas` x `shard` processes; what torchrun starts beyond stages times shard are replicas.

    A replica is one copy of the model, spread over `shard` processes (FSDP2) and over `stages` of layers. Between
    replicas, where links are slow, gradients are added up as `reduce` says, or weights are averaged every `sync_every`
    steps (DiLoCo, Douillard et al. 2023). Experts are dealt out over `expert` processes that hold different data.
    """

    shard: int = Field(default=1, ge=1)
    expert: int = Field(default=1, ge=1)
    stages: int = Field(default=1, ge=1)
    schedule: Schedule = "1f1b"
    reduce: Reduce = "float32"
    sync_every: int = Field(default=1, ge=1)  # steps; 1: every step's gradients
    outer_lr: float = Field(default=0.7, gt=0)
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)
    interface: str | None = None  # of the network, such as "eth0"; none: the one this machine's name leads to
    timeout_seconds: float = Field(default=50.0, gt=0)  # a process that waits so long for another gives up

    @model_validator(mode="after")
    def _can_be(self) -> "Parallel":
        if self.stages > 1 and self.shard > 1:
            raise ValueError("stages and shard do not go together: spread a stage over replicas, or drop stages")
        if self.sync_every > 1 and self.expert not in (1, self.shard):
            raise ValueError(
                f"with sync_every={self.sync_every} experts are dealt out within a replica: expert = shard"
            )
        return self

    def fitted(self, world: int) -> "Parallel":
        """For another number of processes: what it does not divide is spread over fewer, a single one shares nothing.

        >>> [Parallel(shard=4).fitted(world).shard for world in (6, 1, 8)]
        [2, 1, 4]
        """
        shard = gcd(self.shard, world)
        change = {"shard": shard, "expert": gcd(self.expert, world), "stages": self.stages if world > 1 else 1}
        if self.sync_every > 1 and change["expert"] > 1:
            change["expert"] = shard
        return settings_from(Parallel, self.model_dump() | change, "[parallel]")

    def replicas(self, world: int) -> int:
        """How many copies of the model `world` processes hold. Raises UserError where they do not come out even."""
        each = self.stages * self.shard
        if world % each:
            what = f"{world} processes are no multiple of {each} (stages={self.stages}, shard={self.shard})"
            raise UserError(what, "start as many with torchrun, or change [parallel]")
        data = world // self.stages
        if data % self.expert:
            what = f"expert={self.expert} does not divide the {data} processes that hold different data"
            raise UserError(what, "choose a divisor")
        return world // each
