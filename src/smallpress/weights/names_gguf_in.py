"""GGUF metadata as our config, architecture by architecture. The way back is `names_gguf_out`.

Numbers stand behind "<architecture>."; what is there or not (biases, a head of its own, the routers' biases, MTP) the
tensors say. A key that no reader asked for and that might mean something is refused by name.
Source: gguf-py's constants.py and llama.cpp's load_arch_hparams of each architecture.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import ModelConfig
from smallpress.run.errors import UserError
from smallpress.run.settings import settings_from
from smallpress.weights.names_gguf import EXPERT_BIAS, ROPE_FACTORS, has_nextn
from smallpress.weights.names_reader import DEFAULT_ROPE_THETA, Reader, RoundedReader
from smallpress.weights.rope_factors import llama3_from_factors

Tree = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
SOFTMAX, SIGMOID = 1, 2
"""`expert_gating_func`."""
GEMMA3_PATTERN, GEMMA3_LOCAL_THETA = 6, 10000.0
GEMMA3_27B_LAYERS = 62
"""The one size whose scores are scaled by the share of the width, not by the head's: known by its layers alone."""
SAYS_NOTHING = (
    "vocab_size",
    "expert_used_count",
    "expert_count",
    "attention.layer_norm_epsilon",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.factor",
    "tensor_data_layout",
    "size_label",
)
"""Keys that files have where they mean nothing: for models without experts or scaling, and for other norms."""


def config_from_gguf(
    metadata: Mapping[str, Any], shapes: Shapes, source: str, rope_factors: NDArray[np.float32] | None = None
) -> ModelConfig:
    """`shapes`: the file's tensors; `rope_factors`: the one called rope_freqs.weight, where it is there."""
    architecture = gguf_architecture(metadata, source)
    _refuse_other_kinds(metadata, source)
    read = RoundedReader(metadata, shapes, source, f"{architecture}.")
    read.must_be("attention.causal", True)
    if "token_embd.weight" not in shapes:
        raise UserError(f"{source}: the tensor token_embd.weight is missing", "fetch it again")
    tree = ARCHITECTURES[architecture](read) | {"vocab_size": shapes["token_embd.weight"][0]}
    if (ROPE_FACTORS in shapes) and (architecture != "llama" or tree["rope_scaling"] is not None):
        raise UserError(f"{source}: {ROPE_FACTORS} beside other scaling, or of {architecture}, is not implemented")
    assert (ROPE_FACTORS in shapes) == (rope_factors is not None), "the factors are missing"
    if rope_factors is not None:
        tree["rope_scaling"] = llama3_from_factors(rope_factors, _rope_dim(tree), tree["rope_theta"], source)
    nothing = {read.prefix + key for key in SAYS_NOTHING}
    surplus = sorted(key for key in metadata if key.startswith(read.prefix) and key not in read.asked | nothing)
    if surplus:
        keys = ", ".join(surplus[:8]) + (f" and {len(surplus) - 8} more" if len(surplus) > 8 else "")
        raise UserError(f"{source}: the keys {keys} are not implemented", "take a file of a model known here")
    return settings_from(ModelConfig, tree, source)


def gguf_architecture(metadata: Mapping[str, Any], source: str) -> str:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{source}: architecture {architecture!r} is not implemented", f"known: {known}")
    return architecture


def _refuse_other_kinds(metadata: Mapping[str, Any], source: str) -> None:
    for key, plain, what in (
        ("general.type", ("model",), "is no model"),
        ("split.count", (0, 1), "is split over several files: join them with llama-gguf-split --merge"),
    ):
        if metadata.get(key, plain[0]) not in plain:
            raise UserError(f"{source}: the file {what} ({key} is {metadata[key]!r})")


# ---- parts


def _decoder(read: Reader, attention: Tree, ffn: Tree) -> Tree:
    """What all say in the same words."""
    max_seq_len = read.whole("context_length")
    return {
        "dim": read.whole("embedding_length"),
        "n_layers": read.n_layers("block_count"),
        "norm_eps": read.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": read.real("rope.freq_base", DEFAULT_ROPE_THETA),
        "rope_scaling": _scaling(read, max_seq_len),
        "max_seq_len": max_seq_len,
        "tied_head": "output.weight" not in read.tensor_names,
        "attention": attention,
        "ffn": ffn,
    }


