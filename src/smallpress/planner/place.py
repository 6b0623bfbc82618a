"""Where a run would take place: a machine, its rates, what is free on it, and what the program itself holds there."""

from dataclasses import dataclass

from smallpress.planner.machine import Machine
from smallpress.planner.rates import Rates, Roofline

GPU_PROGRAM = 1.0e9
"""What libraries hold on a graphics chip: contexts, kernels, work areas."""
PROGRAM = {False: 0.10e9, True: 0.32e9}
"""What the interpreter and libraries hold on a processor that was not measured, without and with torch."""


@dataclass(frozen=True, slots=True)
class Place:
    """`program`: bytes that the process holds before it opens a model, without and with torch. `is_here`: this machine,
    where our own core runs and files are mapped. `is_rough`: its speed was never measured; `is_busy`: it was, while
    somebody else was at work."""

    machine: Machine
    rates: Rates
    free: float
    program: dict[bool, float]
    is_here: bool = False
    is_rough: bool = False
    is_busy: bool = False


def catalogued(machine: Machine) -> Place:
    own = PROGRAM if machine.kind == "processor" else dict.fromkeys(PROGRAM, GPU_PROGRAM)
    return Place(machine, Roofline(machine), machine.memory * 1e9, own)
