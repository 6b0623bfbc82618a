"""A model on disk, Hugging Face folder or GGUF, seen one way: config, tokenizer, weights by our names, licence."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smallpress.lowbit.blocks import dequantize
from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.run.errors import UserError
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.gguf_parts import first_part, open_gguf_model
from smallpress.weights.json_files import read_json_object
from smallpress.weights.names import GGUF, HF, check_tensors, config_from_gguf
from smallpress.weights.names_gguf import ROPE_FACTORS, WHOLE_KV_B, as_rows, from_gguf_layout, gguf_tensors
from smallpress.weights.names_gguf_in import gguf_architecture
from smallpress.weights.names_hf import config_from_hf, fp8_block, is_reward_model
from smallpress.weights.names_reader import as_written
from smallpress.weights.names_tensors import Piece, hf_pieces, norm_offset
from smallpress.weights.rope_factors import MAX_PAIRS
from smallpress.weights.shards import open_shards
from smallpress.weights.store import SOURCE_NOTE

if TYPE_CHECKING:
    import torch

    from smallpress.model.transformer import Transformer

LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
MAX_LICENCE_BYTES = 1 << 20


class ModelFiles(ABC):
    """An opened model.

    `generation` holds the token ids and sampling settings the files recommend, in Hugging Face's words; `licence` is an
    identifier such as "apache-2.0", `licence_text` its wording, `origin` the hub's name of the model, `name` what the
    files call it; each None where they do not say.
    """

    name: str | None = None

    def __init__(self, path: Path, config: ModelConfig, generation: dict[str, Any]):
        self.path, self.config, self.generation = path, config, generation
        folder = path if path.is_dir() else path.parent
        self.licence, self.origin = _licence_and_origin(folder, path.is_dir())
        self.licence_text = _licence_text(folder) if self.licence or path.is_dir() else None

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Made anew at each call."""

    @abstractmethod
    def gguf_metadata(self) -> dict[str, Any]:
        """The keys `general.` and `tokenizer.` of a GGUF of this model. Raises UserError where a GGUF cannot have them.

        They are those of a GGUF file as it has them; for a folder they are made from its name, tokenizer and sampling.
        """

    @abstractmethod
    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor by our name, dequantized, as an array of its own memory."""

    def read_rows(self, name: str, first: int, n_rows: int) -> NDArray[np.float32]:
        """Some rows of `read`, those of a stack counted through."""
        tensor = self.read(name)
        return tensor.reshape(-1, *tensor.shape[max(1, tensor.ndim - 1) :])[first : first + n_rows]

    @abstractmethod
    def stored(self, name: str) -> tuple[str, NDArray[np.uint8]]:
        """A matrix as the file holds it: its number format in GGUF's words, its rows' bytes [n_rows, row bytes].

        A stack's rows follow one another, matrix by matrix.
        """

    @abstractmethod
    def let_go(self) -> None:
        """Give back the memory of what was read; what is asked for again is read again."""

    def tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """(our name, fp32 array) of every tensor, read when its turn comes."""
        return ((name, self.read(name)) for name in tensor_shapes(self.config))


_GGUF_IDS = {"bos": "bos", "eos": "eos", "pad": "padding"}
"""Hugging Face's word for a special id -> GGUF's."""
_GGUF_SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
"""Hugging Face's word for a recommended setting -> GGUF's."""
HUB_URL = "https://huggingface.co/"


class HFFolder(ModelFiles):
    def __init__(self, path: Path):
        settings = read_json_object(path / "config.json")
        self._shards = open_shards(path, fp8_block(settings, str(path / "config.json")))
        shapes = dict(self._shards.shapes)
        config = self._decoder(config_from_hf(settings, shapes, str(path / "config.json")), settings, shapes, path)
        check_tensors(config, HF, shapes, str(path))
        self._pieces = hf_pieces(config, config.family)
        recommended = path / "generation_config.json"
        generation = read_json_object(recommended) if recommended.exists() else {}
        ids = {f"{name}_token_id" for name in _GGUF_IDS}
        super().__init__(path, config, {key: settings[key] for key in settings if key in ids} | generation)
        if isinstance(name := settings.get("_name_or_path"), str) and name:
            self.name = name

    def _decoder(
        self, config: ModelConfig, settings: Mapping[str, Any], shapes: dict[str, tuple[int, ...]], path: Path
    ) -> ModelConfig:
        """The config of the decoder that is there; tensors that are none of its own are taken out of `shapes`."""
        if is_reward_model(settings):
            remedy = "give it to smallpress grpo as helpfulness.by or harmlessness.by"
            raise UserError(f"{path} is a reward model: it scores answers and writes none", remedy)
        return config

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.path)

    def let_go(self) -> None:
        self._shards.let_go()

    def gguf_metadata(self) -> dict[str, Any]:
        general: dict[str, Any] = {"general.name": self.path.resolve().name}
        for ours, key in _GGUF_SAMPLING.items():
            if type(value := self.generation.get(ours)) in (int, float):
                general[f"general.sampling.{key}"] = value if type(value) is int else float(np.float32(value))
        return general | self.tokenizer().gguf_metadata(self.config.vocab_size)

    def read(self, name: str) -> NDArray[np.float32]:
        shape = tensor_shapes(self.config)[name]
        pieces = self._pieces[name]
        if len(pieces) == 1:
            return self._part(name, pieces[0]).reshape(shape)
        out = np.empty((len(pieces), *shape[1:]), dtype=np.float32)
        for i, piece in enumerate(pieces):
            out[i] = self._part(name, piece)
        return out

    def read_rows(self, name: str, first: int, n_rows: int) -> NDArray[np.float32]:
        pieces = self._pieces[name]
        each = pieces[0].n_rows
        if len(pieces) > 1 and first % each == 0 and n_rows == each:
            return self._part(name, pieces[first // each])
        return super().read_rows(name, first, n_rows)

    def _part(self, name: str, piece: Piece) -> NDArray[np.float32]:
        rows = self._shards.read(piece.name)[piece.first : piece.first + piece.n_rows]
        return rows + np.float32(offset) if (offset := norm_offset(name, self.config.family)) else rows

    def stored(self, name: str) -> tuple[str, NDArray[np.uint8]]:
        pieces = self._pieces[name]
        dtypes = {self._shards.dtype(piece.name) for piece in pieces}
        if len(dtypes) > 1 or dtypes & {"F8_E4M3"}:
            tensor = self.read(name)
            return "F32", tensor.reshape(-1, tensor.shape[-1]).view(np.uint8)
        parts = []
        for piece in pieces:
            dtype, raw = self._shards.stored(piece.name)
            n_rows = self._shards.shapes[piece.name][0]
            parts.append(raw.reshape(n_rows, -1)[piece.first : piece.first + piece.n_rows])
        return dtype, parts[0] if len(parts) == 1 else np.concatenate(parts)


class _GGUF(ModelFiles):
    def __init__(self, path: Path):
        self._file = open_gguf_model(path)
        metadata, shapes = self._file.metadata, {name: info.shape for name, info in self._file.tensors.items()}
        config = config_from_gguf(metadata, shapes, str(path), self._rope_factors(path))
        check_tensors(config, GGUF, shapes, str(path))
        self._parts: dict[str, list[str]] = {}  # the tensors there of each of ours
        for name, tensor in gguf_tensors(config, WHOLE_KV_B in shapes).items():
            self._parts.setdefault(tensor.ours, []).append(name)
        self._architecture = gguf_architecture(metadata, str(path))
        keys = {f"{ours}_token_id": f"tokenizer.ggml.{theirs}_token_id" for ours, theirs in _GGUF_IDS.items()}
        keys |= {ours: f"general.sampling.{theirs}" for ours, theirs in _GGUF_SAMPLING.items()}
        generation = {ours: as_written(metadata[key]) for ours, key in keys.items() if key in metadata}
        super().__init__(path, config, generation)
        if isinstance(said := metadata.get("general.name"), str):
            self.name = said
        licence = metadata.get("general.license")
        if self.licence is None and isinstance(licence, str):
            self.licence = licence
        base = metadata.get("general.base_model.0.repo_url")
        if self.origin is None and isinstance(base, str) and base.startswith(HUB_URL):
            self.origin = base.removeprefix(HUB_URL)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_gguf(self._file.metadata)

    def let_go(self) -> None:
        self._file.let_go()

    def gguf_metadata(self) -> dict[str, Any]:
        metadata = self._file.metadata.items()
        return {key: value for key, value in metadata if key.startswith(("general.", "tokenizer."))}

    def _rope_factors(self, path: Path) -> NDArray[np.float32] | None:
        if ROPE_FACTORS not in self._file.tensors:
            return None
        if math.prod(shape := self._file.tensors[ROPE_FACTORS].shape) > MAX_PAIRS:
            raise UserError(f"{path}: tensor {ROPE_FACTORS} has the shape {list(shape)}", "fetch it again")
        return self._file.read(ROPE_FACTORS)

    def read(self, name: str) -> NDArray[np.float32]:
        return from_gguf_layout(name, self._file.read, self._parts[name], self.config, self._architecture)

    def read_rows(self, name: str, first: int, n_rows: int) -> NDArray[np.float32]:
        parts = self._parts[name]
        info = self._file.tensors[parts[0]]
        if len(info.shape) == 3 and len(parts) == 1:
            rows = as_rows(self._file.raw(parts[0]), info.shape)[first : first + n_rows]
            return dequantize(info.format, rows.reshape(-1)).reshape(len(rows), info.shape[-1])
        return super().read_rows(name, first, n_rows)

    def stored(self, name: str) -> tuple[str, NDArray[np.uint8]]:
        parts = self._parts[name]
        if len(parts) > 1:
            tensor = self.read(name)
            return "F32", tensor.view(np.uint8).reshape(len(tensor), -1)
        info = self._file.tensors[parts[0]]
        return info.format.name, from_gguf_layout(
            name, lambda part: as_rows(self._file.raw(part), info.shape), parts, self.config, self._architecture
        )


def open_model(path: str | Path) -> ModelFiles:
    """Open a Hugging Face folder, a .gguf file or a folder of it, or a .gguf model in parts by any one of them.

    The whole header is checked, no weight is read yet.
    Raises UserError (FormatError where a file breaks its format) with path and reason.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist", "give a model folder or a .gguf file")
    if not path.is_dir():
        return _GGUF(path)
    if (path / "config.json").exists():
        return HFFolder(path)
    ggufs = sorted(path.glob("*.gguf"))
    only = ggufs[0] if len(ggufs) == 1 else first_part(ggufs)
    if only is None:
        found = f"no config.json and {len(ggufs)} .gguf files"
        raise UserError(f"{path} is no model folder: it has {found}", "give a model folder or one .gguf file")
    return _GGUF(only)