def _scaling(read: Reader, max_seq_len: int) -> Tree | None:
    """Without a type, a factor divides every frequency. The gain on what is rotated is m(1) times attn_factor, where
    nothing is said of m."""
    read.must_be("rope.scale_linear", 1.0)
    kind = read.get("rope.scaling.type") or ("linear" if read.get("rope.scaling.factor") else "none")
    if kind not in ("none", "linear", "yarn"):
        raise UserError(f"{read.source}: rope scaling {kind!r} is not implemented")
    if kind == "none":
        return None
    factor = read.real("rope.scaling.factor", 1.0)
    if kind == "linear":
        return {"kind": "linear", "factor": factor} if factor != 1.0 else None
    for key in ("yarn_ext_factor", "yarn_attn_factor"):
        read.must_be(f"rope.scaling.{key}", 1.0)
    tree: Tree = {"kind": "yarn", "factor": factor}
    tree["original_max_seq_len"] = read.whole("rope.scaling.original_context_length", max_seq_len)
    for name in ("beta_fast", "beta_slow"):
        if read.get(f"rope.scaling.yarn_{name}") is not None:
            tree[name] = read.real(f"rope.scaling.yarn_{name}")
    gain = read.real("rope.scaling.attn_factor", 1.0)
    if gain != 1.0:
        tree["attention_factor"] = gain * (0.1 * float(np.log(max(factor, 1.0))) + 1.0)
    return tree


