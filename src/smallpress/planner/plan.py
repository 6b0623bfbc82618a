"""A plan: what a run will hold in memory, how long each phase takes and what it waits for, and what it costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from smallpress.planner.machine import Machine
from smallpress.planner.rates import Cost, plus
from smallpress.run.errors import UserError

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of work of the whole run: `cost` in seconds by what they wait for, on all chips at once."""

    name: str
    cost: Cost
    tokens: float = 0.0
    flops: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(self.cost.values())


@dataclass(frozen=True, slots=True)
class Bar:
    """One piece of work in a pipeline's timeline: rank, what it is (F, B, I, W), micro-batch, from when to when."""

    rank: int
    kind: str
    batch: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Plan:
    """`memory`: parts of the fullest moment on one chip, bytes; `room`: what a chip offers; `figures`: speeds by name;
    `remedies`: settings under which it would fit, empty where it does."""

    activity: str
    model: str
    machine: Machine
    n_chips: int
    memory: Mapping[str, float]
    room: float
    phases: tuple[Phase, ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    timeline: tuple[Bar, ...] = ()

    @property
    def peak_memory(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.peak_memory <= self.room

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def tokens(self) -> float:
        return sum(phase.tokens for phase in self.phases)

    @property
    def flops(self) -> float:
        return sum(phase.flops for phase in self.phases)

    @property
    def chip_hours(self) -> float:
        return self.n_chips * self.seconds / HOUR

    @property
    def energy(self) -> float:
        """Joules of all chips, at full load."""
        return self.n_chips * self.machine.watts * self.seconds

    @property
    def money(self) -> float:
        """Dollars at the machine's price an hour."""
        return self.chip_hours * self.machine.price

    @property
    def bottleneck(self) -> str:
        waits = plus(*(phase.cost for phase in self.phases))
        return max(waits, key=lambda cause: waits[cause]) if waits else "nothing"

    def require_room(self) -> None:
        """Raises UserError, with what would fit, where the memory is too small."""
        if not self.fits:
            most = self.peak_memory
            what = f"{self.activity} needs {most / 1e9:.2f} GB of memory, {self.room / 1e9:.2f} GB are free"
            raise UserError(what, "; or ".join(self.remedies) or "take a smaller model or another machine")

    def as_json(self) -> dict[str, Any]:
        return {
            "activity": self.activity,
            "model": self.model,
            "machine": self.machine.title,
            "chips": self.n_chips,
            "fits": self.fits,
            "memory_bytes": {name: round(value) for name, value in self.memory.items()},
            "peak_memory_bytes": round(self.peak_memory),
            "room_bytes": round(self.room),
            "phases": [asdict(phase) | {"seconds": phase.seconds} for phase in self.phases],
            "seconds": self.seconds,
            "tokens": self.tokens,
            "flops": self.flops,
            "chip_hours": self.chip_hours,
            "energy_joules": self.energy,
            "dollars": self.money,
            "bottleneck": self.bottleneck,
            "figures": dict(self.figures),
            "remedies": list(self.remedies),
            "notes": list(self.notes),
            "unconfirmed": list(self.machine.unconfirmed),
        }
