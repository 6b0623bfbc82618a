"""What every runner says of weights it cannot use."""

from collections.abc import Mapping
from typing import Any

from smallpress.run.errors import UserError

DAMAGED = "the weights have diverged or are damaged; load an earlier checkpoint"


def broken_logits(row: int, n: int) -> UserError:
    """For a sampler that met NaN or infinity in one row of n."""
    return UserError(f"the logits of row {row} of {n} hold NaN or infinity", DAMAGED)


def check_names_and_shapes(named: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError unless `named` has every name of `shapes`, no other, each array in its shape."""
    for name in named.keys() ^ shapes.keys():
        fault = f"the weight {name} is missing" if name in shapes else f"the model has no weight {name}"
        raise UserError(fault, "give every name of Transformer.named_parameters(), once")
    for name, shape in shapes.items():
        if tuple(named[name].shape) != shape:
            raise UserError(f"{name} has shape {tuple(named[name].shape)}", f"it must be {shape}")
