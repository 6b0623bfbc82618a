"""Our config as a Hugging Face config.json that transformers loads.

A family can say a config if reading what it writes gives the config back. A model is written as its own family where
that can, else as the first that can: the first Qwen, which transformers lacks, becomes the qwen2 it is equal to.
"""

from collections.abc import Callable, Mapping
from typing import Any

from smallpress.model.config import GQA, MLA, Dense, DynamicNTK, FixedNTK, ModelConfig, MoE, Yarn
from smallpress.run.errors import UserError
from smallpress.weights.names_hf import SCORED, config_from_hf
from smallpress.weights.names_hf_parts import ACTIVATIONS, GLOBAL, LOCAL

Settings = dict[str, Any]
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM",
    "hunyuan_v1_moe": "HunYuanMoEV1ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}
SCORERS = {"Gemma3ForCausalLM": "Gemma3TextForSequenceClassification"}
"""Where it is not the same name with another end."""
FOREIGN_ACTIVATIONS = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
NTK_FACTOR = 2.0  # what a fixed NTK's file has beside its alpha, which alone counts


def config_to_hf(config: ModelConfig) -> Settings:
    """A config.json's settings, rope in the old and the new spelling. Raises UserError for what no family can say."""
    own = [family for family in ARCHITECTURES if family == config.family]
    for family in own + [family for family in ARCHITECTURES if family != config.family]:
        settings = _said_by(family, config)
        if settings is not None:
            return settings
    attention = config.attention
    if isinstance(attention, GQA):
        letters = [letter for letter in "qkvo" if getattr(attention, f"{letter}_bias")]
        if letters and letters not in (["q", "k", "v"], ["q", "k", "v", "o"]):
            have = ", ".join(letters)
            raise UserError(f"no Hugging Face family has biases on just {have}", "train with biases on all or none")
    raise UserError(f"no Hugging Face family has all parts of this {config.family} model", "keep it in its own folder")


def as_scorer(settings: Settings) -> Settings:
    """The settings of a language model as those of a reward model of its kind."""
    (name,) = settings["architectures"]
    name = SCORERS.get(name, name.replace("ForCausalLM", SCORED))
    one = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "problem_type": "regression"}
    return settings | {"architectures": [name]} | one


def _said_by(family: str, config: ModelConfig) -> Settings | None:
    """The settings, or None where they would not mean the same."""
    write = WRITERS[family]
    written = write(config)
    if written is None:
        return None
    settings = _shared(family, config) | written
    beside = [f"model.layers.{config.n_layers}.eh_proj.weight"] if config.mtp else []
    try:
        back = config_from_hf(settings, beside, family)
    except UserError:
        return None
    return settings if back == config.model_copy(update={"family": family}) else None


def _shared(family: str, config: ModelConfig) -> Settings:
    scaling, rope = config.rope_scaling, _rope(config)
    length = scaling.original_max_seq_len if isinstance(scaling, DynamicNTK) else config.max_seq_len
    return {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": length,
        "rope_scaling": rope if scaling else None,
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},
        "tie_word_embeddings": config.tied_head,
        "hidden_act": FOREIGN_ACTIVATIONS[config.ffn.activation],
        "attention_dropout": 0.0,
    }


def _rope(config: ModelConfig) -> Settings:
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_type": "default"}
    if isinstance(scaling, DynamicNTK):
        return {"rope_type": "dynamic", "factor": scaling.factor}
    if isinstance(scaling, FixedNTK):
        return {"rope_type": "dynamic", "alpha": scaling.alpha, "factor": NTK_FACTOR}
    values = scaling.model_dump(exclude_none=True, exclude={"kind"})
    if "original_max_seq_len" in values:
        values["original_max_position_embeddings"] = values.pop("original_max_seq_len")
    if isinstance(scaling, Yarn) and values.pop("truncate") is False:
        values["truncate"] = False
    return {"rope_type": scaling.kind, **values}


def _gqa(config: ModelConfig) -> Settings | None:
    attention = config.attention
    if not isinstance(attention, GQA):
        return None
    return {
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_kv_heads,
        "head_dim": attention.head_dim,
    }


def _dense_gqa(config: ModelConfig, **more: Any) -> Settings | None:
    gqa, ffn = _gqa(config), config.ffn
    return gqa | {"intermediate_size": ffn.inter_dim, **more} if gqa is not None and isinstance(ffn, Dense) else None


def _has_bias(config: ModelConfig) -> bool:
    return config.attention.o_bias if isinstance(config.attention, GQA) else config.attention.bias


def _llama(config: ModelConfig) -> Settings | None:
    ffn = config.ffn
    return _dense_gqa(config, attention_bias=_has_bias(config), mlp_bias=isinstance(ffn, Dense) and ffn.bias)


def _mistral(config: ModelConfig) -> Settings | None:
    window = config.attention.window
    return _dense_gqa(config, sliding_window=None if window is None else window.length)


