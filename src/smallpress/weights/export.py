"""A Hugging Face folder that transformers, vLLM and llama.cpp's converter load unchanged."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smallpress.lowbit.bfloat16 import fp32_to_bf16
from smallpress.model.shapes import tensor_shapes
from smallpress.run.atomic import atomic_folder, write_file
from smallpress.run.errors import UserError
from smallpress.tokenizer.whole import padding
from smallpress.weights.load import ModelFiles
from smallpress.weights.model_card import model_card
from smallpress.weights.names_hf import SCORE
from smallpress.weights.names_hf_out import as_scorer, config_to_hf
from smallpress.weights.names_tensors import EXPERT_BIAS, Piece, hf_tensors, norm_offset
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
    score: "torch.Tensor | None" = None,
) -> Path:
    """Write the weights with the config, tokenizer and licence of the model they came from; whole or not at all.

    `tensors` are by our names, `dtype` is "float32" or "bfloat16" (nearest, ties to even); tensors are converted one at
    a time, so a mapping that makes them on demand never needs the whole model in memory. `card` may have `title`,
    `summary`, `datasets` (hub names) and `body` (Markdown). With `score` [1, M] it is a reward model, and `tensors` are
    those of the decoder below its head. Raises UserError where the folder exists and is not to be
    replaced, or the disk fails.
    """
    if dtype not in STORED_AS:
        raise UserError(f"dtype {dtype!r} is not written", f"choose {' or '.join(STORED_AS)}")
    config = files.config if score is None else files.config.body()
    settings = config_to_hf(config)
    family = settings["model_type"]
    ours = tensor_shapes(config)
    assert set(tensors) == set(ours), f"not the model's tensors: {sorted(set(tensors) ^ set(ours))[:8]}"
    weights = {}
    for name, tensor in hf_tensors(config, family, mtp_copies=True).items():
        kind = "F32" if name.endswith(EXPERT_BIAS) else STORED_AS[dtype]
        make = partial(_stored, tensors, ours, tensor.pieces, tensor.shape, family, kind)
        weights[name] = LazyTensor(kind, tensor.shape, make)
    tokenizer = files.tokenizer()
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    ids |= {"pad_token_id": files.generation.get("pad_token_id", tokenizer.eos_id)}
    if score is not None:
        settings, array = as_scorer(settings), as_fp32(score)
        weights[SCORE] = LazyTensor("F32", array.shape, lambda: array)
        ids["pad_token_id"] = tokenizer.pad_with(padding(tokenizer))
    settings |= ids | {"dtype": dtype, "torch_dtype": dtype, "use_cache": True}
    generation = {**files.generation, **ids, "eos_token_id": _one_or_all(tokenizer.eos_ids)}
    generation = {key: value for key, value in generation.items() if value is not None}
    with atomic_folder(folder, replace) as tmp:
        tokenizer.save(tmp)
        _write_json(tmp / "config.json", settings)
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

    def rows(self, name: str, first: int, n_rows: int) -> NDArray[np.float32]:
        """Some rows of a tensor, those of a stack counted through; nothing else is read where the files allow it."""
        return self._files.read_rows(name, first, n_rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def as_fp32(tensor: "NDArray | torch.Tensor") -> NDArray[np.float32]:
    """The tensor as a numpy array; not copied where it is one of fp32."""
    array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().float().numpy()
    return array.astype(np.float32, copy=False)


def _stored(
    tensors: "Mapping[str, NDArray | torch.Tensor]",
    shapes: Mapping[str, tuple[int, ...]],
    pieces: tuple[Piece, ...],
    shape: tuple[int, ...],
    family: str,
    kind: str,
) -> NDArray:
    """A tensor of theirs, put together from ours."""
    parts = [_rows(tensors, piece, shapes[piece.name]) for piece in pieces]
    if offset := norm_offset(pieces[0].name, family):
        parts = [part - np.float32(offset) for part in parts]
    array = np.concatenate(parts).reshape(shape) if len(parts) > 1 else parts[0].reshape(shape)
    return fp32_to_bf16(array) if kind == "BF16" else array


def _rows(tensors: "Mapping[str, NDArray | torch.Tensor]", piece: Piece, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if isinstance(tensors, WeightsOnDemand) and len(shape) > 2:
        return tensors.rows(piece.name, piece.first, piece.n_rows)
    tensor = tensors[piece.name]
    flat = tensor.reshape(-1, shape[-1]) if len(shape) > 1 else tensor
    return as_fp32(flat[piece.first : piece.first + piece.n_rows])


def _one_or_all(ids: frozenset[int]) -> int | list[int] | None:
    return sorted(ids) if len(ids) > 1 else next(iter(ids), None)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
