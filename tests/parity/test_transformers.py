"""Models against transformers: their folders through us, ours through them, and a GGUF of the same weights."""

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig, Qwen2Config

from smallpress.weights import gguf_writer
from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.gguf import open_gguf
from smallpress.weights.gguf_export import gguf_contents
from smallpress.weights.load import load_transformer, open_model
from smallpress.weights.safetensors import open_safetensors

REASSOCIATION = 1e-5
"""fp32 sums in another order, on logits of about 1."""

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
MODELS = {
    "llama": LlamaConfig(**SIZES),
    "llama, tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama, biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "llama, wide heads": LlamaConfig(**SIZES, head_dim=16, rope_theta=5e5),
    "llama, one kv head": LlamaConfig(**SIZES | {"num_key_value_heads": 1}),
    "mistral": MistralConfig(**SIZES, sliding_window=None, head_dim=8),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
}


def causal(layer, q_NHD, k_NKD, v_NKD):
    """One sequence; N is its length."""
    J = q_NHD.shape[1] // k_NKD.shape[1]
    q, k, v = (x.transpose(0, 1) for x in (q_NHD, k_NKD.repeat_interleave(J, 1), v_NKD.repeat_interleave(J, 1)))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1)


@torch.no_grad()
def our_logits(model, ids):
    ids_N = torch.tensor(ids)
    return model.logits(model(ids_N, torch.arange(len(ids)), causal))


@torch.no_grad()
def their_logits(model, ids):
    return model(torch.tensor([ids])).logits[0]


def random_model(config):
    """With weights large enough that every part of it shows in the logits: biases and norms are not left at 0 and 1."""
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.2 * noise)
    return model


