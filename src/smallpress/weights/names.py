"""The table of foreign names: what GGUF files call our tensors and settings. `names_tensors` and `names_hf` go on with
Hugging Face folders.

A GGUF of the llama kind also holds the rows of q and k in another order, because llama.cpp turns neighbouring pairs
(2i, 2i + 1) where we turn halves (i, i + D/2); `unpermute` puts them back, `permute` does it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.shapes import tensor_shapes as tensor_shapes
from smallpress.run.errors import UserError
from smallpress.run.settings import settings_from
from smallpress.weights.names_tensors import hf_pieces, hf_tensors, ignorable

TENSORS: Mapping[str, str] = {
    # ours: GGUF's; `{}` is the layer
    "embed": "token_embd",
    "layers.{}.attn_norm": "blk.{}.attn_norm",
    "layers.{}.attn.q": "blk.{}.attn_q",
    "layers.{}.attn.k": "blk.{}.attn_k",
    "layers.{}.attn.v": "blk.{}.attn_v",
    "layers.{}.attn.o": "blk.{}.attn_output",
    "layers.{}.mlp_norm": "blk.{}.ffn_norm",
    "layers.{}.mlp.gate": "blk.{}.ffn_gate",
    "layers.{}.mlp.up": "blk.{}.ffn_up",
    "layers.{}.mlp.down": "blk.{}.ffn_down",
    "norm": "output_norm",
    "head": "output",
}
HF, GGUF = 1, 2
"""The two worlds."""

SETTINGS: Mapping[str, str] = {
    # ours: key of GGUF behind "<architecture>."
    "vocab_size": "vocab_size",
    "dim": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "n_kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "inter_dim": "feed_forward_length",
    "norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_seq_len": "context_length",
}
FLOATS = ("norm_eps", "rope_theta")
DEFAULT_ROPE_THETA = 10000.0
MAX_LAYERS = 4096
MAX_TENSORS = 1 << 18
"""Of one model; DeepSeek-V3 has 45,000 besides its scales."""

GGUF_ARCHITECTURES = ("llama", "qwen2")
QWEN2_BIASES = (True, True, True, False)


# ---- tensors


def foreign_names(config: ModelConfig, column: int) -> dict[str, str]:
    """Our name of every tensor the config calls for -> its name in HF or GGUF, in the order of the data.

    For HF where each of ours is one of theirs; `names_tensors.hf_pieces` says it for all. Raises UserError for tensors
    that a GGUF has no name for here.
    """
    if column == HF:
        return {ours: pieces[0].name for ours, pieces in hf_pieces(config, config.family).items()}
    names = {}
    for ours in tensor_shapes(config):
        stem, _, kind = ours.rpartition(".")
        layer = next((part for part in stem.split(".") if part.isdigit()), "")
        pattern = stem.replace(f".{layer}.", ".{}.") if layer else stem
        if pattern not in TENSORS:
            raise UserError(f"{ours} has no name in a GGUF yet", "write a Hugging Face folder")
        names[ours] = f"{TENSORS[pattern].replace('{}', layer)}.{kind}"
    return names


def check_tensors(config: ModelConfig, column: int, found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """`found`: the file's names and shapes. Raises UserError listing what is missing, surplus or of another shape."""
    if column == HF:
        n_wanted = sum(math.prod(shape[:-2]) for shape in tensor_shapes(config).values())
        if n_wanted > MAX_TENSORS:
            raise UserError(f"{source}: the config calls for {n_wanted} tensors, {len(found)} are there")
        wanted = {name: tensor.shape for name, tensor in hf_tensors(config, config.family).items()}
    else:
        shapes = tensor_shapes(config)
        wanted = {foreign: shapes[ours] for ours, foreign in foreign_names(config, column).items()}
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in set(found) - set(wanted) if not ignorable(name, config)]
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


