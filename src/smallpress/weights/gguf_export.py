"""An opened model, with its weights or others, as what `write_gguf` takes: metadata and tensors under GGUF's names."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.weights.export import as_fp32
from smallpress.weights.gguf_writer import BlockTensor
from smallpress.weights.load import HUB_URL, ModelFiles
from smallpress.weights.model_card import HUB_NAME
from smallpress.weights.names_gguf import ROPE_FACTORS, to_gguf_layout
from smallpress.weights.names_gguf_out import config_to_gguf, written_factors, written_tensors
from smallpress.weights.quantization import BY_NAME, TARGETS, tensor_format

if TYPE_CHECKING:
    import torch

QUANTIZATION_VERSION = 2
"""Of the block layouts of `lowbit/blocks.py`."""
OF_THE_FILE = ("general.architecture", "general.alignment")
"""What a GGUF says of its layout: not carried over."""


def gguf_contents(
    tensors: "Mapping[str, NDArray | torch.Tensor]", files: ModelFiles, target: str
) -> tuple[dict[str, Any], dict[str, BlockTensor]]:
    """`tensors` are by our names and asked for one at a time, when written; `target` is one of TARGETS.

    Tokenizer, licence and origin are those of `files`; MTP modules are left out. Raises UserError where a GGUF cannot
    have the model or its tokenizer.
    """
    config = files.config
    surplus = set(tensors) ^ set(tensor_shapes(config))
    assert not surplus, f"not the model's tensors: {sorted(surplus)[:8]}"
    settings = config_to_gguf(config)
    architecture = settings["general.architecture"]
    blocks: dict[str, BlockTensor] = {}
    factors = written_factors(config)
    if factors is not None:
        blocks[ROPE_FACTORS] = BlockTensor(BY_NAME["F32"], factors.shape, partial(np.copy, factors))
    for name, tensor in written_tensors(config).items():
        make = partial(_in_gguf_layout, tensors, name, tensor.ours, config, architecture)
        blocks[name] = BlockTensor(tensor_format(tensor.ours, tensor.shape, config, target), tensor.shape, make)
    kept = {key: value for key, value in files.gguf_metadata().items() if key not in OF_THE_FILE}
    made = {"general.type": "model", "general.file_type": TARGETS[target].file_type}
    made |= {"general.quantization_version": QUANTIZATION_VERSION} | _licence_and_origin(files, kept)
    return settings | kept | made, blocks


def kept_precision(files: ModelFiles) -> str:
    """The target nearest to how the model is stored: f32 and bf16 as such, everything else as f16."""
    stored, _ = files.stored("embed.weight")
    return {"F32": "f32", "F64": "f32", "BF16": "bf16"}.get(stored, "f16")


def _in_gguf_layout(
    tensors: "Mapping[str, NDArray | torch.Tensor]", name: str, ours: str, config: ModelConfig, architecture: str
) -> NDArray[np.float32]:
    return to_gguf_layout(name, ours, as_fp32(tensors[ours]), config, architecture)


def _licence_and_origin(files: ModelFiles, kept: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"general.license": files.licence} if files.licence else {}
    if files.origin and HUB_NAME.fullmatch(files.origin) and "general.base_model.count" not in kept:
        organization, name = files.origin.split("/")
        base = {"name": name, "organization": organization, "repo_url": HUB_URL + files.origin}
        facts |= {"general.base_model.count": 1} | {f"general.base_model.0.{key}": value for key, value in base.items()}
    return facts
