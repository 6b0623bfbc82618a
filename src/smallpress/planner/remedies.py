"""What would fit where a run does not: settings first, then a smaller model, then a machine of the catalogue."""

from collections.abc import Callable, Sequence
from math import ceil, log2

from smallpress.model.config import ModelConfig
from smallpress.model.sizes import parameters
from smallpress.planner.machine import machines
from smallpress.planner.model import of_size

SPARE = 0.93
"""Of a machine's free memory, what a plan fills at most."""
SIZES = (70e9, 32e9, 14e9, 7e9, 3e9, 1.5e9, 0.7e9, 0.36e9, 0.135e9, 0.05e9, 0.01e9)


def three(
    settings: Sequence[str], needed: float, config: ModelConfig, kind: str, fits: Callable[[ModelConfig], bool]
) -> tuple[str, ...]:
    """`settings` that were found to fit; `needed` bytes as asked; `kind` of machine, whose like go first; `fits`:
    whether another model than `config` would."""
    smaller = [size for size in SIZES if size < 0.9 * parameters(config).total]
    size = next((size for size in smaller if fits(of_size(size))), None)
    others = [] if size is None else [f"a model of {size / 1e9:g}B parameters"]
    known = machines()
    able = [(one, name) for name, one in known.items() if SPARE * one.memory * 1e9 >= needed]
    able.sort(key=lambda found: (found[0].kind != kind, found[0].memory))
    others += [f"--machine {name} ({one.memory:g} GB)" for one, name in able[:2]]
    for name in ("h200", "h100"):  # together, with room for what each holds whole
        n = 2 ** ceil(log2(max(2.0, 1.5 * needed / (SPARE * known[name].memory * 1e9))))
        others.append(f"--machine {name} --chips {n} --layout shard=all")
    return (*settings, *others)[:3]


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """The greatest of most / 2, most / 4 and so on for which it holds; 0 where none.

    >>> largest(64, lambda n: n <= 10)
    8
    """
    n = most // 2
    while n and not fits(n):
        n //= 2
    return n
