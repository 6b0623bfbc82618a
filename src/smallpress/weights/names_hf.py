"""A Hugging Face config.json as our config, family by family. The way back is `names_hf_out`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from smallpress.model.config import ModelConfig
from smallpress.run.errors import UserError
from smallpress.run.settings import settings_from
from smallpress.weights.names_hf_parts import (
    GLOBAL,
    LOCAL,
    Tree,
    activation,
    declared,
    decoder,
    dense,
    gqa,
    layers_of_kind,
    window,
)
from smallpress.weights.names_reader import DEFAULT_ROPE_THETA, Reader, number
from smallpress.weights.names_tensors import has_mtp

SCORED, SCORE = "ForSequenceClassification", "score.weight"
"""How such a class of theirs ends, and the name of its last tensor, [1, dim] in a reward model."""
QWEN3_HEAD_DIM, GEMMA3_HEAD_DIM = 128, 256


def config_from_hf(settings: Mapping[str, Any], tensor_names: Collection[str], source: str) -> ModelConfig:
    """A config.json, with the names of the tensors it goes with: they too decide which biases there are, and MTP."""
    family = settings.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(f"{source}: model_type {family!r} is not implemented", f"known families: {known}")
    read = Reader(settings, tensor_names, source)
    read.must_be("rope_interleaved", False)
    fp8_block(settings, source)
    return settings_from(ModelConfig, {"family": family} | FAMILIES[family](read), source)


def is_reward_model(settings: Mapping[str, Any]) -> bool:
    """Whether a linear function of the last token's hidden state stands in the place of the head."""
    named = settings.get("architectures")
    return isinstance(named, list) and any(str(name).endswith(SCORED) for name in named)


def fp8_block(settings: Mapping[str, Any], source: str) -> tuple[int, int] | None:
    """Rows and columns of a block that shares a scale, where the weights are FP8; any other quantization is refused."""
    quantization = settings.get("quantization_config")
    if quantization is None:
        return None
    if isinstance(quantization, dict) and quantization.get("quant_method") == "fp8":
        block: Any = quantization.get("weight_block_size")
        two = isinstance(block, list) and [type(n) is int and n > 0 for n in block] == [True, True]
        if two and quantization.get("fmt", "e4m3") == "e4m3":
            return block[0], block[1]
    raise UserError(f"{source}: quantization_config {quantization!r} is not implemented", "give a plain model")


def _llama(read: Reader) -> Tree:
    return decoder(read, dense(read), gqa(read, declared(read)))


def _mistral(read: Reader) -> Tree:
    return decoder(read, dense(read), gqa(read, window=window(read, range(read.n_layers()))))


def _qwen_window(read: Reader) -> Tree | None:
    """The upper layers, where it is used at all."""
    if not read.flag("use_sliding_window"):
        return None
    layers, n_layers = layers_of_kind(read, LOCAL), read.n_layers()
    return window(read, range(read.count("max_window_layers", 28), n_layers) if layers is None else layers)


def _qwen2(read: Reader) -> Tree:
    return decoder(read, dense(read), gqa(read, "qkv", window=_qwen_window(read)))


def _qwen3(read: Reader) -> Tree:
    more = {"qk_norm": "before_rope", "window": _qwen_window(read)}
    return decoder(read, dense(read), gqa(read, declared(read), head_dim=QWEN3_HEAD_DIM, **more))


def _qwen3_moe(read: Reader) -> Tree:
    n_layers, step = read.n_layers(), read.whole("decoder_sparse_step", 1)
    listed = read.settings.get("mlp_only_layers") or []
    if not isinstance(listed, list):
        raise read.unknown("mlp_only_layers")
    dense_layers = tuple(layer for layer in range(n_layers) if layer in listed or (layer + 1) % step)
    seen = window(read, range(n_layers)) if read.flag("use_sliding_window") else None
    moe = _moe(read, dense_layers) | {
        "n_routed_experts": read.whole("num_experts", read.settings.get("num_local_experts")),
        "normalize": read.flag("norm_topk_prob"),
    }
    return decoder(read, moe, gqa(read, declared(read), qk_norm="before_rope", window=seen))


def _moe(read: Reader, dense_layers: tuple[int, ...]) -> Tree:
    return {
        "kind": "moe",
        "n_active_experts": read.whole("num_experts_per_tok"),
        "moe_inter_dim": read.whole("moe_intermediate_size"),
        "activation": activation(read),
        "dense_layers": dense_layers,
        "dense": dense(read) if dense_layers else None,
    }


def _deepseek(read: Reader) -> Tree:
    """What V2 and V3 share: MLA, the first layers dense, shared experts."""
    read.must_be("moe_layer_freq", 1)
    n_heads = read.whole("num_attention_heads")
    mla: Tree = {
        "kind": "mla",
        "n_heads": n_heads,
        "q_lora_rank": None if read.settings.get("q_lora_rank") is None else read.whole("q_lora_rank"),
        "bias": read.flag("attention_bias"),
    }
    for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        mla[name] = read.whole(name)
    n_dense = min(read.count("first_k_dense_replace"), read.n_layers())
    moe = _moe(read, tuple(range(n_dense))) | {
        "n_routed_experts": read.whole("n_routed_experts"),
        "n_shared_experts": read.count("n_shared_experts"),
        "routed_scale": read.real("routed_scaling_factor", 1.0),
    }
    return decoder(read, moe, mla)


def _deepseek_v2(read: Reader) -> Tree:
    read.must_be("scoring_func", "softmax")
    read.must_be("topk_method", "greedy", "group_limited_greedy")
    read.must_be("norm_topk_prob", False)  # transformers and the released code disagree on what it does
    tree = _deepseek(read)
    tree["ffn"] |= {"score": "softmax", "normalize": False, "group_score": "max"}
    if read.settings.get("topk_method") == "group_limited_greedy":
        tree["ffn"] |= {"n_groups": read.whole("n_group"), "n_active_groups": read.whole("topk_group")}
    return tree | {"rope_interleaved": True}


