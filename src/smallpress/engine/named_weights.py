"""What every runner says of weights and adapters it cannot use."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from smallpress.model.config import MLA, ModelConfig
from smallpress.run.errors import UserError

DAMAGED = "the weights have diverged or are damaged; load an earlier checkpoint"

BESIDE = re.compile(r"layers\.\d+\.(attn\.[qkvo]|mlp\.(shared\.)?(gate|up|down))")
"""Layers whose products a runner can add to: those that it multiplies by as they are."""


def check_adapted(layers: Iterable[str], config: ModelConfig) -> None:
    """Raises UserError where an adapter of these layers must be merged to be run."""
    latent = isinstance(config.attention, MLA)
    for layer in layers:
        if not BESIDE.fullmatch(layer) or (latent and layer.endswith(("attn.q", "attn.k", "attn.v"))):
            raise UserError(
                f"the adapter changes {layer}, which is run in another form", "merge it: smallpress convert --adapter"
            )


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
