"""Machines by name: what their makers say of them, and the share of it that programs reach.

The catalogue is planner/machines.toml; a person's own machines.toml in the store, and a file named on the command line,
add to it and replace entries of the same name.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field

from smallpress.run.errors import UserError
from smallpress.run.home import store_dir
from smallpress.run.settings import Settings, nearest, read_toml, settings_from

Precision = Literal["fp8", "int8", "bfloat16", "float32"]
Figure = Literal["memory", "bandwidth", "peaks", "link", "network", "watts", "price"]
Kind = Literal["datacentre", "graphics", "unified", "processor"]

OWN = "machines.toml"
MEASURED = "here"
"""The name of this machine."""


class Machine(Settings):
    """One chip and its links, or one computer.

    memory in GB (of 10^9 bytes); bandwidth in GB/s; peaks in 10^12 operations a second without sparsity, a multiply-add
    being two; `link` and `network` in GB/s that one chip sends, to others in its box and beyond it; watts of the chip
    with its share of the box; price in dollars an hour. `reads`: GB/s that a memory test was seen to read, where one
    is published; 0: the share of the bandwidth that its class reaches. `source` says where the figures are from,
    `unconfirmed` names those for which no document was at hand.
    """

    title: str
    kind: Kind
    memory: float = Field(gt=0)
    bandwidth: float = Field(gt=0)
    peaks: dict[Precision, float] = Field(min_length=1)
    link: float = Field(default=0.0, ge=0)
    network: float = Field(default=0.125, gt=0)
    chips_in_box: int = Field(default=1, ge=1)
    watts: float = Field(gt=0)
    price: float = Field(default=0.0, ge=0)
    source: str
    reads: float = Field(default=0.0, ge=0)
    unconfirmed: tuple[Figure, ...] = ()

    def peak(self, precision: str) -> float:
        """Operations a second. A format that the chip has no units for is multiplied in the next wider it has.

        >>> chip = Machine(title="", kind="graphics", memory=1, bandwidth=1, peaks={"float32": 2}, watts=1, source="")
        >>> chip.peak("fp8")
        2000000000000.0
        """
        known = {str(name): peak for name, peak in self.peaks.items()}
        return next(known[one] for one in (precision, "bfloat16", "float32", "int8", "fp8") if one in known) * 1e12


@dataclass(frozen=True, slots=True)
class Shares:
    """What programs reach of a maker's figures; one set for each class of machine, the same for every run.

    bandwidth: of memory's; prompt: of the peak in the products of generation; training, training_fp8: of the peak in
    the products of training; attention: of the bf16 peak; link: of links and networks; layer_seconds: what starting a
    layer's work takes, which bounds a small model; up: of the hours paid for, those that train.
    """

    bandwidth: float
    prompt: float
    training: float
    training_fp8: float
    attention: float
    link: float
    layer_seconds: float
    up: float


SHARES: dict[Kind, Shares] = {
    "datacentre": Shares(0.80, 0.50, 0.48, 0.37, 0.35, 0.80, 4e-6, 0.95),
    "graphics": Shares(0.80, 0.50, 0.50, 0.40, 0.35, 0.80, 8e-6, 1.0),
    "unified": Shares(0.75, 0.45, 0.35, 0.35, 0.25, 0.80, 1e-5, 1.0),
    "processor": Shares(0.60, 0.30, 0.30, 0.30, 0.20, 0.80, 2e-5, 1.0),
}


def machines(more: Path | None = None) -> dict[str, Machine]:
    """By name: the package's, then the store's, then those of `more`. Raises UserError for a file that is wrong."""
    own = store_dir() / OWN
    with_ours = files("smallpress.planner").joinpath(OWN)
    found = _read(Path(str(with_ours)))
    for path in [own] * own.is_file() + ([more] if more else []):
        found |= _read(path)
    return found


def machine_named(name: str, more: Path | None = None) -> Machine:
    known = machines(more)
    if name not in known:
        raise UserError(f"there is no machine {name!r}", f"{nearest(name, known)}; or describe it: --machines FILE")
    return known[name]


def _read(path: Path) -> dict[str, Machine]:
    tree = read_toml(path)
    for name, entry in tree.items():
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {name} is no table", "write each machine under [its-name]")
    return {name: settings_from(Machine, entry, f"{path}: {name}") for name, entry in tree.items()}
