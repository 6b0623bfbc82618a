"""Released models' settings, and folders whose tensors are in pieces: what is missing, surplus or broken is named."""

import json
import tracemalloc

import numpy as np
import pytest

from smallpress.model.config import GQA, MLA, FixedNTK, Linear, Llama3, MoE, Window, Yarn
from smallpress.model.sizes import parameters
from smallpress.run.errors import UserError
from smallpress.weights.fp8 import E4M3
from smallpress.weights.load import open_model
from smallpress.weights.names import config_to_gguf
from smallpress.weights.names_hf import config_from_hf
from smallpress.weights.names_hf_out import config_to_hf
from smallpress.weights.names_tensors import hf_tensors
from smallpress.weights.safetensors_writer import LazyTensor, write_safetensors

R1 = {
    "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_nextn_predict_layers": 1, "num_attention_heads": 128,
    "num_key_value_heads": 128, "n_shared_experts": 1, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_group": 8,
    "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "first_k_dense_replace": 3, "moe_layer_freq": 1, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 163840, "rms_norm_eps": 1e-6, "rope_theta": 10000, "attention_bias": False,
    "rope_scaling": {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
        "mscale": 1.0, "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": False, "ep_size": 1, "aux_loss_alpha": 0.001, "seq_aux": True,
    "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
    },
}  # fmt: skip
GEMMA3_270M = {
    "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048,
    "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window": 512,
    "_sliding_window_pattern": 6, "query_pre_attn_scalar": 256, "attn_logit_softcapping": None,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
}  # fmt: skip
HUNYUAN_7B = {
    "model_type": "hunyuan_v1_dense", "vocab_size": 128167, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "use_qk_norm": True,
    "use_cla": False, "attention_bias": False, "tie_word_embeddings": True,
    "rope_scaling": {
        "alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        "type": "dynamic",
    },
}  # fmt: skip


def test_deepseek_r1_is_671_billion_parameters_in_the_tensors_of_its_checkpoint():
    config = config_from_hf(R1, ["model.layers.61.eh_proj.weight"], "here")
    found = parameters(config)
    assert (round(found.total / 1e9, 3), round(found.mtp / 1e9, 2)) == (671.026, 11.61)
    names = hf_tensors(config, "deepseek_v3", mtp_copies=True)
    scaled = [n for n, t in names.items() if len(t.shape) == 2 and not n.endswith(UNSCALED)]
    assert len(names) + len(scaled) == 91_991  # every FP8 tensor has its scales beside it
    assert names["model.layers.3.mlp.experts.255.down_proj.weight"].shape == (7168, 2048)
    assert names["model.layers.61.shared_head.head.weight"].shape == (129280, 7168)
    assert config.rope_scaling == Yarn(factor=40, original_max_seq_len=4096, mscale=1.0, mscale_all_dim=1.0)
    assert config.ffn.dense_layers == (0, 1, 2) and config.rope_interleaved


UNSCALED = ("embed_tokens.weight", "head.weight", "mlp.gate.weight", "eh_proj.weight")


def test_gemma_3_270m_is_as_large_as_its_name_says():
    config = config_from_hf(GEMMA3_270M, (), "here")
    assert parameters(config).total == 268_098_176
    layers = tuple(layer for layer in range(18) if layer % 6 != 5)
    assert config.attention.window == Window(length=512, layers=layers, rope_theta=1e4)
    assert config.tied_head and config.attention.scale is None and config.embed_scale == 640**0.5


def test_hunyuan_moves_the_base_once_for_all():
    config = config_from_hf(HUNYUAN_7B, (), "here")
    assert config.rope_scaling == FixedNTK(alpha=1000.0)
    assert config.attention == GQA(n_heads=32, n_kv_heads=8, head_dim=128, qk_norm="after_rope")


