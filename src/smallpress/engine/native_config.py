"""A model's config as the native core takes it: dicts of numbers (native/config.h says what each is)."""

from typing import Any

from smallpress.model.config import MLA, Dense, DynamicNTK, ModelConfig, MoE, RopeScaling
from smallpress.model.frequencies import frequencies, rope_gain, softmax_scale

Numbers = dict[str, Any]


def native_config(config: ModelConfig, n_modules: int = 0) -> Numbers:
    """With the first `n_modules` of its MTP modules, whose blocks are the last."""
    attention, ffn, blocks = config.attention, config.ffn, range(config.n_layers + n_modules)
    ropes = list(dict.fromkeys(config.rope_of(layer) for layer in blocks))
    return {
        "dim": config.dim,
        "n_heads": attention.n_heads,
        "n_kv_heads": 1 if isinstance(attention, MLA) else attention.n_kv_heads,
        "head_dim": attention.qk_head_dim if isinstance(attention, MLA) else attention.head_dim,
        "vocab_size": config.vocab_size,
        "norm_eps": config.norm_eps,
        "tied_head": config.tied_head,
        "layers": [_layer(config, layer, ropes.index(config.rope_of(layer))) for layer in blocks],
        "ropes": [_rope(attention.rope_dim, theta, scaling) for theta, scaling in ropes],
        "interleaved": config.rope_interleaved,
        "head_norm": "" if isinstance(attention, MLA) else attention.qk_norm or "",
        "post_norms": config.post_norms,
        "embed_scale": config.embed_scale,
        "score_scale": softmax_scale(config) if isinstance(attention, MLA) or attention.scale else 0.0,
        "latent": _latent(attention) if isinstance(attention, MLA) else None,
        "experts": _experts(ffn) if isinstance(ffn, MoE) else None,
        "n_modules": n_modules,
        "hidden_first": config.mtp is not None and config.mtp.hidden_first,
    }


def _layer(config: ModelConfig, layer: int, rope: int) -> Numbers:
    ffn = config.ffn_of(layer)
    inter_dim = ffn.inter_dim if isinstance(ffn, Dense) else 0
    gelu = ffn.activation == "gelu_tanh"
    return {"inter_dim": inter_dim, "window": config.window_of(layer) or 0, "rope": rope, "gelu": gelu}


def _rope(dim: int, theta: float, scaling: RopeScaling | None) -> Numbers:
    ntk = scaling if isinstance(scaling, DynamicNTK) else None
    return {
        "turns": frequencies(dim, theta, scaling).tolist(),
        "gain": rope_gain(scaling),
        "ntk_factor": ntk.factor if ntk else 1.0,
        "ntk_length": float(ntk.original_max_seq_len) if ntk else 0.0,
    }


def _latent(mla: MLA) -> Numbers:
    return {
        "q_rank": mla.q_lora_rank or 0,
        "kv_rank": mla.kv_lora_rank,
        "nope_dim": mla.qk_nope_head_dim,
        "rope_dim": mla.qk_rope_head_dim,
        "v_dim": mla.v_head_dim,
        "norm_eps": mla.latent_norm_eps,
    }


def _experts(moe: MoE) -> Numbers:
    return {
        "n_routed": moe.n_routed_experts,
        "n_active": moe.n_active_experts,
        "inter_dim": moe.moe_inter_dim,
        "shared_dim": moe.n_shared_experts * moe.moe_inter_dim,
        "n_groups": moe.n_groups,
        "n_active_groups": moe.n_active_groups,
        "sigmoid": moe.score == "sigmoid",
        "has_bias": moe.expert_bias,
        "best_two": moe.group_score == "top2_sum",
        "normalize": moe.normalize,
        "scale": moe.routed_scale,
    }
