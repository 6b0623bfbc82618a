"""Our config as GGUF metadata that llama.cpp reads.

An architecture can say a config if reading what it writes gives one that means the same. A model is written as its own
architecture where that can, else as the first that can: the first Qwen becomes the qwen2 it is equal to. MTP modules
are left out, as llama.cpp's converter does: its loader has no place for them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import GQA, MLA, Dense, FixedNTK, Linear, Llama3, ModelConfig, MoE, RopeScaling, Yarn
from smallpress.model.frequencies import rope_gain
from smallpress.run.errors import UserError
from smallpress.weights.names_gguf import ROPE_FACTORS, GGUFTensor, gguf_tensors
from smallpress.weights.names_gguf_in import GEMMA3_LOCAL_THETA, GEMMA3_PATTERN, SIGMOID, SOFTMAX, config_from_gguf
from smallpress.weights.rope_factors import rope_factors

Settings = dict[str, Any]
OWN = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma3_text": "gemma3",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan-moe",
}
"""A family's architecture."""
NEAR = 1e-6
"""Relative: what fp32, and seven digits of it, leave of a number."""


def config_to_gguf(config: ModelConfig) -> Settings:
    """GGUF metadata of the config, "general.architecture" among them. Raises UserError for what none can say."""
    own, differs = OWN.get(config.family), ""
    for architecture in ([] if own is None else [own]) + [each for each in WRITERS if each != own]:
        metadata = _said_by(architecture, written_config(config))
        if metadata is None:
            continue
        difference = _difference(config, metadata)
        if difference is None:
            return metadata
        differs = differs or f": {difference}"
    what = f"a GGUF of this {config.family} model is not implemented{differs}"
    raise UserError(what, "write a Hugging Face folder")


def written_config(config: ModelConfig) -> ModelConfig:
    """What of the model a GGUF gets."""
    return config.model_copy(update={"mtp": None})


def written_tensors(config: ModelConfig) -> dict[str, GGUFTensor]:
    """Those of the model; `written_factors` is beside them."""
    return gguf_tensors(written_config(config))


def written_factors(config: ModelConfig) -> NDArray[np.float32] | None:
    """The tensor of Llama 3.1's scaling, where the model has it."""
    scaling = config.rope_scaling
    if not isinstance(scaling, Llama3):
        return None
    return rope_factors(config.attention.rope_dim, config.rope_theta, scaling)


def _said_by(architecture: str, config: ModelConfig) -> Settings | None:
    written = WRITERS[architecture](config)
    if written is None:
        return None
    shared = {
        "context_length": config.max_seq_len,
        "embedding_length": config.dim,
        "block_count": config.n_layers,
        "attention.head_count": config.attention.n_heads,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": _theta(config),
        "rope.dimension_count": config.attention.rope_dim,
        "vocab_size": config.vocab_size,
    }
    settings = {f"{architecture}.{key}": _fp32(value) for key, value in (shared | _scaling(config) | written).items()}
    return {"general.architecture": architecture} | settings


def _fp32(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, float) else value


def _theta(config: ModelConfig) -> float:
    """Hunyuan's scaling is a base once for all, and is written as that."""
    scaling, dim = config.rope_scaling, config.attention.rope_dim
    return config.rope_theta * (scaling.alpha ** (dim / (dim - 2)) if isinstance(scaling, FixedNTK) else 1.0)


def _scaling(config: ModelConfig) -> Settings:
    scaling = config.rope_scaling
    if isinstance(scaling, Linear):
        return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    if not isinstance(scaling, Yarn):
        return {}
    settings: Settings = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": scaling.factor,
        "rope.scaling.original_context_length": scaling.original_max_seq_len,
    }
    for name in ("beta_fast", "beta_slow"):
        if getattr(scaling, name) != Yarn.model_fields[name].default:
            settings[f"rope.scaling.yarn_{name}"] = getattr(scaling, name)
    if isinstance(config.attention, MLA):
        if scaling.mscale_all_dim:
            settings["rope.scaling.yarn_log_multiplier"] = 0.1 * scaling.mscale_all_dim
    elif (gain := rope_gain(scaling) / rope_gain(_without_gain(scaling))) != 1.0:
        settings["rope.scaling.attn_factor"] = gain
    return settings


def _without_gain(scaling: Yarn) -> Yarn:
    return scaling.model_copy(update={"mscale": None, "mscale_all_dim": None, "attention_factor": None})


# ---- whether it says the same


def _difference(config: ModelConfig, metadata: Settings) -> str | None:
    """The first setting that reads back as another, with both; None where all mean the same."""
    shapes = {name: tensor.shape for name, tensor in written_tensors(config).items()}
    factors = written_factors(config)
    if factors is not None:
        shapes[ROPE_FACTORS] = factors.shape
    try:
        back = config_from_gguf(metadata, shapes, "the GGUF", factors)
    except UserError as error:
        return error.message
    return _first_difference(_meaning(config), _meaning(back), "")


def _meaning(config: ModelConfig) -> Settings:
    """The settings as a tree, those that say the same in other words made equal."""
    scaling: RopeScaling | None = config.rope_scaling
    if isinstance(scaling, Yarn) and isinstance(config.attention, GQA):
        scaling = _without_gain(scaling).model_copy(update={"attention_factor": rope_gain(scaling)})
    if isinstance(scaling, FixedNTK | Llama3):  # said by the base; by a tensor, and read back from it
        scaling = None
    plain = {"family": "", "mtp": None, "rope_scaling": scaling, "rope_theta": _theta(config)}
    return config.model_copy(update=plain).model_dump()