def _deepseek_v3(read: Reader) -> Tree:
    read.must_be("scoring_func", "sigmoid")
    read.must_be("topk_method", "noaux_tc")
    tree = _deepseek(read)
    tree["ffn"] |= {"score": "sigmoid", "expert_bias": True, "normalize": read.flag("norm_topk_prob", True)}
    tree["ffn"] |= {"n_groups": read.whole("n_group", 1), "n_active_groups": read.whole("topk_group", 1)}
    if has_mtp(read.tensor_names, tree["n_layers"]):
        tree["mtp"] = {"n_modules": read.whole("num_nextn_predict_layers", read.settings.get("num_mtp_layers"))}
    return tree | {"rope_interleaved": read.flag("rope_interleave", True)}


def _hunyuan_dense(read: Reader) -> Tree:
    read.must_be("use_cla", False)
    qk_norm = "after_rope" if read.flag("use_qk_norm", True) else None
    return decoder(read, dense(read), gqa(read, declared(read), qk_norm=qk_norm))


def _hunyuan_moe(read: Reader) -> Tree:
    """One shared expert in every layer, as wide as the routed ones."""
    width = read.whole("intermediate_size")
    if read.one("moe_intermediate_size", width) != width:
        raise read.unknown("moe_intermediate_size")
    if read.one("num_shared_expert", 1) != 1:
        raise read.unknown("num_shared_expert")
    read.must_be("moe_layer_num_skipped", 0)
    tree = _hunyuan_dense(read)
    tree["ffn"] = {
        "kind": "moe",
        "n_routed_experts": read.one("num_experts"),
        "n_active_experts": read.one("moe_topk"),
        "n_shared_experts": 1,
        "moe_inter_dim": width,
        "activation": activation(read),
    }
    return tree


def _gemma3(read: Reader) -> Tree:
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        read.must_be(key)
    read.must_be("use_bidirectional_attention", False)
    dim, head_dim = read.whole("hidden_size"), read.whole("head_dim", GEMMA3_HEAD_DIM)
    scalar, pattern = read.real("query_pre_attn_scalar", 256), read.whole("sliding_window_pattern", 6)
    layers = layers_of_kind(read, LOCAL)
    if layers is None:
        layers = [layer for layer in range(read.n_layers()) if (layer + 1) % pattern]
    more: Tree = {"qk_norm": "before_rope", "scale": None if scalar == head_dim else scalar**-0.5}
    if layers:
        theta = _gemma3_local_theta(read)
        more["window"] = {"length": read.whole("sliding_window", 4096), "layers": layers, "rope_theta": theta}
    ffn = dense(read, "hidden_activation", "gelu_pytorch_tanh")
    attention = gqa(read, declared(read), head_dim=GEMMA3_HEAD_DIM, **more)
    tree = decoder(read, ffn, attention, theta=1e6, tied=True, layers=GLOBAL)
    return tree | {"post_norms": True, "embed_scale": dim**0.5}


def _gemma3_local_theta(read: Reader) -> float:
    """The base of the layers with a window; they have no scaling."""
    nested = read.settings.get("rope_parameters")
    local = nested.get(LOCAL) if isinstance(nested, dict) else None
    local = local if isinstance(local, dict) else {}
    if local.get("rope_type", "default") != "default":
        raise UserError(f"{read.source}: rope scaling {local['rope_type']!r} of windowed layers is not implemented")
    theta = local.get("rope_theta") or read.settings.get("rope_local_base_freq") or 1e4
    return float(number(theta, "rope_local_base_freq", float, read.source))


def _qwen(read: Reader) -> Tree:
    """The first generation: its own words, biases on q, k, v, and a width that counts gate and up together.

    Beyond the length it was trained on it changes its rotation and stretches its queries with the length; it is not
    taken there.
    """
    read.must_be("rotary_pct", 1.0)
    n_heads, dim, both = read.whole("num_attention_heads"), read.whole("hidden_size"), read.whole("intermediate_size")
    if both % 2:
        raise read.unknown("intermediate_size")
    o_bias = read.has_bias("transformer.h.0.attn.c_proj") or not read.flag("no_bias", True)
    trained = read.whole("seq_length", read.whole("max_position_embeddings", 1 << 52))
    return {
        "vocab_size": read.whole("vocab_size"),
        "dim": dim,
        "n_layers": read.n_layers(),
        "norm_eps": read.real("layer_norm_epsilon"),
        "rope_theta": read.real("rotary_emb_base", DEFAULT_ROPE_THETA),
        "max_seq_len": min(trained, read.whole("max_position_embeddings", trained)),
        "tied_head": read.flag("tie_word_embeddings"),
        "attention": {
            "kind": "gqa",
            "n_heads": n_heads,
            "n_kv_heads": n_heads,
            "head_dim": read.whole("kv_channels", dim // n_heads),
            "q_bias": True,
            "k_bias": True,
            "v_bias": True,
            "o_bias": o_bias,
        },
        "ffn": {"kind": "dense", "inter_dim": both // 2, "bias": not read.flag("no_bias", True)},
    }


FAMILIES: Mapping[str, Callable[[Reader], Tree]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen": _qwen,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "hunyuan_v1_dense": _hunyuan_dense,
    "hunyuan_v1_moe": _hunyuan_moe,
    "gemma3_text": _gemma3,
}
"""By model_type. DeepSeek LLM, Yi, Smaug and the distilled R1 models are of the families llama and qwen2."""
