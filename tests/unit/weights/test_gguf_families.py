"""Every architecture that GGUF knows here: the same model in a folder, in a GGUF, and read back."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from smallpress.model.config import MTP, DynamicNTK, Llama3, ModelConfig
from smallpress.model.frequencies import frequencies, softmax_scale
from smallpress.model.shapes import tensor_shapes
from smallpress.run.errors import UserError
from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.gguf import open_gguf
from smallpress.weights.gguf_export import gguf_contents
from smallpress.weights.gguf_writer import BlockTensor, write_gguf
from smallpress.weights.load import open_model
from smallpress.weights.names import GGUF, check_tensors, config_from_gguf, config_to_gguf
from smallpress.weights.names_gguf import gguf_tensors, to_gguf_layout
from smallpress.weights.names_gguf_out import written_factors, written_tensors
from smallpress.weights.quantization import BY_NAME, tensor_formats
from smallpress.weights.rope_factors import llama3_from_factors, rope_factors

_spec = importlib.util.spec_from_file_location("families", Path(__file__).with_name("families.py"))
families = sys.modules["families"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(families)
CONFIGS = families.small_configs()
each_family = pytest.mark.parametrize("name", CONFIGS)


@each_family
def test_a_folder_becomes_a_gguf_and_a_folder_again_with_the_same_numbers(tmp_path, name):
    weights = families.write_folder(tmp_path / "hf", CONFIGS[name])
    files = open_model(tmp_path / "hf")
    assert files.config == CONFIGS[name]
    write_gguf(tmp_path / "m.gguf", *gguf_contents(WeightsOnDemand(files), files, "f32"))
    made = open_model(tmp_path / "m.gguf")
    again = open_model(save_hf_folder(tmp_path / "again", WeightsOnDemand(made), made))
    for ours in weights:
        assert np.array_equal(made.read(ours), files.read(ours)), ours
        assert np.array_equal(again.read(ours), files.read(ours)), ours
    if name != "hunyuan_dense":  # whose scaling is said by its base
        assert made.config == again.config == files.config
    for layer in range(files.config.n_layers):
        turns = [frequencies(files.config.attention.rope_dim, *c.rope_of(layer)) for c in (files.config, made.config)]
        assert np.allclose(*turns, rtol=1e-6)
    assert softmax_scale(made.config) == pytest.approx(softmax_scale(files.config), rel=1e-6)
    assert made.tokenizer().encode("ab c<s>", special=True) == files.tokenizer().encode("ab c<s>", special=True)


def metadata_and_shapes(config):
    tensors, factors = written_tensors(config), written_factors(config)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return config_to_gguf(config), shapes | ({} if factors is None else {"rope_freqs.weight": factors.shape})


@each_family
def test_each_is_written_as_its_own_architecture(name):
    architecture = config_to_gguf(CONFIGS[name])["general.architecture"]
    assert architecture == {
        "llama 3.1": "llama", "linear": "llama", "yarn": "qwen3", "qwen3_moe": "qwen3moe", "deepseek_v2": "deepseek2",
        "deepseek_v3": "deepseek2", "hunyuan_dense": "hunyuan-dense", "hunyuan_moe": "hunyuan-moe",
    }.get(name, name)  # fmt: skip


def test_the_keys_of_deepseek():
    """Those of the model: one head of 32 + 8 reads the latents, four heads of 16 + 8 are made of them."""
    metadata, shapes = metadata_and_shapes(CONFIGS["deepseek_v3"])
    said = {key.removeprefix("deepseek2."): value for key, value in metadata.items()}
    assert [said[f"attention.{key}"] for key in ("key_length", "value_length", "head_count_kv")] == [40, 32, 1]
    assert (said["attention.key_length_mla"], said["attention.value_length_mla"]) == (24, 32)
    assert said["rope.scaling.yarn_log_multiplier"] == float(np.float32(0.1))
    assert (said["expert_gating_func"], said["expert_weights_norm"], said["leading_dense_block_count"]) == (2, True, 1)
    assert shapes["blk.1.attn_k_b.weight"] == (4, 32, 16) and shapes["blk.1.attn_v_b.weight"] == (4, 32, 32)
    assert shapes["blk.1.ffn_down_exps.weight"] == (8, 32, 32) and shapes["blk.1.exp_probs_b.bias"] == (8,)
    assert "blk.0.ffn_gate_inp.weight" not in shapes and "blk.1.ffn_gate_inp.weight" in shapes


def test_the_keys_part_of_kv_b_is_transposed_and_the_values_part_is_not():
    config = CONFIGS["deepseek_v3"]
    kv_b = np.arange(4 * 48 * 32, dtype=np.float32).reshape(192, 32)
    k_b, v_b = (
        to_gguf_layout(f"blk.0.attn_{part}_b.weight", "layers.0.attn.kv_b.weight", kv_b, config, "deepseek2")
        for part in "kv"
    )
    assert k_b[1, 5, 7] == kv_b[48 + 7, 5] and v_b[1, 7, 5] == kv_b[48 + 16 + 7, 5]


def write(path, config, metadata, tensors):
    """A GGUF of `tensors`, which are by its own names."""
    blocks = {name: BlockTensor(BY_NAME["F32"], a.shape, lambda a=a: a) for name, a in tensors.items()}
    write_gguf(path, metadata, blocks)
    return open_model(path)


def test_an_older_file_of_deepseek_has_kv_b_whole(tmp_path):
    config = CONFIGS["deepseek_v2"].model_copy(update={"n_layers": 2})
    metadata, weights = config_to_gguf(config), families.random_weights(config)
    for key in ("key_length", "value_length"):
        metadata[f"deepseek2.attention.{key}"] = metadata.pop(f"deepseek2.attention.{key}_mla")
    metadata["deepseek2.attention.head_count_kv"] = 4
    tensors = {name: weights[tensor.ours] for name, tensor in gguf_tensors(config, whole_kv_b=True).items()}
    made = write(tmp_path / "m.gguf", config, metadata, tensors)
    assert made.config == config
    assert all(np.array_equal(made.read(ours), array) for ours, array in weights.items())
    assert made.stored("layers.1.attn.kv_b.weight")[1].shape == (192, 32 * 4)


def test_mtp_modules_are_read_and_not_written(tmp_path):
    config = CONFIGS["deepseek_v3"].model_copy(update={"mtp": MTP(n_modules=1)})
    weights = families.random_weights(config)
    metadata = config_to_gguf(config)
    assert "deepseek2.nextn_predict_layers" not in metadata and metadata["deepseek2.block_count"] == 3
    tensors = {
        name: to_gguf_layout(name, tensor.ours, weights[tensor.ours], config, "deepseek2")
        for name, tensor in gguf_tensors(config).items()
    }
    assert tensors["blk.3.nextn.eh_proj.weight"].shape == (32, 64)
    tensors["blk.3.nextn.embed_tokens.weight"] = weights["embed.weight"]
    metadata |= {"deepseek2.nextn_predict_layers": 1, "deepseek2.block_count": 4}
    made = write(tmp_path / "m.gguf", config, metadata, tensors)
    assert made.config == config
    assert all(np.array_equal(made.read(ours), array) for ours, array in weights.items())


def test_rows_of_a_stack_are_read_alone_and_stored_one_matrix_after_another(tmp_path):
    families.write_folder(tmp_path / "hf", CONFIGS["qwen3_moe"])
    files = open_model(tmp_path / "hf")
    write_gguf(tmp_path / "m.gguf", *gguf_contents(WeightsOnDemand(files), files, "q8_0"))
    made = open_model(tmp_path / "m.gguf")
    stack = made.read("layers.2.mlp.experts.up")
    assert np.array_equal(made.read_rows("layers.2.mlp.experts.up", 64, 32), stack[2])
    name, rows = made.stored("layers.2.mlp.experts.up")
    assert (name, rows.shape) == ("Q8_0", (8 * 32, 34))
    assert made.stored("layers.2.mlp.router.weight")[0] == "F32"


def test_more_bits_go_to_the_down_projections_of_experts_too():
    chosen = tensor_formats(families.small_configs(256)["qwen3_moe"], "q4_k")
    formats = {name: kind.name for name, kind in chosen.items()}
    assert [formats[f"layers.{layer}.mlp.experts.down"] for layer in range(3)] == ["Q4_K", "Q4_K", "Q6_K"]
    assert formats["layers.2.mlp.experts.up"] == "Q4_K" and formats["layers.2.mlp.router.weight"] == "F32"


@pytest.mark.parametrize(
    ("name", "put", "words"),
    [
        ("qwen3_moe", {"expert_used_count": 9}, "9 experts cannot be chosen from 8"),
        ("qwen3_moe", {"expert_used_count": 0}, "qwen3moe.expert_used_count is 0"),
        ("qwen3_moe", {"expert_count": 0}, "qwen3moe.expert_count is 0"),
        ("qwen3_moe", {"expert_count": ...}, "qwen3moe.expert_count is None"),
        ("qwen3_moe", {"expert_feed_forward_length": -1}, "expert_feed_forward_length is -1"),
        ("qwen3_moe", {"expert_gating_func": 2}, "qwen3moe.expert_gating_func 2"),
        ("qwen3_moe", {"expert_weights_norm": False}, "qwen3moe.expert_weights_norm False"),
        ("qwen3", {"attention.head_count": 0}, "qwen3.attention.head_count is 0"),
        ("qwen3", {"attention.head_count_kv": 3}, "n_kv_heads=3"),
        ("qwen3", {"attention.key_length": 15, "attention.value_length": 15, "rope.dimension_count": 15}, "head_dim"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "gemma3.final_logit_softcapping 30.0"),
        ("gemma3", {"attention.sliding_window_pattern": [True, False]}, "sliding_window_pattern is [True, False]"),
        ("gemma3", {"rope.freq_base_swa": 0.0}, "gemma3.rope.freq_base_swa is 0.0"),
        ("deepseek_v3", {"expert_group_count": 3}, "8 experts do not make 3 equal groups"),
        ("deepseek_v3", {"expert_group_used_count": 5}, "5 of 4 groups"),
        ("deepseek_v3", {"expert_gating_func": 3}, "deepseek2.expert_gating_func 3"),
        ("deepseek_v3", {"attention.key_length": 41}, "deepseek2.attention.key_length 41"),
        ("deepseek_v3", {"attention.key_length_mla": 8}, "not longer than rope.dimension_count 8"),
        ("deepseek_v3", {"attention.kv_lora_rank": 0}, "deepseek2.attention.kv_lora_rank is 0"),
        ("deepseek_v3", {"attention.head_count_kv": 2}, "deepseek2.attention.head_count_kv 2"),
        ("deepseek_v3", {"rope.dimension_count": ...}, "deepseek2.rope.dimension_count is None"),
        ("deepseek_v3", {"rope.scaling.yarn_log_multiplier": ...}, "yarn_log_multiplier"),
        ("deepseek_v3", {"feed_forward_length": "x"}, "inter_dim"),
        ("deepseek_v3", {"nextn_predict_layers": 3}, "deepseek2.nextn_predict_layers 3"),
        ("deepseek_v3", {"block_count": 1 << 40}, "layers are more than"),
        ("deepseek_v3", {"attention.indexer.top_k": 4}, "keys deepseek2.attention.indexer.top_k"),
        ("hunyuan_moe", {"expert_shared_feed_forward_length": 64}, "expert_shared_feed_forward_length 64"),
        ("hunyuan_moe", {"expert_shared_count": 2}, "hunyuan-moe.expert_shared_count 2"),
        ("yarn", {"rope.scaling.factor": 0.5}, "factor"),
        ("yarn", {"rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor 0.5"),
    ],
)  # fmt: skip
def test_metadata_that_make_no_model_are_named(name, put, words):
    metadata, shapes = metadata_and_shapes(CONFIGS[name])
    for key, value in put.items():
        metadata[f"{metadata['general.architecture']}.{key}"] = value
    with pytest.raises(UserError) as caught:
        config_from_gguf({key: value for key, value in metadata.items() if value is not ...}, shapes, "here")
    assert words in str(caught.value) and str(caught.value).startswith("here: ")


@pytest.mark.parametrize(
    ("put", "words"),
    [
        ({"blk.1.ffn_up_exps.weight": ...}, "missing: blk.1.ffn_up_exps.weight"),
        ({"blk.1.ffn_up_exps.weight": (1 << 40, 32, 32)}, "blk.1.ffn_up_exps.weight has the shape"),
        ({"blk.1.ffn_up_exps.weight": (8, 32)}, "blk.1.ffn_up_exps.weight has the shape [8, 32]"),
        ({"blk.1.attn_k_b.weight": (4, 16, 32)}, "[4, 16, 32], but the config calls for [4, 32, 16]"),
        ({"blk.2.exp_probs_b.bias": ...}, "missing: blk.2.exp_probs_b.bias"),
        ({"blk.1.ffn_gate_up_exps.weight": (8, 64, 32)}, "surplus: blk.1.ffn_gate_up_exps.weight"),
        ({"blk.0.attn_kv_b.weight": (192, 32)}, "attn_k_b.weight"),
    ],
)
def test_tensors_that_are_not_the_models_are_named(put, words):
    metadata, shapes = metadata_and_shapes(CONFIGS["deepseek_v3"])
    found = {name: shape for name, shape in (shapes | put).items() if shape is not ...}
    config = config_from_gguf(metadata, found, "here")
    with pytest.raises(UserError) as caught:
        check_tensors(config, GGUF, found, "here")
    assert words in str(caught.value)


def test_a_file_without_an_embedding_is_refused_by_that_name():
    metadata, shapes = metadata_and_shapes(CONFIGS["llama"])
    del shapes["token_embd.weight"]
    with pytest.raises(UserError, match=r"token_embd\.weight is missing"):
        config_from_gguf(metadata, shapes, "here")


@pytest.mark.parametrize(
    ("factor", "low", "high", "length"), [(8, 1, 4, 8192), (32, 1, 4, 8192), (16, 1, 6, 4096), (4, 2, 8, 16384)]
)
def test_the_factors_of_llama_3_1_give_their_settings_back(factor, low, high, length):
    """The last means the same as 1, 4 and 8192: only what multiplies all three is lost."""
    scaling = Llama3(factor=factor, low_freq_factor=low, high_freq_factor=high, original_max_seq_len=length)
    made = rope_factors(128, 5e5, scaling)
    found = Llama3(**llama3_from_factors(made, 128, 5e5, "here"))
    plain = Llama3(factor=factor, low_freq_factor=1, high_freq_factor=high / low, original_max_seq_len=length // low)
    assert found == plain and np.allclose(frequencies(128, 5e5, found), frequencies(128, 5e5, scaling), rtol=1e-6)


@pytest.mark.parametrize("factors", [[2.0] * 8, [1.0] * 7 + [np.nan], [1.0] * 9, [8.0] + [1.0] * 7, [0.5] * 8])
def test_factors_that_no_scaling_makes_are_refused(factors):
    with pytest.raises(UserError, match=r"here: rope_freqs\.weight"):
        llama3_from_factors(np.array(factors, np.float32), 16, 1e4, "here")


def test_factors_of_one_are_no_scaling():
    assert llama3_from_factors(np.ones(8, np.float32), 16, 1e4, "here") is None


def test_factors_as_large_as_a_file_are_not_read(tmp_path, tiny_gguf):
    (tmp_path / "m.gguf").write_bytes(tiny_gguf().tensor("rope_freqs.weight", np.ones((64, 128))).build())
    with pytest.raises(UserError, match=r"rope_freqs\.weight has the shape \[64, 128\]"):
        open_model(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("llama", {"rope_scaling": DynamicNTK(factor=2, original_max_seq_len=64)}, "rope_scaling"),
        ("qwen3", {"post_norms": True}, "post_norms True would be read as False"),
        ("gemma3", {"embed_scale": 2.0}, "embed_scale 2.0 would be read as"),
        ("deepseek_v3", {"rope_interleaved": False}, "rope_interleaved False would be read as True"),
    ],
)
def test_a_model_no_architecture_can_say_is_refused_with_what_is_in_the_way(name, change, words):
    with pytest.raises(UserError, match=r"a GGUF of this .* model is not implemented") as caught:
        config_to_gguf(ModelConfig.model_validate(CONFIGS[name].model_copy(update=change).model_dump()))
    assert words in str(caught.value)


@each_family
def test_every_tensor_of_ours_has_a_place(name):
    config = CONFIGS[name]
    assert {tensor.ours for tensor in gguf_tensors(config).values()} == set(tensor_shapes(config))


def test_gguf_py_reads_the_same(tmp_path):
    gguf = pytest.importorskip("gguf")
    for name in ("deepseek_v3", "gemma3", "llama 3.1", "qwen3_moe"):
        families.write_folder(tmp_path / name, CONFIGS[name])
        files, path = open_model(tmp_path / name), tmp_path / f"{name}.gguf"
        write_gguf(path, *gguf_contents(WeightsOnDemand(files), files, "q8_0"))
        read, ours = gguf.GGUFReader(path), open_gguf(path)
        architecture = ours.metadata["general.architecture"]
        kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
        known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[kind]}
        for tensor in read.tensors:
            stem = ".".join("{bid}" if part.isdigit() else part for part in tensor.name.split(".")[:-1])
            assert stem in known, tensor.name
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(values.reshape(ours.tensors[tensor.name].shape), ours.read(tensor.name)), tensor.name
        assert len(read.tensors) == len(ours.tensors)
