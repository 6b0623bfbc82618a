"""Low-rank adapters on disk, in the format of the `peft` library, and a model's files with one merged into them.

    adapter_config.json         r, lora_alpha, use_rslora, target_modules, ...
    adapter_model.safetensors   base_model.model.<their module>.lora_A.weight [rank, in] and .lora_B.weight [out, rank]

The merged weight is W + scale B A, with scale = alpha / r, or alpha / sqrt(r) where use_rslora.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.run.atomic import atomic_folder, write_file
from smallpress.run.errors import UserError
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.errors import FormatError
from smallpress.weights.json_files import read_json_object
from smallpress.weights.load import ModelFiles
from smallpress.weights.names_tensors import hf_pieces, hf_tensors
from smallpress.weights.safetensors import open_safetensors
from smallpress.weights.safetensors_writer import write_safetensors

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

NOT_READ = {
    "use_dora": "DoRA", "fan_in_fan_out": "transposed weights", "modules_to_save": "modules saved whole",
    "lora_bias": "biases of its own", "trainable_token_indices": "trained embeddings", "layer_replication": "copies",
    "alora_invocation_tokens": "an invocation sequence", "target_parameters": "adapted parameters",
}  # fmt: skip
"""Settings of an adapter that mean something this reader does not do, where they are set."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """`pairs`: our name of a layer -> (A [rank, in], B [out, rank]), both fp32; `scales` likewise."""

    pairs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    scales: Mapping[str, float]

    def change(self, layer: str) -> NDArray[np.float32]:
        """[out, in]: what it adds to the layer's weight."""
        a, b = self.pairs[layer]
        return np.float32(self.scales[layer]) * (b @ a)

    def mark(self) -> bytes:
        """32 bytes that no other adapter has: a hash of all its numbers."""
        whole = sha256()
        for layer in sorted(self.pairs):
            a, b = self.pairs[layer]
            whole.update(f"{layer} {a.shape} {b.shape} {self.scales[layer].hex()}\n".encode())
            whole.update(a.tobytes() + b.tobytes())
        return whole.digest()


def save_adapter(
    folder: Path,
    pairs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    config: ModelConfig,
    base: str,
    alpha: float,
    rank_stabilized: bool,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write what `peft` loads over the base model; whole or not at all. `pairs` as in `Adapter`, all of one rank."""
    theirs = their_modules(config)
    lacking = sorted(set(pairs) - set(theirs))
    if lacking:
        what = f"in files of the family {config.family} {lacking[0]} is a part of a larger matrix"
        raise UserError(what, "choose other targets, or train all weights")
    rank = len(next(iter(pairs.values()))[0])
    tensors: dict[str, NDArray] = {}
    for ours, (a, b) in pairs.items():
        tensors[f"{PREFIX}{theirs[ours]}.lora_A.weight"] = a
        tensors[f"{PREFIX}{theirs[ours]}.lora_B.weight"] = b
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": rank_stabilized,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({theirs[ours].rpartition(".")[2] for ours in pairs}),
    }
    with atomic_folder(folder) as tmp:
        write_safetensors(tmp / TENSORS, tensors, {"format": "pt"})
        write_file(tmp / CONFIG, json.dumps(settings, indent=2).encode() + b"\n")
        if tokenizer is not None:
            tokenizer.save(tmp)


def open_adapter(folder: Path, config: ModelConfig) -> Adapter:
    """Read an adapter for a model of that config. Raises UserError where it does something not read here, or does not
    fit the model."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is no adapter: it has no {CONFIG}", "give the folder that peft or smallpress wrote")
    settings = read_json_object(folder / CONFIG)
    _check_settings(folder / CONFIG, settings)
    if not (folder / TENSORS).is_file():
        raise UserError(f"{folder} has no {TENSORS}", "save the adapter as safetensors; pickled ones are never read")
    file = open_safetensors(folder / TENSORS)
    theirs = their_modules(config)
    base = f"it was trained over {settings.get('base_model_name_or_path') or 'another model'}"
    modules = {name: ours for ours, name in theirs.items()}
    shapes, found = tensor_shapes(config), {}
    for name in file.tensors:
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])(?:\.default)?\.weight", name)
        if match is None or match[1] not in modules:
            raise UserError(f"{folder}: the model has no layer for {name!r}", base)
        found[modules[match[1]], match[2]] = np.array(file.read(name), dtype=np.float32)
    pairs, scales = {}, {}
    for ours in dict.fromkeys(layer for layer, _ in found):
        a, b = found.get((ours, "A")), found.get((ours, "B"))
        n_out, n_in = shapes[f"{ours}.weight"]
        if a is None or b is None or a.shape != (len(a), n_in) or b.shape != (n_out, len(a)):
            got = " and ".join("none" if x is None else str(list(x.shape)) for x in (a, b))
            raise UserError(
                f"{folder}: A and B of {ours} are {got}, which do not fit the model's [{n_out}, {n_in}]", base
            )
        pairs[ours] = a, b
        scales[ours] = _scale(settings, theirs[ours], len(a), folder / CONFIG)
    if not pairs:
        raise FormatError(file.path, 0, "it holds no adapter")
    return Adapter(pairs, scales)


