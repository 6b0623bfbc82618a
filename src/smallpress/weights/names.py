"""The one table of foreign names: what Hugging Face folders and GGUF files call our tensors and settings.

Three families share one block: llama, mistral (llama without biases) and qwen2 (biases on q, k, v). A GGUF of the llama
kind also holds the rows of q and k in another order, because llama.cpp turns neighbouring pairs (2i, 2i + 1) where
Hugging Face and we turn halves (i, i + D/2); `unpermute` puts them back, `permute` does it.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import ModelConfig
from smallpress.run.errors import UserError
from smallpress.run.settings import settings_from

TENSORS: tuple[tuple[str, str, str], ...] = (
    # ours, Hugging Face, GGUF; `{}` is the layer
    ("embed", "model.embed_tokens", "token_embd"),
    ("layers.{}.attn_norm", "model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
    ("layers.{}.attn.q", "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
    ("layers.{}.attn.k", "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
    ("layers.{}.attn.v", "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    ("layers.{}.attn.o", "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    ("layers.{}.mlp_norm", "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
    ("layers.{}.mlp.gate", "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    ("layers.{}.mlp.up", "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    ("layers.{}.mlp.down", "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ("norm", "model.norm", "output_norm"),
    ("head", "lm_head", "output"),
)
HF, GGUF = 1, 2
"""Columns of the tables."""

SETTINGS: tuple[tuple[str, str, str], ...] = (
    # ours, key of config.json, key of GGUF behind "<architecture>."
    ("vocab_size", "vocab_size", "vocab_size"),
    ("dim", "hidden_size", "embedding_length"),
    ("n_layers", "num_hidden_layers", "block_count"),
    ("n_heads", "num_attention_heads", "attention.head_count"),
    ("n_kv_heads", "num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "head_dim", "attention.key_length"),
    ("inter_dim", "intermediate_size", "feed_forward_length"),
    ("norm_eps", "rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope_theta", "rope.freq_base"),
    ("max_seq_len", "max_position_embeddings", "context_length"),
)
FLOATS = ("norm_eps", "rope_theta")
DEFAULT_ROPE_THETA = 10000.0
MAX_LAYERS = 4096

HF_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
GGUF_ARCHITECTURES = ("llama", "qwen2")
QWEN2_BIASES = (True, True, True, False)


# ---- tensors


def foreign_names(config: ModelConfig, column: int) -> dict[str, str]:
    """Our name of every tensor the config calls for -> its name in column HF or GGUF, in the order of the data."""
    table = {row[0]: row[column] for row in TENSORS}
    names = {}
    for ours in tensor_shapes(config):
        stem, _, kind = ours.rpartition(".")
        layer = next((part for part in stem.split(".") if part.isdigit()), "")
        pattern = stem.replace(f".{layer}.", ".{}.") if layer else stem
        names[ours] = f"{table[pattern].replace('{}', layer)}.{kind}"
    return names


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model by our name, with its shape: [output, input] for matrices."""
    attention, ffn, dim = config.attention, config.ffn, config.dim
    q_dim, kv_dim = attention.n_heads * attention.head_dim, attention.n_kv_heads * attention.head_dim
    linears = {
        "attn.q": (q_dim, dim, attention.q_bias),
        "attn.k": (kv_dim, dim, attention.k_bias),
        "attn.v": (kv_dim, dim, attention.v_bias),
        "attn.o": (dim, q_dim, attention.o_bias),
        "mlp.gate": (ffn.inter_dim, dim, ffn.bias),
        "mlp.up": (ffn.inter_dim, dim, ffn.bias),
        "mlp.down": (dim, ffn.inter_dim, ffn.bias),
    }
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (config.vocab_size, dim)}
    for layer in range(config.n_layers):
        shapes[f"layers.{layer}.attn_norm.weight"] = (dim,)
        shapes[f"layers.{layer}.mlp_norm.weight"] = (dim,)
        for name, (n_out, n_in, has_bias) in linears.items():
            shapes[f"layers.{layer}.{name}.weight"] = (n_out, n_in)
            if has_bias:
                shapes[f"layers.{layer}.{name}.bias"] = (n_out,)
    shapes["norm.weight"] = (dim,)
    if not config.tied_head:
        shapes["head.weight"] = (config.vocab_size, dim)
    return shapes