def unpermute(rows: NDArray, n_heads: int) -> NDArray:
    """Rows of a llama GGUF's q or k (weight or bias) in the half-split order: row 2i + s of a head becomes s D/2 + i.

    >>> import numpy as np
    >>> unpermute(np.array([0, 1, 2, 3, 10, 11, 12, 13]), n_heads=2).tolist()
    [0, 2, 1, 3, 10, 12, 11, 13]
    """
    half = len(rows) // n_heads // 2
    return rows.reshape(n_heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def permute(rows: NDArray, n_heads: int) -> NDArray:
    """The way back of `unpermute`: row s D/2 + i of a head becomes 2i + s.

    >>> import numpy as np
    >>> permute(np.array([0, 2, 1, 3, 10, 12, 11, 13]), n_heads=2).tolist()
    [0, 1, 2, 3, 10, 11, 12, 13]
    """
    half = len(rows) // n_heads // 2
    return rows.reshape(n_heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def from_gguf_layout(name: str, tensor: NDArray, config: ModelConfig, architecture: str) -> NDArray:
    """A GGUF's tensor as ours; `name` is our name."""
    n_heads = _permuted_heads(name, config, architecture)
    return unpermute(tensor, n_heads) if n_heads else tensor


def to_gguf_layout(name: str, tensor: NDArray, config: ModelConfig) -> NDArray:
    """Our tensor as it lies in the GGUF that `config_to_gguf` describes."""
    n_heads = _permuted_heads(name, config, _architecture(config))
    return permute(tensor, n_heads) if n_heads else tensor


def _permuted_heads(name: str, config: ModelConfig, architecture: str) -> int:
    """The number of heads whose rows a GGUF holds in another order; 0 for other tensors."""
    attention = config.attention
    if architecture != "llama" or not isinstance(attention, GQA):
        return 0
    return attention.n_heads if ".attn.q." in name else attention.n_kv_heads if ".attn.k." in name else 0


# ---- settings


def config_from_gguf(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], source: str) -> ModelConfig:
    """GGUF metadata with the file's tensor shapes, which decide vocabulary, biases and whether the head is tied."""
    architecture = gguf_architecture(metadata, source)
    _refuse_gguf_extras(metadata, architecture, shapes, source)
    keys = {ours: f"{architecture}.{key}" for ours, key in SETTINGS.items()}
    raw = {ours: metadata.get(key) for ours, key in keys.items()}
    raw["vocab_size"] = shapes.get("token_embd.weight", (None,))[0]
    values = _numbers(raw, keys, source)
    values |= {name: as_written(values[name]) for name in FLOATS}
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.get(f"{architecture}.{key}", values["head_dim"]) != values["head_dim"]:
            other = metadata[f"{architecture}.{key}"]
            raise UserError(f"{source}: {key} {other!r} beside heads of {values['head_dim']} is not implemented")
    biases = tuple(f"blk.0.attn_{name}.bias" in shapes for name in ("q", "k", "v", "output"))
    ffn_bias, tied = "blk.0.ffn_gate.bias" in shapes, "output.weight" not in shapes
    window = metadata.get(f"{architecture}.attention.sliding_window")
    return _config(architecture, values, biases, ffn_bias, tied, window, source)


def config_to_gguf(config: ModelConfig) -> dict[str, Any]:
    """GGUF metadata of the config, "general.architecture" among them; numbers that the format keeps in fp32 as such."""
    attention, ffn = _gqa_and_dense(config)
    architecture = _architecture(config)
    ours = {**config.model_dump(), **attention.model_dump(), **ffn.model_dump()}
    ours |= {name: float(np.float32(ours[name])) for name in FLOATS}
    keys = {key: ours[name] for name, key in SETTINGS.items()}
    keys |= {"attention.value_length": attention.head_dim, "rope.dimension_count": attention.head_dim}
    if attention.window is not None:
        keys["attention.sliding_window"] = attention.window.length
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def _architecture(config: ModelConfig) -> str:
    """qwen2 where the biases are those of Qwen2; llama takes a bias wherever there is one."""
    attention, ffn = _gqa_and_dense(config)
    biases = (attention.q_bias, attention.k_bias, attention.v_bias, attention.o_bias)
    return "qwen2" if biases == QWEN2_BIASES and not ffn.bias else "llama"


def _gqa_and_dense(config: ModelConfig) -> tuple[GQA, Dense]:
    """The two, where the model has nothing that the architectures llama and qwen2 lack."""
    attention, ffn, window = config.attention, config.ffn, config.attention.window
    if isinstance(attention, GQA) and isinstance(ffn, Dense):
        none = {"rope_scaling": None, "rope_interleaved": False, "post_norms": False, "embed_scale": 1.0, "mtp": None}
        same_everywhere = window is None or (len(window.layers) == config.n_layers and window.rope_theta is None)
        scores_alike = attention.qk_norm is None and attention.scale is None
        if config.model_copy(update=none) == config and same_everywhere and scores_alike and ffn.activation == "silu":
            return attention, ffn
    raise UserError(f"a GGUF of this {config.family} model is not implemented", "write a Hugging Face folder")


def as_written(value: Any) -> Any:
    """A number of a GGUF as a person wrote it: fp32 makes 9.999999747378752e-06 of 1e-05, and seven digits restore it.

    >>> as_written(9.999999747378752e-06), as_written(7)
    (1e-05, 7)
    """
    return float(f"{value:.7g}") if isinstance(value, float) else value


def gguf_architecture(metadata: Mapping[str, Any], source: str) -> str:
    architecture = metadata.get("general.architecture")
    if architecture not in GGUF_ARCHITECTURES:
        known = ", ".join(GGUF_ARCHITECTURES)
        raise UserError(f"{source}: architecture {architecture!r} is not implemented", f"known: {known}")
    return str(architecture)


def _refuse_gguf_extras(
    metadata: Mapping[str, Any], architecture: str, shapes: Mapping[str, tuple[int, ...]], source: str
) -> None:
    refused = (
        ("general.type", ("model",), "is no model"),
        ("split.count", (0, 1), "is split over several files: join them with llama-gguf-split --merge"),
        (f"{architecture}.expert_count", (0,), "has experts, which are not implemented"),
        (f"{architecture}.rope.scaling.type", ("none",), "has rope scaling, which is not implemented"),
        (f"{architecture}.attention.causal", (True,), "is no causal model"),
    )
    for key, plain, what in refused:
        if metadata.get(key, plain[0]) not in plain:
            raise UserError(f"{source}: the file {what} ({key} is {metadata[key]!r})")
    if "rope_freqs.weight" in shapes:
        raise UserError(f"{source}: the file has rope scaling (rope_freqs.weight), which is not implemented")


def _numbers(raw: Mapping[str, Any], keys: Mapping[str, str], source: str) -> dict[str, Any]:
    """Our settings as checked numbers, with those filled in that files may leave out."""
    raw = dict(raw)
    raw["rope_theta"] = DEFAULT_ROPE_THETA if raw["rope_theta"] is None else raw["rope_theta"]
    optional = {ours: raw.pop(ours) for ours in ("n_kv_heads", "head_dim")}
    values = {ours: number(v, keys[ours], float if ours in FLOATS else int, source) for ours, v in raw.items()}
    if optional["head_dim"] is None and values["dim"] % values["n_heads"]:
        raise UserError(f"{source}: {values['n_heads']} heads do not share {values['dim']} dimensions evenly")
    defaults = {"n_kv_heads": values["n_heads"], "head_dim": values["dim"] // values["n_heads"]}
    for ours, default in defaults.items():
        given = optional[ours]
        values[ours] = default if given is None else number(given, keys[ours], int, source)
    return values


def number(value: Any, key: str, kind: type[int] | type[float], source: str) -> Any:
    """`value` as a positive number of that kind. Raises UserError, naming source and key, for anything else."""
    allowed = (int, float) if kind is float else (int,)
    if type(value) not in allowed or not 0 < value < 1 << 53 or not math.isfinite(value):
        what = "whole number" if kind is int else "number"
        raise UserError(f"{source}: {key} is {value!r}; a positive {what} is expected", "fetch it again")
    return kind(value)


def _config(
    family: str,
    values: Mapping[str, Any],
    biases: tuple[bool, ...],
    ffn_bias: bool,
    tied: bool,
    window: Any,
    source: str,
) -> ModelConfig:
    n_layers, max_seq_len = values["n_layers"], values["max_seq_len"]
    if n_layers > MAX_LAYERS:
        raise UserError(f"{source}: {n_layers} layers are more than the {MAX_LAYERS} allowed")
    attention = {name: values[name] for name in ("n_heads", "n_kv_heads", "head_dim")} | {"kind": "gqa"}
    attention |= {f"{letter}_bias": has for letter, has in zip("qkvo", biases, strict=True)}
    if window is not None and number(window, "sliding_window", int, source) < max_seq_len:
        attention["window"] = {"length": window, "layers": tuple(range(n_layers))}
    tree = {name: values[name] for name in ("vocab_size", "dim", "n_layers", "norm_eps", "rope_theta")}
    tree |= {"family": family, "max_seq_len": max_seq_len, "tied_head": tied, "attention": attention}
    tree |= {"ffn": {"kind": "dense", "inter_dim": values["inter_dim"], "bias": ffn_bias}}
    return settings_from(ModelConfig, tree, source)