def _qwen_window(config: ModelConfig) -> Settings:
    window = config.attention.window
    if window is None:
        return {"use_sliding_window": False}
    kinds = [LOCAL if layer in window.layers else GLOBAL for layer in range(config.n_layers)]
    first = {"max_window_layers": window.layers[0]}
    return {"use_sliding_window": True, "sliding_window": window.length, "layer_types": kinds, **first}


def _qwen2(config: ModelConfig) -> Settings | None:
    return _dense_gqa(config, **_qwen_window(config))


def _qwen3(config: ModelConfig) -> Settings | None:
    return _dense_gqa(config, attention_bias=_has_bias(config), **_qwen_window(config))


def _experts(config: ModelConfig, ffn: MoE) -> Settings:
    return {
        "num_experts_per_tok": ffn.n_active_experts,
        "moe_intermediate_size": ffn.moe_inter_dim,
        "intermediate_size": ffn.dense.inter_dim if ffn.dense else ffn.moe_inter_dim,
        "attention_bias": _has_bias(config),
        "norm_topk_prob": ffn.normalize,
    }


def _qwen3_moe(config: ModelConfig) -> Settings | None:
    gqa, ffn = _gqa(config), config.ffn
    if gqa is None or not isinstance(ffn, MoE):
        return None
    kept = ("use_sliding_window", "sliding_window")
    window = {key: value for key, value in _qwen_window(config).items() if key in kept}
    more = {"num_experts": ffn.n_routed_experts, "decoder_sparse_step": 1, "mlp_only_layers": list(ffn.dense_layers)}
    return gqa | _experts(config, ffn) | window | more


def _gemma3(config: ModelConfig) -> Settings | None:
    attention = config.attention
    if not isinstance(attention, GQA):
        return None
    window = attention.window
    theta = config.rope_theta if window is None else window.rope_theta
    scalar = attention.head_dim if attention.scale is None else round(attention.scale**-2)
    rope = {
        GLOBAL: {"rope_theta": config.rope_theta, **_rope(config)},
        LOCAL: {"rope_theta": theta, "rope_type": "default"},
    }
    return _dense_gqa(
        config,
        attention_bias=_has_bias(config),
        hidden_activation=FOREIGN_ACTIVATIONS[config.ffn.activation],
        query_pre_attn_scalar=scalar,
        sliding_window=None if window is None else window.length,
        layer_types=[GLOBAL if config.window_of(layer) is None else LOCAL for layer in range(config.n_layers)],
        rope_parameters=rope,
        rope_local_base_freq=theta,
    )


def _hunyuan_dense(config: ModelConfig) -> Settings | None:
    return _dense_gqa(config, attention_bias=_has_bias(config), use_qk_norm=_has_qk_norm(config))


def _has_qk_norm(config: ModelConfig) -> bool:
    return isinstance(config.attention, GQA) and config.attention.qk_norm is not None


def _hunyuan_moe(config: ModelConfig) -> Settings | None:
    gqa, ffn = _gqa(config), config.ffn
    if gqa is None or not isinstance(ffn, MoE):
        return None
    experts = {"num_experts": ffn.n_routed_experts, "moe_topk": ffn.n_active_experts}
    more = {"attention_bias": _has_bias(config), "use_qk_norm": _has_qk_norm(config)}
    return gqa | experts | more | {"intermediate_size": ffn.moe_inter_dim}


def _deepseek(config: ModelConfig) -> Settings | None:
    mla, ffn = config.attention, config.ffn
    if not isinstance(mla, MLA) or not isinstance(ffn, MoE):
        return None
    latent = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    heads = {"num_attention_heads": mla.n_heads, "num_key_value_heads": mla.n_heads}
    return heads | {name: getattr(mla, name) for name in latent} | _experts(config, ffn) | {
        "n_routed_experts": ffn.n_routed_experts,
        "n_shared_experts": ffn.n_shared_experts,
        "n_group": ffn.n_groups,
        "topk_group": ffn.n_active_groups,
        "routed_scaling_factor": ffn.routed_scale,
        "first_k_dense_replace": len(ffn.dense_layers),
        "moe_layer_freq": 1,
    }  # fmt: skip


def _deepseek_v2(config: ModelConfig) -> Settings | None:
    settings, ffn = _deepseek(config), config.ffn
    if settings is None or not isinstance(ffn, MoE):
        return None
    method = "greedy" if ffn.n_groups == 1 else "group_limited_greedy"
    return settings | {"scoring_func": "softmax", "topk_method": method}


def _deepseek_v3(config: ModelConfig) -> Settings | None:
    settings = _deepseek(config)
    if settings is None:
        return None
    n_mtp = config.mtp.n_modules if config.mtp else 0
    more = {"rope_interleave": config.rope_interleaved, "num_nextn_predict_layers": n_mtp}
    return settings | {"scoring_func": "sigmoid", "topk_method": "noaux_tc"} | more


WRITERS: Mapping[str, Callable[[ModelConfig], Settings | None]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "gemma3_text": _gemma3,
    "hunyuan_v1_dense": _hunyuan_dense,
    "hunyuan_v1_moe": _hunyuan_moe,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
}
"""What a family says beside the shared settings; None where the config has parts it has no words for at all."""
