"""Foreign names and settings, one way and back."""

import numpy as np
import pytest

from smallpress.model.config import GQA, Dense, DynamicNTK, ModelConfig, Window
from smallpress.model.shapes import tensor_shapes
from smallpress.run.errors import UserError
from smallpress.weights.names import (
    GGUF,
    HF,
    check_tensors,
    config_from_gguf,
    foreign_names,
)
from smallpress.weights.names_gguf import unpermute
from smallpress.weights.names_hf import config_from_hf
from smallpress.weights.names_hf_out import config_to_hf


def config(family="llama", biases="", ffn_bias=False, tied=True, n_layers=2):
    attention = GQA(n_heads=4, n_kv_heads=2, head_dim=2, **{f"{letter}_bias": True for letter in biases})
    sizes = {
        "vocab_size": 11,
        "dim": 8,
        "n_layers": n_layers,
        "norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_seq_len": 64,
    }
    return ModelConfig(
        family=family, attention=attention, ffn=Dense(inter_dim=12, bias=ffn_bias), tied_head=tied, **sizes
    )


def test_every_tensor_has_its_name_in_both_worlds():
    ours = config(biases="q", tied=False, n_layers=12)
    hf, gguf = foreign_names(ours, HF), foreign_names(ours, GGUF)
    assert hf["layers.11.attn.q.bias"] == "model.layers.11.self_attn.q_proj.bias"
    assert gguf["layers.11.attn.q.bias"] == "blk.11.attn_q.bias"
    assert hf["layers.0.mlp_norm.weight"] == "model.layers.0.post_attention_layernorm.weight"
    assert (hf["head.weight"], gguf["head.weight"]) == ("lm_head.weight", "output.weight")
    assert len(set(hf.values())) == len(set(gguf.values())) == len(hf) == 3 + 12 * 10


def test_the_names_and_shapes_are_those_of_the_transformer():
    import torch

    from smallpress.model.transformer import Transformer

    for ours in (config(), config(biases="qkvo", ffn_bias=True, tied=False), config(biases="qkv")):
        with torch.device("meta"):
            state = Transformer(ours).state_dict()
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == tensor_shapes(ours)


def test_unpermute_undoes_what_llama_cpp_does():
    rows = np.random.default_rng(0).normal(size=(24, 5))
    n_heads = 3
    llama_cpp = rows.reshape(n_heads, 2, 4, 5).swapaxes(1, 2).reshape(24, 5)
    assert not np.array_equal(llama_cpp, rows)
    assert np.array_equal(unpermute(llama_cpp, n_heads), rows)
    assert np.array_equal(unpermute(llama_cpp[:, 0], n_heads), rows[:, 0])


FAMILIES = [
    ("llama", "", False),
    ("llama", "qkvo", False),
    ("llama", "qkvo", True),
    ("llama", "", True),
    ("mistral", "", False),
    ("qwen2", "qkv", False),
]


@pytest.mark.parametrize(("family", "biases", "ffn_bias"), FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_settings_survive_the_way_to_hugging_face_and_back(family, biases, ffn_bias, tied):
    ours = config(family, biases, ffn_bias, tied)
    assert config_from_hf(config_to_hf(ours), (), "here") == ours


def test_biases_nobody_else_has_are_refused_on_the_way_out():
    with pytest.raises(UserError, match="biases on just q, v"):
        config_to_hf(config(biases="qv"))


def test_both_spellings_of_rope_theta_are_read(hf_settings):
    old = hf_settings(rope_theta=500000.0)
    new = hf_settings(rope_theta=..., rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    assert config_from_hf(old, (), "here") == config_from_hf(new, (), "here")
    assert config_from_hf(old, (), "here").rope_theta == 500000.0
    assert config_from_hf(hf_settings(rope_theta=...), (), "here").rope_theta == 10000.0


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_scaling": {"type": "longrope", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "axial"}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"partial_rotary_factor": 0.25},
    ],
)
def test_rope_that_is_not_implemented_is_refused(hf_settings, rope):
    with pytest.raises(UserError, match="not implemented"):
        config_from_hf(hf_settings(**rope), (), "here")


def test_an_absent_head_dim_is_the_share_of_the_width(hf_settings):
    assert config_from_hf(hf_settings(), (), "here").attention.head_dim == 2
    assert config_from_hf(hf_settings(head_dim=None), (), "here").attention.head_dim == 2
    assert config_from_hf(hf_settings(head_dim=6), (), "here").attention.head_dim == 6


def test_absent_kv_heads_are_as_many_as_heads(hf_settings):
    assert config_from_hf(hf_settings(num_key_value_heads=...), (), "here").attention.n_kv_heads == 4


def test_a_sliding_window_is_on_the_layers_the_family_puts_it(hf_settings):
    def window(**changes):
        return config_from_hf(hf_settings(sliding_window=32, **changes), (), "here").attention.window

    assert window(model_type="mistral") == Window(length=32, layers=(0, 1))
    assert window(model_type="qwen2") is None  # it says so, and does not use it
    assert window(model_type="qwen2", use_sliding_window=True, max_window_layers=1) == Window(length=32, layers=(1,))
    kinds = ["sliding_attention", "full_attention"]
    assert window(model_type="qwen2", use_sliding_window=True, layer_types=kinds) == Window(length=32, layers=(0,))


def test_a_window_no_sequence_is_longer_than_is_none(hf_settings):
    mistral = hf_settings(model_type="mistral", sliding_window=64)
    assert config_from_hf(mistral, (), "here").attention.window is None


