"""Every family against transformers: small random models of odd shapes, both ways, in value and gradient."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import save_file
from transformers.cache_utils import DynamicCache
from transformers.modeling_layers import MtpModel

from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.torch_runner import TorchRunner
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import MTP
from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.load import load_transformer, open_model
from smallpress.weights.names_hf import config_from_hf
from smallpress.weights.names_tensors import hf_tensors
from smallpress.weights.safetensors import open_safetensors
from smallpress.weights.safetensors_writer import write_safetensors

LOGITS = 1e-4
"""Of logits of about 1 to 10, in fp32, summed in other orders."""
IN_BF16 = 0.03
"""Of the logits' spread, by weights, activations and keys rounded to bf16."""
GRADIENTS = 1e-3
"""Length of the difference over the length of the gradient, tensor by tensor."""

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
MLA = {
    "q_lora_rank": 24, "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
V3 = SIZES | MLA | {
    "n_routed_experts": 16, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "num_nextn_predict_layers": 0,
}  # fmt: skip
V2 = SIZES | MLA | {"n_routed_experts": 8, "num_experts_per_tok": 3, "routed_scaling_factor": 1.5}
QWEN3_MOE = SIZES | {"head_dim": 8, "moe_intermediate_size": 20, "num_experts": 8, "num_experts_per_tok": 3}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
ODD = {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 30, "head_dim": 10, "intermediate_size": 37}
"""Six heads of ten over a width of thirty."""
MSCALES = YARN | {"mscale": 0.707, "mscale_all_dim": 0.9, "beta_fast": 16, "beta_slow": 2}
GEMMA = SIZES | {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 16, "num_hidden_layers": 7}

MODELS = {
    "llama, six heads of ten": tf.LlamaConfig(**SIZES | ODD),
    "llama, llama3 rope": tf.LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "llama, linear rope": tf.LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    "llama, yarn": tf.LlamaConfig(**SIZES, rope_parameters=YARN),
    "llama, dynamic ntk": tf.LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    ),
    "mistral, windowed": tf.MistralConfig(**SIZES, sliding_window=5, head_dim=8),
    "qwen2, upper layers windowed": tf.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen2, yarn with a given gain": tf.Qwen2Config(**SIZES, rope_parameters=YARN | {"attention_factor": 1.25}),
    "qwen3": tf.Qwen3Config(**SIZES, head_dim=16),
    "qwen3, tied, six heads of ten, biases": tf.Qwen3Config(
        **SIZES | ODD, tie_word_embeddings=True, attention_bias=True
    ),
    "qwen3_moe": tf.Qwen3MoeConfig(**QWEN3_MOE, norm_topk_prob=True),
    "qwen3_moe, sums kept, one dense layer": tf.Qwen3MoeConfig(**QWEN3_MOE, mlp_only_layers=[1], sliding_window=None),
    "qwen3_moe, one expert": tf.Qwen3MoeConfig(**QWEN3_MOE | {"num_experts": 1, "num_experts_per_tok": 1}),
    "qwen3_moe, all experts": tf.Qwen3MoeConfig(**QWEN3_MOE | {"num_experts_per_tok": 8}, decoder_sparse_step=2),
    "gemma3": tf.Gemma3TextConfig(**GEMMA),
    "gemma3, another scale, linear rope": tf.Gemma3TextConfig(
        **GEMMA | {"query_pre_attn_scalar": 9, "sliding_window_pattern": 2, "tie_word_embeddings": False},
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
        },
    ),
    "hunyuan dense": tf.HunYuanDenseV1Config(**SIZES, head_dim=8),
    "hunyuan dense, tied, alpha": tf.HunYuanDenseV1Config(
        **SIZES,
        head_dim=16,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "dynamic", "alpha": 1000.0, "factor": 2.0, "rope_theta": 1e4},
    ),
    "hunyuan moe": tf.HunYuanMoEV1Config(**SIZES, head_dim=8, num_experts=6, moe_topk=2),
    "hunyuan moe, one expert": tf.HunYuanMoEV1Config(**SIZES, head_dim=8, num_experts=1, moe_topk=1),
    "deepseek_v2": tf.DeepseekV2Config(**V2),
    "deepseek_v2, groups, no q lora, yarn": tf.DeepseekV2Config(
        **V2 | {"q_lora_rank": None, "n_shared_experts": 2},
        topk_method="group_limited_greedy",
        n_group=4,
        topk_group=2,
        rope_parameters=MSCALES,
    ),
    "deepseek_v3": tf.DeepseekV3Config(**V3),
    "deepseek_v3, no q lora, yarn, biases": tf.DeepseekV3Config(
        **V3 | {"q_lora_rank": None, "attention_bias": True}, rope_parameters=MSCALES
    ),
    "deepseek_v3, halves, sums kept, two dense": tf.DeepseekV3Config(
        **V3 | {"first_k_dense_replace": 2}, rope_interleave=False, norm_topk_prob=False, tie_word_embeddings=True
    ),
    "deepseek_v3, all experts, none dense": tf.DeepseekV3Config(
        **V3 | {"num_experts_per_tok": 8, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 0}
    ),
    "deepseek_v3, one group, three heads": tf.DeepseekV3Config(
        **V3 | {"n_group": 1, "topk_group": 1, "num_attention_heads": 3, "num_key_value_heads": 3}
    ),
}
IDS = [1, 5, 9, 60, 33, 33, 2, 47, 18, 7, 5, 9, 40, 41]


