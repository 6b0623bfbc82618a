"""A Hugging Face folder that transformers, vLLM and llama.cpp's converter load unchanged."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smallpress.lowbit.bfloat16 import fp32_to_bf16
from smallpress.run.atomic import atomic_folder, write_file
from smallpress.run.errors import UserError
from smallpress.weights.load import ModelFiles
from smallpress.weights.model_card import model_card
from smallpress.weights.names import HF, config_to_hf, foreign_names, tensor_shapes
from smallpress.weights.safetensors_writer import LazyTensor, write_safetensors
from smallpress.weights.shards import SINGLE

if TYPE_CHECKING:
    import torch

STORED_AS = {"float32": "F32", "bfloat16": "BF16"}


def save_hf_folder(
    folder: str | Path,
    tensors: "Mapping[str, NDArray | torch.Tensor]",
    files: ModelFiles,
    dtype: str = "float32",
    card: Mapping[str, Any] | None = None,
    replace: bool = False,
    on_bytes: Callable[[int], object] = lambda n_bytes: None,
) -> Path:
    """Write the weights with the config, tokenizer and licence of the model they came from; whole or not at all.

    `tensors` are by our names, `dtype` is "float32" or "bfloat16" (nearest, ties to even); tensors are converted one at
    a time, so a mapping that makes them on demand never needs the whole model in memory. `card` may have `title`,
    `summary`, `datasets` (hub names) and `body` (Markdown). Raises UserError where the folder exists and is not to be
    replaced, or the disk fails.
    """
    if dtype not in STORED_AS:
        raise UserError(f"dtype {dtype!r} is not written", f"choose {' or '.join(STORED_AS)}")
    shapes, names = tensor_shapes(files.config), foreign_names(files.config, HF)
    assert set(tensors) == set(names), f"not the model's tensors: {sorted(set(tensors) ^ set(names))[:8]}"
    weights = {
        foreign: LazyTensor(STORED_AS[dtype], shapes[ours], partial(_stored, tensors, ours, dtype))
        for ours, foreign in names.items()
    }
    tokenizer = files.tokenizer()
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    ids |= {"pad_token_id": files.generation.get("pad_token_id", tokenizer.eos_id)}
    config = config_to_hf(files.config) | ids | {"dtype": dtype, "torch_dtype": dtype, "use_cache": True}
    generation = {**files.generation, **ids, "eos_token_id": _one_or_all(tokenizer.eos_ids)}
    generation = {key: value for key, value in generation.items() if value is not None}
    with atomic_folder(folder, replace) as tmp:
        tokenizer.save(tmp)
        _write_json(tmp / "config.json", config)
        _write_json(tmp / "generation_config.json", generation)
        write_safetensors(tmp / SINGLE, weights, {"format": "pt"}, on_bytes)
        write_file(tmp / "README.md", model_card(Path(folder).name, files, card or {}).encode())
        if files.licence_text is not None:
            write_file(tmp / "LICENSE", files.licence_text.encode())
    return Path(folder)


class WeightsOnDemand(Mapping[str, NDArray[np.float32]]):
    """The tensors of opened files as a mapping by our names, each read anew when it is asked for."""

    def __init__(self, files: ModelFiles):
        self._files, self._names = files, tensor_shapes(files.config)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._files.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def as_fp32(tensor: "NDArray | torch.Tensor") -> NDArray[np.float32]:
    """The tensor as a numpy array; not copied where it is one of fp32."""
    array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().float().numpy()
    return array.astype(np.float32, copy=False)


def _stored(tensors: "Mapping[str, NDArray | torch.Tensor]", name: str, dtype: str) -> NDArray:
    array = as_fp32(tensors[name])
    return fp32_to_bf16(array) if dtype == "bfloat16" else array


def _one_or_all(ids: frozenset[int]) -> int | list[int] | None:
    return sorted(ids) if len(ids) > 1 else next(iter(ids), None)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