def test_dynamic_scaling_makes_the_context_longer_by_its_factor(hf_settings):
    ours = config_from_hf(hf_settings(head_dim=4, rope_scaling={"type": "dynamic", "factor": 2.0}), (), "here")
    assert ours.rope_scaling == DynamicNTK(factor=2.0, original_max_seq_len=64) and ours.max_seq_len == 128


def test_biases_are_those_declared_and_those_there(hf_settings):
    def biases(settings, names=()):
        attention = config_from_hf(settings, names, "here").attention
        return "".join(letter for letter in "qkvo" if getattr(attention, f"{letter}_bias"))

    assert biases(hf_settings()) == ""
    assert biases(hf_settings(attention_bias=True)) == "qkvo"
    assert biases(hf_settings(model_type="qwen2")) == "qkv"
    assert biases(hf_settings(model_type="mistral", attention_bias=True)) == ""
    assert biases(hf_settings(), ["model.layers.0.self_attn.o_proj.bias"]) == "o"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"hidden_size": ...}, "hidden_size is None"),
        ({"hidden_size": "8"}, "hidden_size is '8'"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": -8}, "hidden_size is -8"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 9}, "4 heads do not share 9"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "n_kv_heads=3"),
        ({"head_dim": 3}, "head_dim"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_scaling": [1]}, "rope_scaling is"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    ],
)
def test_settings_that_make_no_model_are_refused(hf_settings, changes, words):
    with pytest.raises(UserError) as caught:
        config_from_hf(hf_settings(**changes), (), "here/config.json")
    assert words in str(caught.value) and "here/config.json" in str(caught.value)


def test_missing_and_surplus_tensors_are_listed():
    ours = config()
    found = {foreign: tensor_shapes(ours)[name] for name, foreign in foreign_names(ours, HF).items()}
    check_tensors(ours, HF, found, "here")
    del found["model.norm.weight"]
    found["model.extra.weight"] = (1,)
    with pytest.raises(UserError, match=r"missing: model\.norm\.weight; surplus: model\.extra\.weight"):
        check_tensors(ours, HF, found, "here")


def test_a_wrong_shape_is_named_with_the_right_one():
    ours = config()
    found = {foreign: tensor_shapes(ours)[name] for name, foreign in foreign_names(ours, HF).items()}
    found["model.norm.weight"] = (9,)
    with pytest.raises(UserError, match=r"model\.norm\.weight has the shape \[9\].*\[8\]"):
        check_tensors(ours, HF, found, "here")


def test_old_frequencies_and_the_copy_of_a_tied_head_are_ignored():
    for tied in (True, False):
        ours = config(tied=tied)
        found = {foreign: tensor_shapes(ours)[name] for name, foreign in foreign_names(ours, HF).items()}
        found |= {"model.layers.0.self_attn.rotary_emb.inv_freq": (1,), "lm_head.weight": (11, 8)}
        check_tensors(ours, HF, found, "here")


def opened(tmp_path, file):
    from smallpress.weights.gguf import open_gguf

    (tmp_path / "m.gguf").write_bytes(file.build())
    gguf = open_gguf(tmp_path / "m.gguf")
    return gguf.metadata, {name: info.shape for name, info in gguf.tensors.items()}


def test_gguf_metadata_makes_the_config(tmp_path, tiny_gguf):
    ours = config_from_gguf(*opened(tmp_path, tiny_gguf()), "here")
    assert ours.norm_eps == 1e-5 and ours.rope_theta == 10000.0 and not ours.tied_head
    assert (ours.vocab_size, ours.dim, ours.n_layers, ours.ffn.inter_dim, ours.max_seq_len) == (11, 8, 1, 12, 64)
    assert ours.attention == GQA(n_heads=2, n_kv_heads=1, head_dim=4)


def test_a_gguf_without_output_is_tied_and_biases_are_those_there(tmp_path, tiny_gguf):
    file = tiny_gguf(without=["output.weight"], architecture="qwen2", bias=True)
    ours = config_from_gguf(*opened(tmp_path, file), "here")
    assert ours.tied_head and ours.family == "qwen2"
    assert (ours.attention.q_bias, ours.attention.o_bias) == (True, False)


@pytest.mark.parametrize(
    ("put", "words"),
    [
        ({"general.architecture": "gpt2"}, "architecture 'gpt2'"),
        ({"general.architecture": 3}, "architecture 3"),
        ({"general.architecture": ...}, "architecture None"),
        ({"general.type": "adapter"}, "is no model"),
        ({"split.count": 3}, "llama-gguf-split"),
        ({"expert_count": 8}, "llama.expert_count 8"),
        ({"rope.scaling.type": "longrope"}, "rope scaling 'longrope'"),
        ({"logit_scale": 2.0, "odd": 1}, "llama.logit_scale, llama.odd"),
        ({"rope.dimension_count": 2}, "rope.dimension_count"),
        ({"attention.value_length": 8}, "attention.value_length"),
        ({"attention.head_count": [2, 2]}, "llama.attention.head_count is [2, 2]"),
        ({"embedding_length": "8"}, "llama.embedding_length is '8'"),
        ({"block_count": ...}, "llama.block_count is None"),
    ],
)
def test_gguf_metadata_that_makes_no_model_is_refused(tmp_path, tiny_gguf, put, words):
    with pytest.raises(UserError) as caught:
        config_from_gguf(*opened(tmp_path, tiny_gguf(put=put)), "here")
    assert words in str(caught.value)