def their_modules(config: ModelConfig) -> dict[str, str]:
    """Our name of each linear layer that is one matrix in a Hugging Face folder too -> its name there."""
    foreign = hf_tensors(config, config.family)
    found = {}
    for ours, pieces in hf_pieces(config, config.family).items():
        whole = len(pieces) == 1 and len(foreign[pieces[0].name].pieces) == 1
        if whole and ours.startswith("layers.") and ours.endswith(".weight") and len(tensor_shapes(config)[ours]) == 2:
            found[ours.removesuffix(".weight")] = pieces[0].name.removesuffix(".weight")
    return found


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type is {settings.get('peft_type')!r}", "only LORA adapters are read")
    if settings.get("bias", "none") != "none":
        raise UserError(f"{path}: bias is {settings['bias']!r}", "only adapters without trained biases are read")
    for key, meaning in NOT_READ.items():
        if settings.get(key):
            raise UserError(f"{path}: {key} is set ({meaning}), which is not read", "merge it with peft first")


def _scale(settings: Mapping[str, Any], module: str, rank: int, path: Path) -> float:
    """alpha over the rank or its root; `rank` is the matrices' own. A pattern for the module's name goes first."""
    alpha = settings.get("lora_alpha", 8)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith("." + pattern):
            alpha = value
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise UserError(f"{path}: lora_alpha is {alpha!r}", "it must be a number")
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


class AdaptedFiles(ModelFiles):
    """A model's files with an adapter merged into them as they are read."""

    def __init__(self, files: ModelFiles, adapter: Adapter):
        self._files, self._adapter = files, adapter
        self._layers = {f"{layer}.weight": layer for layer in adapter.pairs}
        self.path, self.config, self.generation, self.name = files.path, files.config, files.generation, files.name
        self.licence, self.origin, self.licence_text = files.licence, files.origin, files.licence_text

    def tokenizer(self) -> Tokenizer:
        return self._files.tokenizer()

    def gguf_metadata(self) -> dict[str, Any]:
        return self._files.gguf_metadata()

    def read(self, name: str) -> NDArray[np.float32]:
        tensor = self._files.read(name)
        return tensor + self._adapter.change(self._layers[name]) if name in self._layers else tensor

    def read_rows(self, name: str, first: int, n_rows: int) -> NDArray[np.float32]:
        if name in self._layers:
            return super().read_rows(name, first, n_rows)
        return self._files.read_rows(name, first, n_rows)

    def stored(self, name: str) -> tuple[str, NDArray[np.uint8]]:
        """A merged matrix is held in fp32."""
        if name not in self._layers:
            return self._files.stored(name)
        tensor = np.ascontiguousarray(self.read(name))
        return "F32", tensor.view(np.uint8)

    def let_go(self) -> None:
        self._files.let_go()


def with_adapter(files: ModelFiles, folder: Path | None) -> ModelFiles:
    """The model's files, with the adapter in `folder` merged where one is given. Raises UserError as `open_adapter`."""
    return files if folder is None else AdaptedFiles(files, open_adapter(folder, files.config))
