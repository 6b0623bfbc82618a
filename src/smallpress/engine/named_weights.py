"""The check every runner makes before it takes over weights."""

from collections.abc import Mapping
from typing import Any

from smallpress.run.errors import UserError


def check_names_and_shapes(named: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError unless `named` has every name of `shapes`, no other, each array in its shape."""
    for name in named.keys() ^ shapes.keys():
        fault = f"the weight {name} is missing" if name in shapes else f"the model has no weight {name}"
        raise UserError(fault, "give every name of Transformer.named_parameters(), once")
    for name, shape in shapes.items():
        if tuple(named[name].shape) != shape:
            raise UserError(f"{name} has shape {tuple(named[name].shape)}", f"it must be {shape}")