def check_tensors(config: ModelConfig, column: int, found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """`found`: the file's names and shapes. Raises UserError listing what is missing, surplus or of another shape."""
    names, shapes = foreign_names(config, column), tensor_shapes(config)
    missing = [name for name in names.values() if name not in found]
    surplus = [name for name in set(found) - set(names.values()) if not _ignorable(name, config)]
    if missing or surplus:
        faults = [f"{what}: {_some(group)}" for what, group in (("missing", missing), ("surplus", surplus)) if group]
        raise UserError(f"{source}: the tensors are not those of the config ({'; '.join(faults)})", "fetch it again")
    for ours, foreign in names.items():
        if found[foreign] != shapes[ours]:
            shape = f"{list(found[foreign])}, but the config calls for {list(shapes[ours])}"
            raise UserError(f"{source}: tensor {foreign} has the shape {shape}", "fetch it again")


def _ignorable(name: str, config: ModelConfig) -> bool:
    """Frequencies that old exporters stored, and a copy of a head that is tied."""
    return name.endswith(".rotary_emb.inv_freq") or (config.tied_head and name == "lm_head.weight")


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
    if architecture != "llama":
        return 0
    attention = config.attention
    return attention.n_heads if ".attn.q." in name else attention.n_kv_heads if ".attn.k." in name else 0


# ---- settings


def config_from_hf(settings: Mapping[str, Any], tensor_names: Collection[str], source: str) -> ModelConfig:
    """A config.json, with the names of the tensors it goes with: they too decide which biases there are."""
    family = settings.get("model_type")
    if not isinstance(family, str) or family not in HF_ARCHITECTURES:
        known = ", ".join(HF_ARCHITECTURES)
        raise UserError(f"{source}: model_type {family!r} is not implemented", f"known families: {known}")
    _refuse_hf_extras(settings, source)
    values = _numbers({ours: settings.get(hf) for ours, hf, _ in SETTINGS}, dict(_column(HF)), source)
    values["rope_theta"] = _hf_rope_theta(settings, source)
    window = settings.get("sliding_window") if settings.get("use_sliding_window", family == "mistral") else None
    declared = QWEN2_BIASES if family == "qwen2" else (family == "llama" and bool(settings.get("attention_bias")),) * 4
    biases = tuple(
        says or f"model.layers.0.self_attn.{letter}_proj.bias" in tensor_names
        for says, letter in zip(declared, "qkvo", strict=True)
    )
    ffn_bias = bool(settings.get("mlp_bias")) or "model.layers.0.mlp.gate_proj.bias" in tensor_names
    return _config(family, values, biases, ffn_bias, bool(settings.get("tie_word_embeddings")), window, source)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """A config.json's settings, rope in the old and the new spelling. Raises UserError for biases nobody else has."""
    attention = config.attention
    biases = (attention.q_bias, attention.k_bias, attention.v_bias, attention.o_bias)
    if biases == QWEN2_BIASES and not config.ffn.bias:
        family = "qwen2"
        extras: dict[str, Any] = {"use_sliding_window": False}
    elif len(set(biases)) == 1:
        plain = not any(biases) and not config.ffn.bias
        family = "mistral" if config.family == "mistral" and plain else "llama"
        extras = {"sliding_window": None} if family == "mistral" else {}
        extras |= {"attention_bias": biases[0], "mlp_bias": config.ffn.bias} if family == "llama" else {}
    else:
        have = ", ".join(letter for letter, has in zip("qkvo", biases, strict=True) if has)
        raise UserError(f"no Hugging Face family has biases on just {have}", "train with biases on all or none")
    ours = {**config.model_dump(), **attention.model_dump(), **config.ffn.model_dump()}
    return {
        "architectures": [HF_ARCHITECTURES[family]],
        "model_type": family,
        **{hf: ours[name] for name, hf, _ in SETTINGS},
        "rope_scaling": None,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        **extras,
    }


def config_from_gguf(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], source: str) -> ModelConfig:
    """GGUF metadata with the file's tensor shapes, which decide vocabulary, biases and whether the head is tied."""
    architecture = gguf_architecture(metadata, source)
    _refuse_gguf_extras(metadata, architecture, shapes, source)
    keys = {ours: f"{architecture}.{key}" for ours, key in _column(GGUF)}
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
    architecture, attention = _architecture(config), config.attention
    ours = {**config.model_dump(), **attention.model_dump(), **config.ffn.model_dump()}
    ours |= {name: float(np.float32(ours[name])) for name in FLOATS}
    keys = {key: ours[name] for name, key in _column(GGUF)}
    keys |= {"attention.value_length": attention.head_dim, "rope.dimension_count": attention.head_dim}
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def _architecture(config: ModelConfig) -> str:
    """qwen2 where the biases are those of Qwen2; llama takes a bias wherever there is one."""
    attention = config.attention
    biases = (attention.q_bias, attention.k_bias, attention.v_bias, attention.o_bias)
    return "qwen2" if biases == QWEN2_BIASES and not config.ffn.bias else "llama"


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


