"""The table of foreign names, both worlds at once: Hugging Face folders (`names_tensors`, `names_hf`, `names_hf_out`)
and GGUF files (`names_gguf`, `names_gguf_in`, `names_gguf_out`)."""

import math
from collections.abc import Iterable, Mapping

from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes as tensor_shapes
from smallpress.run.errors import UserError
from smallpress.weights.names_gguf import ROPE_FACTORS, WHOLE_KV_B, gguf_tensors, ignorable_in_gguf
from smallpress.weights.names_gguf_in import config_from_gguf as config_from_gguf
from smallpress.weights.names_gguf_out import config_to_gguf as config_to_gguf
from smallpress.weights.names_tensors import hf_pieces, hf_tensors, ignorable

HF, GGUF = 1, 2
"""The two worlds."""
MAX_TENSORS = 1 << 18
"""Of one model; DeepSeek-V3 has 45,000 besides its scales."""


def foreign_names(config: ModelConfig, column: int) -> dict[str, str]:
    """Our name of every tensor the config calls for -> its name in HF or GGUF, in the order of the data.

    Where each of ours is one of theirs; `names_tensors.hf_pieces` and `names_gguf.gguf_tensors` say it for all.
    """
    if column == HF:
        return {ours: pieces[0].name for ours, pieces in hf_pieces(config, config.family).items()}
    return {tensor.ours: name for name, tensor in gguf_tensors(config, whole_kv_b=True).items()}


def check_tensors(config: ModelConfig, column: int, found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """`found`: the file's names and shapes. Raises UserError listing what is missing, surplus or of another shape."""
    if column == HF:
        n_wanted = sum(math.prod(shape[:-2]) for shape in tensor_shapes(config).values())
        if n_wanted > MAX_TENSORS:
            raise UserError(f"{source}: the config calls for {n_wanted} tensors, {len(found)} are there")
        wanted = {name: tensor.shape for name, tensor in hf_tensors(config, config.family).items()}
        spare = {name for name in found if ignorable(name, config)}
    else:
        wanted = {name: tensor.shape for name, tensor in gguf_tensors(config, WHOLE_KV_B in found).items()}
        spare = {name for name in found if name == ROPE_FACTORS or ignorable_in_gguf(name, config)}
    missing = [name for name in wanted if name not in found]
    surplus = set(found) - set(wanted) - spare
    if missing or surplus:
        faults = [f"{what}: {_some(group)}" for what, group in (("missing", missing), ("surplus", surplus)) if group]
        raise UserError(f"{source}: the tensors are not those of the config ({'; '.join(faults)})", "fetch it again")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise UserError(
                f"{source}: tensor {name} has the shape {list(found[name])}, but the config calls for {list(shape)}",
                "fetch it again",
            )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