@pytest.mark.parametrize(
    ("rope", "scaling"),
    [
        ({"type": "linear", "factor": 4}, Linear(factor=4)),
        (
            {
                "rope_type": "llama3",
                "factor": 32,
                "low_freq_factor": 1,
                "high_freq_factor": 4,
                "original_max_position_embeddings": 16,
            },
            Llama3(factor=32, low_freq_factor=1, high_freq_factor=4, original_max_seq_len=16),
        ),
        ({"type": "yarn", "original_max_position_embeddings": 16}, Yarn(factor=4, original_max_seq_len=16)),
    ],
)
def test_scalings_are_read_in_both_spellings_and_survive_the_way_out(hf_settings, rope, scaling):
    old = config_from_hf(hf_settings(head_dim=4, rope_scaling=rope), (), "here")
    new = config_from_hf(hf_settings(head_dim=4, rope_parameters=rope | {"rope_theta": 1e4}), (), "here")
    assert old == new and old.rope_scaling == scaling
    assert config_from_hf(config_to_hf(old), (), "here") == old


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        (R1, {"scoring_func": "softmax"}, "scoring_func 'softmax'"),
        (R1, {"topk_method": "greedy"}, "topk_method 'greedy'"),
        (R1, {"moe_layer_freq": 2}, "moe_layer_freq 2"),
        (R1, {"n_group": 7}, "256 experts do not make 7"),
        (R1, {"num_experts_per_tok": 200}, "200 experts cannot be chosen"),
        (R1, {"kv_lora_rank": None}, "kv_lora_rank is None"),
        (R1, {"n_shared_experts": -1}, "n_shared_experts is -1"),
        (R1, {"first_k_dense_replace": 1.5}, "first_k_dense_replace is 1.5"),
        (R1, {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, "x"]}}, "quantization_config"),
        (R1, {"quantization_config": {"quant_method": "gptq"}}, "'gptq'"),
        (GEMMA3_270M, {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        (GEMMA3_270M, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        (GEMMA3_270M, {"layer_types": ["full_attention"]}, "layer_types"),
        (GEMMA3_270M, {"layer_types": [[]] * 18}, "layer_types"),
        (GEMMA3_270M, {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}}, "'yarn'"),
        (GEMMA3_270M, {"rope_parameters": {"full_attention": 3}}, "rope_parameters is 3"),
        (HUNYUAN_7B, {"use_cla": True}, "use_cla True"),
        (HUNYUAN_7B, {"model_type": "hunyuan_v1_moe", "num_experts": [4, 8], "moe_topk": 1}, "num_experts [4, 8]"),
        (HUNYUAN_7B, {"model_type": "hunyuan_v1_moe", "moe_intermediate_size": 7}, "moe_intermediate_size 7"),
    ],
)
def test_settings_that_are_not_implemented_are_named(settings, changes, words):
    with pytest.raises(UserError) as caught:
        config_from_hf(settings | changes, (), "here/config.json")
    assert words in str(caught.value) and "here/config.json" in str(caught.value)


def test_layerwise_lists_that_agree_are_one_number():
    settings = HUNYUAN_7B | {"model_type": "hunyuan_v1_moe", "num_experts": 4, "moe_topk": [2] * 32}
    assert config_from_hf(settings, (), "here").ffn.n_active_experts == 2


TINY = R1 | {
    "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "moe_intermediate_size": 6, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 5, "q_lora_rank": 7, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 3, "v_head_dim": 3, "quantization_config": None,
}  # fmt: skip


@pytest.fixture
def tiny_v3(tmp_path):
    """A tiny DeepSeek-V3 with MTP as a folder; `edit` changes its tensors before they are written."""

    def write(edit=lambda tensors: None, **changes):
        settings = TINY | changes
        config = config_from_hf(settings, ["model.layers.2.eh_proj.weight"], "here")
        rng = np.random.default_rng(0)
        shapes = {name: tensor.shape for name, tensor in hf_tensors(config, "deepseek_v3", mtp_copies=True).items()}
        tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        edit(tensors)
        folder = tmp_path / "tiny"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(settings))
        write_safetensors(folder / "model.safetensors", tensors)
        return folder, tensors

    return write


def test_experts_are_stacked_in_their_order_and_rows_can_be_read_alone(tiny_v3):
    folder, tensors = tiny_v3()
    files = open_model(folder)
    assert isinstance(files.config.attention, MLA) and isinstance(files.config.ffn, MoE)
    up = files.read("layers.1.mlp.experts.up")
    wanted = [tensors[f"model.layers.1.mlp.experts.{e}.up_proj.weight"] for e in range(4)]
    assert np.array_equal(up, np.stack(wanted))
    assert np.array_equal(files.read_rows("layers.1.mlp.experts.up", 12, 6), wanted[2])
    assert np.array_equal(files.read_rows("layers.1.mlp.experts.up", 5, 3), np.concatenate(wanted)[5:8])
    kind, raw = files.stored("layers.1.mlp.experts.up")
    assert kind == "F32" and np.array_equal(raw.view(np.float32), np.concatenate(wanted))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("model.layers.1.mlp.experts.3.up_proj.weight", "missing"),
        ("model.layers.2.enorm.weight", "missing"),
        ("model.layers.1.mlp.experts.4.up_proj.weight", "surplus"),
        ("model.layers.3.eh_proj.weight", "surplus"),
        ("model.layers.0.self_attn.q_proj.weight", "surplus"),
    ],
)
def test_a_tensor_missing_or_surplus_is_named(tiny_v3, name, fault):
    def edit(tensors):
        if fault == "missing":
            del tensors[name]
        else:
            tensors[name] = np.zeros((2, 2), np.float32)

    with pytest.raises(UserError, match=f"{fault}: {name.replace('.', '[.]')}"):
        open_model(tiny_v3(edit)[0])