def _column(column: int) -> list[tuple[str, str]]:
    return [(row[0], row[column]) for row in SETTINGS]


def _refuse_hf_extras(settings: Mapping[str, Any], source: str) -> None:
    for key, plain in (("hidden_act", "silu"), ("rope_interleaved", False), ("quantization_config", None)):
        if settings.get(key, plain) not in (plain, None):
            raise UserError(f"{source}: {key} {settings[key]!r} is not implemented", "give a plain, unquantized model")


def _hf_rope_theta(settings: Mapping[str, Any], source: str) -> float:
    """rope_theta stands beside the others in older files, in rope_parameters in those of transformers 5."""
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = settings.get(key) or {}
        if not isinstance(part, dict):
            raise UserError(f"{source}: {key} is {part!r}, not an object", "fetch it again")
        rope |= part
    kinds = [key for key, value in rope.items() if isinstance(value, dict)]
    kind = f"by layer ({', '.join(kinds)})" if kinds else rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UserError(f"{source}: rope scaling {kind!r} is not implemented", "give a model with plain rope")
    partial = rope.get("partial_rotary_factor", settings.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise UserError(f"{source}: partial_rotary_factor {partial!r} is not implemented")
    theta = rope.get("rope_theta", settings.get("rope_theta", DEFAULT_ROPE_THETA))
    return _number(theta, "rope_theta", float, source)


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
    values = {ours: _number(v, keys[ours], float if ours in FLOATS else int, source) for ours, v in raw.items()}
    if optional["head_dim"] is None and values["dim"] % values["n_heads"]:
        raise UserError(f"{source}: {values['n_heads']} heads do not share {values['dim']} dimensions evenly")
    defaults = {"n_kv_heads": values["n_heads"], "head_dim": values["dim"] // values["n_heads"]}
    for ours, default in defaults.items():
        given = optional[ours]
        values[ours] = default if given is None else _number(given, keys[ours], int, source)
    return values


def _number(value: Any, key: str, kind: type[int] | type[float], source: str) -> Any:
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
    """A sliding window is kept by never going past it: up to its length it is plain causal attention."""
    max_seq_len = values["max_seq_len"]
    if window is not None:
        max_seq_len = min(max_seq_len, _number(window, "sliding_window", int, source))
    if values["n_layers"] > MAX_LAYERS:
        raise UserError(f"{source}: {values['n_layers']} layers are more than the {MAX_LAYERS} allowed")
    attention = {name: values[name] for name in ("n_heads", "n_kv_heads", "head_dim")}
    attention |= {f"{letter}_bias": has for letter, has in zip("qkvo", biases, strict=True)}
    tree = {name: values[name] for name in ("vocab_size", "dim", "n_layers", "norm_eps", "rope_theta")}
    tree |= {"family": family, "max_seq_len": max_seq_len, "tied_head": tied, "attention": attention}
    tree |= {"ffn": {"inter_dim": values["inter_dim"], "bias": ffn_bias}}
    return settings_from(ModelConfig, tree, source)