def _gqa(read: Reader, **more: Any) -> Tree:
    n_heads, dim = read.whole("attention.head_count"), read.whole("embedding_length")
    if read.get("attention.key_length") is None and dim % n_heads:
        raise UserError(f"{read.source}: {n_heads} heads do not share {dim} dimensions evenly")
    head_dim = read.whole("attention.key_length", dim // n_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if read.get(key) not in (None, head_dim):
            what = f"{key} {read.get(key)!r} beside heads of {head_dim}"
            raise UserError(f"{read.source}: {what} is not implemented")
    n_kv_heads = read.whole("attention.head_count_kv", n_heads)
    tree: Tree = {"kind": "gqa", "n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": head_dim}
    for letter, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output")):
        tree[f"{letter}_bias"] = read.has_bias(f"blk.0.attn_{theirs}")
    return tree | more


def _dense(read: Reader, activation: str = "silu") -> Tree:
    read.must_be("expert_count", 0)
    bias = read.has_bias("blk.0.ffn_gate")
    return {"kind": "dense", "inter_dim": read.whole("feed_forward_length"), "bias": bias, "activation": activation}


def _experts(read: Reader) -> Tree:
    return {
        "kind": "moe",
        "n_routed_experts": read.whole("expert_count"),
        "n_active_experts": read.whole("expert_used_count"),
        "moe_inter_dim": read.whole("expert_feed_forward_length"),
        "routed_scale": read.real("expert_weights_scale", 1.0) if read.get("expert_weights_scale") else 1.0,
    }


def _rope_dim(tree: Tree) -> int:
    return int(tree["attention"]["head_dim"])


# ---- architectures


def _llama(read: Reader) -> Tree:
    """Also of Mistral's models, whose window is on every layer. None where no sequence can be longer than it."""
    length = read.get("attention.sliding_window")
    window = None
    if length is not None and read.whole("attention.sliding_window") < read.whole("context_length"):
        window = {"length": length, "layers": tuple(range(read.n_layers("block_count")))}
    return {"family": read.prefix[:-1]} | _decoder(read, _gqa(read, window=window), _dense(read))


def _qwen3(read: Reader) -> Tree:
    return {"family": "qwen3"} | _decoder(read, _gqa(read, qk_norm="before_rope"), _dense(read))


def _qwen3_moe(read: Reader) -> Tree:
    read.must_be("expert_gating_func", SOFTMAX)
    read.must_be("expert_weights_norm", True)
    for key in ("expert_shared_count", "leading_dense_block_count"):
        read.must_be(key, 0)
    for key in ("feed_forward_length", "expert_group_count", "expert_group_used_count"):
        read.get(key)  # of layers that are not there, and of one group
    return {"family": "qwen3_moe"} | _decoder(read, _gqa(read, qk_norm="before_rope"), _experts(read))


def _hunyuan_dense(read: Reader) -> Tree:
    return {"family": "hunyuan_v1_dense"} | _decoder(read, _gqa(read, qk_norm="after_rope"), _dense(read))


def _hunyuan_moe(read: Reader) -> Tree:
    """One shared expert in every layer, as wide as the routed ones."""
    width = read.whole("feed_forward_length")
    for key in ("expert_feed_forward_length", "expert_shared_feed_forward_length"):
        read.must_be(key, width)
    read.must_be("expert_shared_count", 1)
    ffn = _experts(read) | {"moe_inter_dim": width, "n_shared_experts": 1}
    return {"family": "hunyuan_v1_moe"} | _decoder(read, _gqa(read, qk_norm="after_rope"), ffn)


def _gemma3(read: Reader) -> Tree:
    """Every sixth layer sees all, the others a window, with a rotation of their own."""
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        read.must_be(key, 0.0)
    n_layers, pattern = read.n_layers("block_count"), read.whole("attention.sliding_window_pattern", GEMMA3_PATTERN)
    theta = read.real("rope.freq_base_swa", GEMMA3_LOCAL_THETA)
    more: Tree = {"qk_norm": "before_rope"}
    layers = tuple(layer for layer in range(n_layers) if (layer + 1) % pattern)
    if read.get("attention.sliding_window") is not None and layers:
        more["window"] = {"length": read.whole("attention.sliding_window"), "layers": layers, "rope_theta": theta}
    attention, dim = _gqa(read, **more), read.whole("embedding_length")
    if n_layers == GEMMA3_27B_LAYERS:
        attention["scale"] = (dim // attention["n_heads"]) ** -0.5
    tree = _decoder(read, attention, _dense(read, "gelu_tanh"))
    return {"family": "gemma3_text", "post_norms": True, "embed_scale": dim**0.5} | tree


def _deepseek2(read: Reader) -> Tree:
    """V2, V3 and R1. V3's scores are sigmoids, with a bias in the choice; V2 says nothing, or softmax."""
    gate = read.get("expert_gating_func")
    if gate not in (None, 0, SOFTMAX, SIGMOID):
        raise read.unknown("expert_gating_func")
    sigmoid = gate == SIGMOID
    n_mtp, n_layers = read.count("nextn_predict_layers"), read.n_layers("block_count")
    if n_mtp >= n_layers:
        raise read.unknown("nextn_predict_layers")
    n_layers -= n_mtp
    ffn = _experts(read) | _dense_layers(read, n_layers) | {
        "n_shared_experts": read.count("expert_shared_count"),
        "score": "sigmoid" if sigmoid else "softmax",
        "normalize": read.flag("expert_weights_norm"),
        "n_groups": read.count("expert_group_count") or 1,
        "n_active_groups": read.count("expert_group_used_count") or 1,
        "group_score": "top2_sum" if sigmoid else "max",
        "expert_bias": any(name.endswith(EXPERT_BIAS) for name in read.tensor_names),
    }  # fmt: skip
    tree = _decoder(read, _mla(read), ffn) | {"rope_interleaved": True, "n_layers": n_layers}
    _scale_of_scores(read, tree["rope_scaling"])
    if n_mtp and has_nextn(read.tensor_names, n_layers):
        tree["mtp"] = {"n_modules": n_mtp}
    return {"family": "deepseek_v3" if sigmoid else "deepseek_v2"} | tree


def _dense_layers(read: Reader, n_layers: int) -> Tree:
    n_dense, width = min(read.count("leading_dense_block_count"), n_layers), read.get("feed_forward_length")
    if not n_dense:
        return {}
    if isinstance(width, list):  # layer by layer
        width = width[0] if width else None
    dense = {"kind": "dense", "inter_dim": width}
    return {"dense_layers": tuple(range(n_dense)), "dense": dense}


def _mla(read: Reader) -> Tree:
    """In newer files key_length and value_length are of the one latent head that all heads read, and `_mla` those of a
    head; in older ones there are no others."""
    n_heads, rank, rope_dim = (
        read.whole(f"{key}") for key in ("attention.head_count", "attention.kv_lora_rank", "rope.dimension_count")
    )
    suffix = "" if read.get("attention.key_length_mla") is None else "_mla"
    head_dim, value_dim = (read.whole(f"attention.{what}_length{suffix}") for what in ("key", "value"))
    if suffix:
        read.must_be("attention.key_length", rank + rope_dim)
        read.must_be("attention.value_length", rank)
    read.must_be("attention.head_count_kv", 1, n_heads)
    if head_dim <= rope_dim:
        what = f"attention.key_length{suffix} {head_dim} is not longer than rope.dimension_count {rope_dim}"
        raise UserError(f"{read.source}: {what}", "fetch it again")
    return {
        "kind": "mla",
        "n_heads": n_heads,
        "q_lora_rank": read.count("attention.q_lora_rank") or None,
        "kv_lora_rank": rank,
        "qk_nope_head_dim": head_dim - rope_dim,
        "qk_rope_head_dim": rope_dim,
        "v_head_dim": value_dim,
    }


def _scale_of_scores(read: Reader, scaling: Tree | None) -> None:
    """With YaRN the scores of MLA are scaled by m(mscale_all_dim)^2; the file has a tenth of mscale_all_dim."""
    tenth = read.get("rope.scaling.yarn_log_multiplier")
    if scaling is None or scaling["kind"] != "yarn":
        return
    if not tenth or "attention_factor" in scaling:
        what = "YaRN without yarn_log_multiplier or with attn_factor"
        raise UserError(f"{read.source}: {what} is not implemented of latent attention")
    mscale = float(f"{10 * read.real('rope.scaling.yarn_log_multiplier'):.6g}")
    scaling |= {"mscale": mscale, "mscale_all_dim": mscale}


ARCHITECTURES: Mapping[str, Callable[[Reader], Tree]] = {
    "llama": _llama,
    "qwen2": _llama,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3_moe,
    "gemma3": _gemma3,
    "deepseek2": _deepseek2,
    "hunyuan-dense": _hunyuan_dense,
    "hunyuan-moe": _hunyuan_moe,
}
"""By general.architecture."""