def load_transformer(model_files: str | Path | ModelFiles, dtype: "torch.dtype | None" = None) -> "Transformer":
    """The model, opened or by its path, as a torch module on the CPU, in `dtype` (fp32 where None); one tensor is
    converted at a time."""
    import torch

    from smallpress.model.transformer import Transformer

    files = model_files if isinstance(model_files, ModelFiles) else open_model(model_files)
    with torch.device("meta"):
        model = Transformer(files.config)
    model.load_state_dict(tensors_of(files, files.config, dtype), assign=True)
    return model


def tensors_of(files: ModelFiles, config: ModelConfig, dtype: "torch.dtype | None") -> "dict[str, torch.Tensor]":
    """What a config, the model's or its body's, calls for, by our names."""
    import torch

    state = {}
    for name in tensor_shapes(config):
        tensor = torch.from_numpy(np.ascontiguousarray(files.read(name)))
        state[name] = tensor if name.endswith("expert_bias") else tensor.to(dtype)
    return state


def _licence_and_origin(folder: Path, whole_folder: bool) -> tuple[str | None, str | None]:
    """From the note `pull` leaves, else from the head of a model card; a lone .gguf file has no card of its own."""
    facts: dict[str, Any] = {}
    if (folder / SOURCE_NOTE).is_file():
        facts = read_json_object(folder / SOURCE_NOTE)
    elif whole_folder and (folder / "README.md").is_file():
        with open(folder / "README.md", encoding="utf-8", errors="replace") as file:
            card = file.read(1 << 16)
        head = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
        lines = re.findall(r"^(license|base_model): *[\"']?([^\s\"'\[\]]+)", head[1] if head else "", re.MULTILINE)
        facts = {{"license": "licence", "base_model": "origin"}[key]: value for key, value in lines}
    licence, origin = facts.get("licence"), facts.get("origin")
    return licence if isinstance(licence, str) else None, origin if isinstance(origin, str) else None


def _licence_text(folder: Path) -> str | None:
    for name in LICENCE_FILES:
        if (folder / name).is_file():
            with open(folder / name, "rb") as file:
                return file.read(MAX_LICENCE_BYTES).decode("utf-8", errors="replace")
    return None
