"""Small models of every architecture that GGUF knows here, as folders; for tests, bench/attack.py and bench/gguf.py."""

import json
from pathlib import Path

import numpy as np

from smallpress.model.config import GQA, MLA, Dense, FixedNTK, Linear, Llama3, ModelConfig, MoE, Window, Yarn
from smallpress.model.shapes import tensor_shapes
from smallpress.weights.names_hf_out import config_to_hf
from smallpress.weights.names_tensors import hf_tensors, norm_offset
from smallpress.weights.safetensors_writer import write_safetensors

VOCAB_SIZE = 259  # the bytes, <s>, </s> and <pad>


def small_configs(unit: int = 32) -> dict[str, ModelConfig]:
    """By the name of what each has of its own; `unit` is the width."""
    half = unit // 2

    def gqa(**more):
        return GQA(**{"n_heads": 4, "n_kv_heads": 2, "head_dim": half} | more)

    experts = {"n_routed_experts": 8, "n_active_experts": 3, "moe_inter_dim": unit}
    v3 = MoE(
        **experts, score="sigmoid", expert_bias=True, n_groups=4, n_active_groups=2, routed_scale=2.5,
        n_shared_experts=1, dense_layers=(0,), dense=Dense(inter_dim=2 * unit),
    )  # fmt: skip
    v2 = MoE(
        **experts, normalize=False, group_score="max", n_shared_experts=2,
        dense_layers=(0,), dense=Dense(inter_dim=unit),
    )  # fmt: skip
    mla = MLA(
        n_heads=4, q_lora_rank=unit, kv_lora_rank=unit,
        qk_nope_head_dim=half, qk_rope_head_dim=half // 2, v_head_dim=unit,
    )  # fmt: skip
    yarn = Yarn(factor=40, original_max_seq_len=64, mscale=1.0, mscale_all_dim=1.0)
    llama3 = Llama3(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_seq_len=8192)
    biases = {"q_bias": True, "k_bias": True, "v_bias": True}
    wide, hunyuan = Dense(inter_dim=2 * unit), {"qk_norm": "after_rope"}
    window = Window(length=12, layers=(0, 1, 2, 3, 4, 6), rope_theta=1e4)
    gemma = {"n_layers": 7, "tied_head": True, "post_norms": True, "embed_scale": unit**0.5, "rope_theta": 1e6}
    parts = {
        "llama": {"family": "llama"},
        "llama 3.1": {"family": "llama", "rope_scaling": llama3, "rope_theta": 5e5},
        "linear": {"family": "llama", "rope_scaling": Linear(factor=4)},
        "qwen2": {"family": "qwen2", "attention": gqa(head_dim=unit // 4, **biases), "tied_head": True},
        "qwen3": {"family": "qwen3", "attention": gqa(qk_norm="before_rope"), "tied_head": True},
        "yarn": {
            "family": "qwen3",
            "attention": gqa(qk_norm="before_rope"),
            "rope_scaling": Yarn(factor=4, original_max_seq_len=64),
        },
        "qwen3_moe": {"family": "qwen3_moe", "attention": gqa(qk_norm="before_rope"), "ffn": MoE(**experts)},
        "gemma3": {
            "family": "gemma3_text",
            "attention": gqa(n_kv_heads=1, qk_norm="before_rope", window=window),
            "ffn": Dense(inter_dim=2 * unit, activation="gelu_tanh"),
            **gemma,
        },
        "deepseek_v2": {
            "family": "deepseek_v2",
            "attention": mla.model_copy(update={"q_lora_rank": None}),
            "ffn": v2,
            "n_layers": 27,  # llama.cpp knows by it that queries come straight from the stream
            "rope_interleaved": True,
            "norm_eps": 1e-6,
        },
        "deepseek_v3": {
            "family": "deepseek_v3",
            "attention": mla,
            "ffn": v3,
            "rope_scaling": yarn,
            "rope_interleaved": True,
            "norm_eps": 1e-6,
        },
        "hunyuan_dense": {
            "family": "hunyuan_v1_dense",
            "attention": gqa(**hunyuan),
            "rope_scaling": FixedNTK(alpha=50),
        },
        "hunyuan_moe": {
            "family": "hunyuan_v1_moe",
            "attention": gqa(**hunyuan),
            "ffn": MoE(**experts, n_shared_experts=1),
        },
    }
    shared = {
        "vocab_size": VOCAB_SIZE, "dim": unit, "n_layers": 3, "norm_eps": 1e-5, "rope_theta": 1e4, "max_seq_len": 2560,
        "attention": gqa(), "ffn": wide,
    }  # fmt: skip
    return {name: ModelConfig(**(shared | part)) for name, part in parts.items()}


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Matrices of a spread that keeps the stream's size, norms about one, small biases."""
    draw, weights = np.random.default_rng(seed), {}
    for name, shape in tensor_shapes(config).items():
        values = draw.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            values = values * np.float32(0.1) + np.float32(name.endswith("norm.weight"))
        elif name != "embed.weight":
            values *= np.float32(shape[-1] ** -0.5)
        weights[name] = values
    return weights


def write_folder(folder: Path, config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """The model with random weights as a Hugging Face folder; returns the weights by our names."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, tensors = random_weights(config, seed), {}
    for name, tensor in hf_tensors(config, config.family).items():
        parts = [
            weights[piece.name].reshape(-1, *tensor.shape[1:])[piece.first : piece.first + piece.n_rows]
            for piece in tensor.pieces
        ]
        offset = np.float32(norm_offset(tensor.pieces[0].name, config.family))
        tensors[name] = np.concatenate(parts).reshape(tensor.shape) - offset
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    ids = {"bos_token_id": 256, "eos_token_id": 257}
    (folder / "config.json").write_text(json.dumps(config_to_hf(config) | ids))
    write_byte_tokenizer(folder)
    return weights


def write_byte_tokenizer(folder: Path) -> None:
    """A token a byte, cut as GPT-2 cuts, and a template that only joins."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE(vocab={letter: id for id, letter in enumerate(letters)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<s>", "</s>", "<pad>"])
    library.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages[0]['content'] }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