def test_an_experts_wrong_shape_is_named(tiny_v3):
    def edit(tensors):
        tensors["model.layers.1.mlp.experts.2.down_proj.weight"] = np.zeros((8, 5), np.float32)

    with pytest.raises(UserError, match=r"experts\.2\.down_proj\.weight has the shape \[8, 5\].*\[8, 6\]"):
        open_model(tiny_v3(edit)[0])


def test_more_tensors_than_any_model_has_are_refused_before_they_are_counted_out(tiny_v3):
    folder, _ = tiny_v3()
    huge = {"n_routed_experts": 2 << 40, "num_experts_per_tok": 2}
    (folder / "config.json").write_text(json.dumps(TINY | huge))
    with pytest.raises(UserError, match="calls for 13194139533"):
        open_model(folder)


def test_copies_of_embedding_and_head_in_mtp_may_be_left_out(tiny_v3):
    def edit(tensors):
        del tensors["model.layers.2.embed_tokens.weight"], tensors["model.layers.2.shared_head.head.weight"]

    assert open_model(tiny_v3(edit)[0]).config.mtp is not None


def test_loading_holds_one_tensor_and_what_it_is_made_of(tiny_v3):
    folder, _ = tiny_v3(n_routed_experts=64, n_group=1, moe_intermediate_size=256, hidden_size=64)
    files = open_model(folder)
    stack = 64 * 256 * 64 * 4
    tracemalloc.start()
    total = sum(tensor.nbytes for _, tensor in files.tensors())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 6 * stack and peak < 2.2 * stack  # the one before goes when the next is there


def test_a_gguf_of_a_model_it_has_no_words_for_is_refused(odd_model):
    config = odd_model.config
    if config.family == "mistral":
        assert config_to_gguf(config)["llama.attention.sliding_window"] == 6
        return
    if config.family == "hunyuan_v1_moe":
        assert config_to_gguf(config)["hunyuan-moe.expert_count"] == 4
        return
    with pytest.raises(UserError, match="is not implemented"):
        config_to_gguf(config)


def test_what_no_family_can_say_is_not_written_as_one_that_nearly_can(config_of):
    experts = config_of["experts behind norms after rope"]
    kept = experts.ffn.model_copy(update={"routed_scale": 2.0})  # Hunyuan has no such setting
    with pytest.raises(UserError, match="no Hugging Face family"):
        config_to_hf(experts.model_copy(update={"ffn": kept}))


def test_e4m3_is_what_torch_has():
    import torch

    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(E4M3, theirs, equal_nan=True)


FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 4]}}


@pytest.mark.parametrize(
    ("settings", "scales", "says"),
    [
        ({}, (3, 2), "gives no weight_block_size"),
        (FP8, None, "has no scales"),
        (FP8, (2, 2), r"scales of .* have shape \[2, 2\], not \[3, 2\]"),
    ],
)
def test_fp8_without_its_scales_is_refused_by_name(tiny_v3, settings, scales, says):
    name = "model.layers.0.mlp.gate_proj.weight"

    def edit(tensors):
        tensors[name] = LazyTensor("F8_E4M3", (12, 8), lambda: np.zeros((12, 8), np.uint8))
        if scales:
            tensors[name + "_scale_inv"] = np.ones(scales, np.float32)

    folder, _ = tiny_v3(edit, **settings)
    with pytest.raises(UserError, match=says) as caught:
        open_model(folder)
    assert name in str(caught.value)


def test_scales_of_tensors_that_are_not_fp8_are_surplus(tiny_v3):
    def edit(tensors):
        tensors["model.layers.0.mlp.gate_proj.weight_scale_inv"] = np.ones((3, 2), np.float32)

    with pytest.raises(UserError, match=r"surplus: model\.layers\.0\.mlp\.gate_proj\.weight_scale_inv"):
        open_model(tiny_v3(edit, **FP8)[0])