def _first_difference(ours: Any, theirs: Any, path: str) -> str | None:
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        found = (_first_difference(ours[key], theirs[key], f"{path}.{key}") for key in ours)
        return next((each for each in found if each is not None), None)
    if isinstance(ours, float) and isinstance(theirs, float) and abs(ours - theirs) <= NEAR * abs(ours):
        return None
    return None if ours == theirs else f"{path.lstrip('.')} {ours} would be read as {theirs}"


# ---- architectures


def _gqa(config: ModelConfig) -> Settings | None:
    attention = config.attention
    if not isinstance(attention, GQA):
        return None
    return {
        "attention.head_count_kv": attention.n_kv_heads,
        "attention.key_length": attention.head_dim,
        "attention.value_length": attention.head_dim,
    }


def _dense_gqa(config: ModelConfig) -> Settings | None:
    gqa, ffn = _gqa(config), config.ffn
    return gqa | {"feed_forward_length": ffn.inter_dim} if gqa is not None and isinstance(ffn, Dense) else None


def _has_bias(config: ModelConfig) -> bool:
    attention, ffn = config.attention, config.ffn
    in_attention = isinstance(attention, GQA) and any(getattr(attention, f"{letter}_bias") for letter in "qkvo")
    return in_attention or (isinstance(attention, MLA) and attention.bias) or (isinstance(ffn, Dense) and ffn.bias)


def _llama(config: ModelConfig) -> Settings | None:
    settings, window = _dense_gqa(config), config.attention.window
    if settings is None or window is None:
        return settings
    return settings | {"attention.sliding_window": window.length}


def _qwen2(config: ModelConfig) -> Settings | None:
    """Its loader takes biases of q, k and v, no others, and heads that share the width."""
    attention, ffn = config.attention, config.ffn
    if not isinstance(attention, GQA) or not isinstance(ffn, Dense) or attention.o_bias or ffn.bias:
        return None
    if attention.n_heads * attention.head_dim != config.dim:
        return None
    return _llama(config) if attention.q_bias and attention.k_bias and attention.v_bias else None


def _plain(config: ModelConfig) -> Settings | None:
    """Without biases, as the loaders of all but the two want it."""
    return None if _has_bias(config) else _dense_gqa(config)


def _gemma3(config: ModelConfig) -> Settings | None:
    """A file without windows would have its logits capped by llama.cpp, whatever it says."""
    settings, window = _plain(config), config.attention.window
    if settings is None or window is None or not config.tied_head:
        return None
    settings["attention.sliding_window"] = window.length
    if (theta := window.rope_theta) is not None and theta != GEMMA3_LOCAL_THETA:
        settings["rope.freq_base_swa"] = theta
    if list(window.layers) != [layer for layer in range(config.n_layers) if (layer + 1) % GEMMA3_PATTERN]:
        first_global = next((layer for layer in range(config.n_layers) if layer not in window.layers), config.n_layers)
        settings["attention.sliding_window_pattern"] = first_global + 1
    return settings


def _experts(ffn: MoE) -> Settings:
    return {
        "expert_count": ffn.n_routed_experts,
        "expert_used_count": ffn.n_active_experts,
        "expert_feed_forward_length": ffn.moe_inter_dim,
        "feed_forward_length": ffn.dense.inter_dim if ffn.dense else ffn.moe_inter_dim,
    }


def _qwen3_moe(config: ModelConfig) -> Settings | None:
    gqa, ffn = _gqa(config), config.ffn
    if gqa is None or not isinstance(ffn, MoE) or _has_bias(config):
        return None
    return gqa | _experts(ffn)


def _hunyuan_moe(config: ModelConfig) -> Settings | None:
    settings, ffn = _qwen3_moe(config), config.ffn
    if settings is None or not isinstance(ffn, MoE):
        return None
    return settings | {"expert_shared_feed_forward_length": ffn.moe_inter_dim, "expert_shared_count": 1}


def _deepseek2(config: ModelConfig) -> Settings | None:
    mla, ffn = config.attention, config.ffn
    if not isinstance(mla, MLA) or not isinstance(ffn, MoE) or _has_bias(config):
        return None
    settings: Settings = _experts(ffn) | {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": mla.kv_lora_rank,
        "attention.key_length": mla.kv_lora_rank + mla.qk_rope_head_dim,
        "attention.value_length": mla.kv_lora_rank,
        "attention.key_length_mla": mla.qk_head_dim,
        "attention.value_length_mla": mla.v_head_dim,
        "leading_dense_block_count": len(ffn.dense_layers),
        "expert_shared_count": ffn.n_shared_experts,
        "expert_weights_scale": ffn.routed_scale,
        "expert_gating_func": SIGMOID if ffn.score == "sigmoid" else SOFTMAX,
    }  # fmt: skip
    if mla.q_lora_rank is not None:
        settings["attention.q_lora_rank"] = mla.q_lora_rank
    if ffn.normalize:
        settings["expert_weights_norm"] = True
    if ffn.n_groups > 1:
        settings |= {"expert_group_count": ffn.n_groups, "expert_group_used_count": ffn.n_active_groups}
    return settings


WRITERS: Mapping[str, Callable[[ModelConfig], Settings | None]] = {
    "qwen2": _qwen2,
    "llama": _llama,
    "qwen3": _plain,
    "qwen3moe": _qwen3_moe,
    "gemma3": _gemma3,
    "deepseek2": _deepseek2,
    "hunyuan-dense": _plain,
    "hunyuan-moe": _hunyuan_moe,
}
"""What an architecture says beside the shared settings; None where the config has parts it has no words for at all."""
