"""What the families' config.json files say in the same words, as parts of a config.

Parts are trees of the settings of `model.config`, still to be validated as a whole.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from smallpress.run.errors import UserError
from smallpress.weights.names_reader import DEFAULT_ROPE_THETA, Reader, number

Tree = dict[str, Any]
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
"""Kinds of layers, in files that list them: with a window and without."""


def decoder(
    read: Reader,
    ffn: Tree,
    attention: Tree,
    theta: float = DEFAULT_ROPE_THETA,
    tied: bool = False,
    layers: str = "",
) -> Tree:
    """What every family but the first Qwen says in the same words; the arguments behind are what it may leave out."""
    max_seq_len = read.whole("max_position_embeddings")
    rope_theta, scaling = _rope(read, theta, max_seq_len, layers)
    if scaling is not None and scaling["kind"] == "dynamic_ntk":
        max_seq_len = int(max_seq_len * scaling["factor"])
    return {
        "vocab_size": read.whole("vocab_size"),
        "dim": read.whole("hidden_size"),
        "n_layers": read.n_layers(),
        "norm_eps": read.real("rms_norm_eps"),
        "rope_theta": rope_theta,
        "rope_scaling": scaling,
        "max_seq_len": max_seq_len,
        "tied_head": read.flag("tie_word_embeddings", tied),
        "attention": attention,
        "ffn": ffn,
    }


def _rope(read: Reader, theta: float, max_seq_len: int, layers: str) -> tuple[float, Tree | None]:
    """Base and scaling. The base stands beside the others in older files, in rope_parameters in those of transformers
    5, there once for each kind of layers where the family has two."""
    rope: Tree = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = read.settings.get(key) or {}
        part = part.get(layers, part) if isinstance(part, dict) else part
        if not isinstance(part, dict):
            raise UserError(f"{read.source}: {key} is {part!r}, not an object", "fetch it again")
        rope |= part
    nested = [key for key, value in rope.items() if isinstance(value, dict)]
    kind = f"by layer ({', '.join(nested)})" if nested else str(rope.get("rope_type", rope.get("type", "default")))
    if kind not in SCALINGS:
        raise UserError(f"{read.source}: rope scaling {kind!r} is not implemented", "give a model with another rope")
    partial = rope.get("partial_rotary_factor", read.settings.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise UserError(f"{read.source}: partial_rotary_factor {partial!r} is not implemented")
    theta = number(rope.get("rope_theta", read.settings.get("rope_theta") or theta), "rope_theta", float, read.source)
    return theta, SCALINGS[kind](Reader(rope, (), f"{read.source}: rope scaling"), max_seq_len)


def _dynamic(rope: Reader, max_seq_len: int) -> Tree:
    if rope.settings.get("alpha"):
        return {"kind": "fixed_ntk", "alpha": rope.real("alpha")}
    return {"kind": "dynamic_ntk", "factor": rope.real("factor"), "original_max_seq_len": max_seq_len}


def _llama3(rope: Reader, max_seq_len: int) -> Tree:
    names = ("factor", "low_freq_factor", "high_freq_factor")
    original = rope.whole("original_max_position_embeddings", max_seq_len)
    return {"kind": "llama3", "original_max_seq_len": original} | {name: rope.real(name) for name in names}


def _yarn(rope: Reader, max_seq_len: int) -> Tree:
    original = rope.whole("original_max_position_embeddings", max_seq_len)
    tree: Tree = {"kind": "yarn", "factor": rope.real("factor", max_seq_len / original)}
    for name in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor"):
        if rope.settings.get(name):
            tree[name] = rope.real(name)
    return tree | {"original_max_seq_len": original, "truncate": rope.flag("truncate", True)}


SCALINGS: Mapping[str, Callable[[Reader, int], Tree | None]] = {
    "default": lambda rope, max_seq_len: None,
    "linear": lambda rope, max_seq_len: {"kind": "linear", "factor": rope.real("factor")},
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}


def gqa(read: Reader, biases: str = "", head_dim: int | None = None, **more: Any) -> Tree:
    """`biases`: those the family always has, by letter; each of the others is there where the file has it."""
    n_heads, dim = read.whole("num_attention_heads"), read.whole("hidden_size")
    if read.settings.get("head_dim") is None and head_dim is None and dim % n_heads:
        raise UserError(f"{read.source}: {n_heads} heads do not share {dim} dimensions evenly")
    tree: Tree = {"kind": "gqa", "n_heads": n_heads, "n_kv_heads": read.whole("num_key_value_heads", n_heads)}
    tree["head_dim"] = read.whole("head_dim", head_dim or dim // n_heads)
    for letter in "qkvo":
        tree[f"{letter}_bias"] = letter in biases or read.has_bias(f"model.layers.0.self_attn.{letter}_proj")
    return tree | more


def declared(read: Reader) -> str:
    return "qkvo" if read.flag("attention_bias") else ""


def dense(read: Reader, act_key: str = "hidden_act", act: str = "silu") -> Tree:
    bias = read.flag("mlp_bias") or read.has_bias("model.layers.0.mlp.gate_proj")
    return {
        "kind": "dense",
        "inter_dim": read.whole("intermediate_size"),
        "bias": bias,
        "activation": activation(read, act_key, act),
    }


def activation(read: Reader, key: str = "hidden_act", default: str = "silu") -> str:
    name = read.settings.get(key) or default
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise read.unknown(key)
    return ACTIVATIONS[name]


def window(read: Reader, layers: Collection[int]) -> Tree | None:
    """None where no sequence can be longer than the window."""
    length = read.settings.get("sliding_window")
    if length is None or not layers or read.whole("sliding_window") >= read.whole("max_position_embeddings"):
        return None
    return {"length": length, "layers": tuple(layers)}


def layers_of_kind(read: Reader, kind: str) -> list[int] | None:
    """From layer_types; None where the file has none."""
    kinds = read.settings.get("layer_types")
    if kinds is None:
        return None
    if not isinstance(kinds, list) or len(kinds) != read.n_layers() or any(k not in (LOCAL, GLOBAL) for k in kinds):
        raise read.unknown("layer_types")
    return [layer for layer, each in enumerate(kinds) if each == kind]