IDS = [1, 5, 9, 60, 33, 33, 2, 47, 18, 7, 5, 9]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder transformers saves for each of MODELS, with the model."""
    made = {}
    for name, config in MODELS.items():
        made[name] = tmp_path_factory.mktemp("theirs"), random_model(config)
        made[name][1].save_pretrained(made[name][0])
    return made


@pytest.mark.parametrize("name", MODELS)
def test_their_folder_gives_the_same_logits_through_us(folders, name):
    folder, theirs = folders[name]
    torch.testing.assert_close(
        our_logits(load_transformer(folder), IDS), their_logits(theirs, IDS), atol=REASSOCIATION, rtol=REASSOCIATION
    )


@pytest.mark.parametrize("name", MODELS)
def test_our_folder_gives_the_same_logits_through_them(folders, name, tmp_path, fake_tokenizer):
    folder, theirs = folders[name]
    files = fake_tokenizer(open_model(folder))
    again, report = AutoModelForCausalLM.from_pretrained(
        save_hf_folder(tmp_path / "ours", WeightsOnDemand(files), files), output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert type(again) is type(theirs) and again.dtype == torch.float32
    assert torch.equal(their_logits(again, IDS), their_logits(theirs, IDS))


def test_a_bfloat16_folder_is_read_as_such(folders, tmp_path, fake_tokenizer):
    folder, theirs = folders["llama"]
    files = fake_tokenizer(open_model(folder))
    save_hf_folder(tmp_path / "ours", WeightsOnDemand(files), files, dtype="bfloat16")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert again.dtype == torch.bfloat16
    for (name, ours), parameter in zip(again.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours, parameter.bfloat16()), name


GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_gguf(path, folder, config):
    """As llama.cpp's converter does: its names, and for llama the rows of q and k in its order."""
    architecture = {"mistral": "llama"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    stored = open_safetensors(folder / "model.safetensors")
    n_heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name in stored.tensors:
        tensor, theirs = stored.read(name), name
        for hf, short in GGUF_NAMES.items():
            theirs = theirs.replace(hf, short)
        projection = name.split(".")[-2]
        if architecture == "llama" and projection in n_heads:
            shape, H = tensor.shape, n_heads[projection]
            tensor = tensor.reshape(H, 2, shape[0] // H // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(theirs, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_of_their_weights_gives_the_same_logits(folders, name, tmp_path):
    folder, theirs = folders[name]
    write_gguf(tmp_path / "m.gguf", folder, theirs.config)
    from_folder, from_gguf = load_transformer(folder), load_transformer(tmp_path / "m.gguf")
    for (ours, a), b in zip(from_folder.state_dict().items(), from_gguf.state_dict().values(), strict=True):
        assert torch.equal(a, b), ours
    torch.testing.assert_close(
        our_logits(from_gguf, IDS), their_logits(theirs, IDS), atol=REASSOCIATION, rtol=REASSOCIATION
    )


@pytest.mark.parametrize("name", MODELS)
def test_our_gguf_is_the_converters_tensor_by_tensor(folders, name, tmp_path, fake_tokenizer):
    folder, theirs = folders[name]
    write_gguf(tmp_path / "theirs.gguf", folder, theirs.config)
    files = fake_tokenizer(open_model(folder))
    gguf_writer.write_gguf(tmp_path / "ours.gguf", *gguf_contents(WeightsOnDemand(files), files, "f32"))
    expected, ours = open_gguf(tmp_path / "theirs.gguf"), open_gguf(tmp_path / "ours.gguf")
    assert ours.metadata.items() >= expected.metadata.items()
    assert set(ours.tensors) == set(expected.tensors)
    assert all(np.array_equal(ours.read(tensor), expected.read(tensor)) for tensor in ours.tensors)


def test_their_shards_are_one_model(folders, tmp_path):
    folder, theirs = folders["llama, biases"]
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    whole, parts = load_transformer(folder), load_transformer(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


PROMPTS = {
    "english": "The capital of France is Paris. The capital of Italy is",
    "code": "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) +",
    "chinese": "床前明月光，疑是地上霜。举头望明月，",
}
SMOLLM2_FP32 = 1e-4
"""Of logits up to 40, against transformers in fp64: its own two attention forms in fp32 differ by more than this."""
N_GREEDY = 64


@pytest.fixture(scope="module")
def exported(smollm2, tmp_path_factory):
    """SmolLM2, its 4-bit weights dequantized to fp32, as a folder."""
    files = open_model(smollm2)
    return save_hf_folder(tmp_path_factory.mktemp("smollm2") / "hf", WeightsOnDemand(files), files)


@pytest.fixture(scope="module")
def both(smollm2, exported):
    return load_transformer(smollm2), AutoModelForCausalLM.from_pretrained(exported).eval()


@pytest.fixture(scope="module")
def exact(exported):
    return AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float64).eval()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_smollm2_has_the_same_logits(smollm2, exported, both, exact, prompt):
    tokenizer = open_model(smollm2).tokenizer()
    ids = tokenizer.encode(PROMPTS[prompt])
    assert AutoTokenizer.from_pretrained(exported)(PROMPTS[prompt])["input_ids"] == ids
    ours, theirs = our_logits(both[0], ids).double(), their_logits(exact, ids)
    torch.testing.assert_close(ours, theirs, atol=SMOLLM2_FP32, rtol=0)


def test_smollm2_says_the_same_64_tokens(smollm2, exported, both):
    ours, theirs = both
    tokenizer = open_model(smollm2).tokenizer()
    ids = tokenizer.encode(PROMPTS["english"])
    prompt = torch.tensor([ids])
    said = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=N_GREEDY, eos_token_id=-1
    )[0].tolist()
    # One pass over the whole text checks every step: each token must be the likeliest after those before it.
    likeliest = our_logits(ours, said[:-1]).argmax(-1).tolist()
    assert likeliest[len(ids) - 1 :] == said[len(ids) :] and len(said) == len(ids) + N_GREEDY
    print(tokenizer.decode(said))


def test_smollm2_exported_is_the_same_model_to_us(smollm2, exported, both):
    again = load_transformer(exported)
    assert all(torch.equal(a, b) for a, b in zip(both[0].parameters(), again.parameters(), strict=True))
    assert open_model(exported).config == open_model(smollm2).config
    assert open_model(exported).licence == "apache-2.0"
    assert open_model(exported).origin == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "Apache License" in open_model(exported).licence_text