def random_model(config):
    """With weights large enough that every part of it shows in the logits: biases and norms are not left at 0 and 1."""
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    norm = 0.0 if config.model_type == "gemma3_text" else 1.0
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name:
                tensor.copy_(norm + 0.3 * noise)
            elif "inv_freq" not in name and "embed_scale" not in name:
                tensor.copy_(0.2 * noise)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder transformers saves for each of MODELS, with the model."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("theirs"), random_model(MODELS[name])
            made[name][1].save_pretrained(made[name][0])
        return made[name]

    return get


def our_logits(model, ids):
    window = model.config.attention.window
    attend = PackedCausal(TokenTree((Group(len(ids)),)), model.head_weight.dtype, window=window)
    return model.logits(model(torch.tensor(ids), torch.arange(len(ids)), attend))


def their_logits(model, ids):
    return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_their_folder_gives_the_same_logits_through_us(folders, name):
    folder, theirs = folders(name)
    ours = load_transformer(folder)
    wanted = their_logits(theirs, IDS)
    assert wanted.std() > 0.1
    torch.testing.assert_close(our_logits(ours, IDS), wanted, atol=LOGITS, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_every_weight_is_theirs(folders, name):
    folder, theirs = folders(name)
    ours = load_transformer(folder)
    cotangent = torch.randn(len(IDS), 61, generator=torch.Generator().manual_seed(1))
    (our_logits(ours, IDS) * cotangent).sum().backward()
    theirs.zero_grad()
    (their_logits(theirs, IDS) * cotangent).sum().backward()
    wanted = dict(unfused({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}))
    mine = {name: p.grad for name, p in ours.named_parameters()}
    for theirs_name, tensor in hf_tensors(ours.config, ours.config.family).items():
        if theirs_name.endswith("e_score_correction_bias"):
            continue
        parts = [rows(mine[piece.name])[piece.first : piece.first + piece.n_rows] for piece in tensor.pieces]
        gap = (torch.cat(parts) - wanted[theirs_name]).norm() / wanted[theirs_name].norm().clamp(min=1e-6)
        assert gap < GRADIENTS, f"{theirs_name}: {gap}"


def rows(tensor):
    return tensor.flatten(0, -2) if tensor.ndim > 1 else tensor


def unfused(gradients):
    """Under the names of the file: transformers keeps the experts of a layer in two tensors."""
    for name, gradient in gradients.items():
        stem, _, what = name.rpartition(".")
        if what == "gate_up_proj":
            for expert, both in enumerate(gradient):
                for part, half in zip(("gate_proj", "up_proj"), both.chunk(2), strict=True):
                    yield f"{stem}.{expert}.{part}.weight", half
        elif what == "down_proj" and stem.endswith("experts"):
            for expert, down in enumerate(gradient):
                yield f"{stem}.{expert}.down_proj.weight", down
        else:
            yield name, gradient


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_our_folder_gives_the_same_logits_through_them(folders, name, tmp_path, fake_tokenizer):
    folder, theirs = folders(name)
    files = fake_tokenizer(open_model(folder))
    saved = save_hf_folder(tmp_path / "ours", WeightsOnDemand(files), files)
    again, report = tf.AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert type(again) is type(theirs)
    torch.testing.assert_close(their_logits(again, IDS), their_logits(theirs, IDS), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_settings_survive_the_way_out_and_back(folders, name, tmp_path, fake_tokenizer):
    files = fake_tokenizer(open_model(folders(name)[0]))
    saved = save_hf_folder(tmp_path / "ours", WeightsOnDemand(files), files)
    assert open_model(saved).config == files.config
    assert files.config.family == MODELS[name].model_type


@pytest.mark.parametrize("name", ["deepseek_v3", "gemma3"])
def test_a_model_in_torch_is_written_as_it_stands(folders, name, tmp_path, fake_tokenizer):
    folder, theirs = folders(name)
    files = fake_tokenizer(open_model(folder))
    named = dict(load_transformer(folder).named_parameters())
    again = tf.AutoModelForCausalLM.from_pretrained(save_hf_folder(tmp_path / "ours", named, files))
    with torch.no_grad():
        torch.testing.assert_close(their_logits(again, IDS), their_logits(theirs, IDS), atol=1e-6, rtol=1e-6)


def test_mtp_that_is_declared_and_not_there_is_none():
    settings = MODELS["deepseek_v3"].to_dict() | {"num_nextn_predict_layers": 1}
    assert config_from_hf(settings, (), "here").mtp is None


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_moe"])
def test_their_shards_are_one_model(folders, name, tmp_path):
    folder, theirs = folders(name)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    whole, parts = load_transformer(folder), load_transformer(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


N_GREEDY = 24


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_says_what_their_greedy_search_says(folders, name):
    """Through pages and windows, from cached latents."""
    folder, theirs = folders(name)
    prompt = torch.tensor([IDS])
    said = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=N_GREEDY, eos_token_id=-1
    )[0].tolist()
    engine = Engine(TorchRunner(load_transformer(folder), page_size=4, n_pages=16, dtype=torch.float32))
    (completion,) = engine.generate([Request(tuple(IDS), SamplingParams(max_tokens=N_GREEDY, temperature=0.0))])
    assert list(completion.ids) == said[len(IDS) :]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_native_core_gives_the_same_logits_in_bf16(folders, name):
    """Row by row, at their middle: a close choice between experts may fall otherwise in a few."""
    folder, theirs = folders(name)
    ids, place = IDS * 2, np.arange(2 * len(IDS))
    core = NativeRunner.from_files(open_model(folder), "bfloat16", page_size=4, n_pages=7).core
    core.forward(np.array(ids), place, np.arange(7), np.zeros_like(place), place)
    wanted = their_logits(theirs, ids).numpy()
    gaps = np.sqrt(((core.logits() - wanted) ** 2).mean(-1)) / wanted.std()
    assert np.median(gaps) < IN_BF16


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v2, groups, no q lora, yarn", "qwen3_moe", "gemma3"])
@pytest.mark.parametrize("packing", ["stored", "int8"])
def test_a_folder_gives_the_core_what_its_arrays_give(folders, name, packing):
    files, place = open_model(folders(name)[0]), np.arange(len(IDS))
    found = []
    for runner in (
        NativeRunner.from_files(files, packing, page_size=4, n_pages=4),
        NativeRunner(files.config, dict(files.tensors()), page_size=4, n_pages=4, packing="int8"),
    ):
        runner.core.forward(np.array(IDS), place, place[:4], np.zeros_like(place), place)
        found.append(runner.core.logits())
    assert np.array_equal(*found)


@torch.no_grad()
def test_dynamic_ntk_beyond_its_length_is_theirs_token_by_token(folders):
    """At once they would turn every key by the base of the last; a cache keeps each by that of its own place."""
    folder, theirs = folders("llama, dynamic ntk")
    ours = load_transformer(folder)
    assert ours.config.max_seq_len == 256
    ids = (IDS * 11)[:150]
    cache, logits = None, []
    for id in ids:
        step = theirs(torch.tensor([[id]]), past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        logits.append(step.logits[0, -1])
    torch.testing.assert_close(our_logits(ours, ids), torch.stack(logits), atol=5 * LOGITS, rtol=0)
    place = np.arange(150)
    core = NativeRunner.from_files(open_model(folder), "bfloat16", page_size=16, n_pages=10).core
    core.forward(np.array(ids), place, place[:10], np.zeros_like(place), place[140:])
    gap = core.logits() - torch.stack(logits[140:]).numpy()
    assert np.sqrt((gap**2).mean()) < IN_BF16 * core.logits().std()


def with_mtp(folder, theirs):
    """Their folder with a random MTP module written in, as released checkpoints have it; and theirs, run by them."""
    config = copy.deepcopy(theirs.config)
    config.num_nextn_predict_layers = 1
    mtp = MtpModel(theirs, 1)
    generator = torch.Generator().manual_seed(3)
    state = {name: torch.randn(t.shape, generator=generator) * 0.2 for name, t in mtp.layers.state_dict().items()}
    mtp.layers.load_state_dict(state)
    stored = open_safetensors(folder / "model.safetensors")
    tensors = {name: stored.read(name) for name in stored.tensors}
    layer = f"model.layers.{config.num_hidden_layers}"
    for name, tensor in unfused({name.removeprefix("0."): t for name, t in state.items()}):
        theirs_name = name.removeprefix("mtp_block.").replace("post_norm", "shared_head.norm")
        tensors[f"{layer}.{theirs_name}"] = tensor.numpy()
    tensors[f"{layer}.embed_tokens.weight"] = tensors["model.embed_tokens.weight"]
    tensors[f"{layer}.shared_head.head.weight"] = tensors["lm_head.weight"]
    return config.to_dict(), tensors, mtp


@torch.no_grad()
def test_mtp_is_read_kept_and_written(folders, tmp_path, fake_tokenizer):
    folder, theirs = folders("deepseek_v3")
    settings, tensors, mtp = with_mtp(folder, theirs)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    write_safetensors(tmp_path / "model.safetensors", tensors)
    ours = load_transformer(tmp_path)
    assert ours.config.mtp == MTP(n_modules=1)
    torch.testing.assert_close(our_logits(ours, IDS), their_logits(theirs, IDS), atol=LOGITS, rtol=0)

    ids, here = torch.tensor(IDS), torch.arange(len(IDS) - 1)
    attend = PackedCausal(TokenTree((Group(len(IDS) - 1),)))
    hidden = ours(ids[:-1], here, attend)
    further = ours.predict_further(0, hidden, ids[1:], here + 1, attend)
    last = theirs.model(ids[None, :-1]).last_hidden_state
    wanted = mtp.forward_layer(0, last, (here + 1)[None], DynamicCache(config=theirs.config), input_ids=ids[None, 1:])
    torch.testing.assert_close(further, wanted[0], atol=LOGITS, rtol=0)
    torch.testing.assert_close(ours.logits(further), theirs.lm_head(wanted)[0], atol=LOGITS, rtol=0)

    files = fake_tokenizer(open_model(tmp_path))
    saved = save_hf_folder(tmp_path / "ours", WeightsOnDemand(files), files)
    again = open_safetensors(saved / "model.safetensors")
    assert set(again.tensors) == set(tensors)
    assert all(np.array_equal(again.read(name), tensors[name]) for name in tensors)
    assert open_model(saved).config == ours.config


@torch.no_grad()
def test_fp8_checkpoints_are_dequantized_on_load(folders, tmp_path):
    """Weights rounded to E4M3 in blocks of 16 x 8, some cut, against their values computed by torch."""
    folder, theirs = folders("deepseek_v3, no q lora, yarn, biases")
    stored = open_safetensors(folder / "model.safetensors")
    dense, packed = {}, {}
    for name in stored.tensors:
        weight = torch.from_numpy(stored.read(name))
        if weight.ndim < 2 or "embed" in name or "lm_head" in name or "mlp.gate." in name:
            packed[name] = dense[name] = weight
            continue
        n_out, n_in = weight.shape
        padded = torch.nn.functional.pad(weight, (0, -n_in % 8, 0, -n_out % 16))
        blocks = padded.unflatten(1, (-1, 8)).unflatten(0, (-1, 16))  # [rows, 16, columns, 8]
        scales = blocks.abs().amax((1, 3)).clamp(min=1e-9) / 448
        codes = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
        whole = (codes.float() * scales[:, None, :, None]).flatten(2).flatten(0, 1)
        dense[name] = whole[:n_out, :n_in].contiguous()
        packed[name] = codes.view(torch.uint8).flatten(2).flatten(0, 1)[:n_out, :n_in].contiguous()
        packed[name] = packed[name].view(torch.float8_e4m3fn)
        packed[name + "_scale_inv"] = scales
    save_file(packed, tmp_path / "model.safetensors")
    settings = theirs.config.to_dict()
    settings["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 8]}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    files = open_model(tmp_path)
    pieces = hf_tensors(files.config, "deepseek_v3")
    for name, weight in dense.items():
        parts = [rows(torch.from_numpy(files.read(p.name)))[p.first : p.first + p.n_rows] for p in pieces[name].pieces]
        assert torch.equal(torch.cat(parts), weight), name
