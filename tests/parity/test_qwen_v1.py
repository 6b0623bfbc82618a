"""The first Qwen, which transformers lacks, against its published formula written down in numpy."""

import json

import numpy as np
import pytest
import torch

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.run.errors import UserError
from smallpress.weights.export import WeightsOnDemand, save_hf_folder
from smallpress.weights.load import load_transformer, open_model
from smallpress.weights.safetensors_writer import write_safetensors

SETTINGS = {
    "architectures": ["QWenLMHeadModel"], "model_type": "qwen", "vocab_size": 53, "hidden_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 3, "kv_channels": 8, "intermediate_size": 44,
    "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000, "rotary_pct": 1.0, "seq_length": 32,
    "max_position_embeddings": 64, "no_bias": True, "tie_word_embeddings": False, "use_dynamic_ntk": True,
    "use_logn_attn": True, "use_flash_attn": "auto", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
IDS = [1, 5, 9, 50, 33, 33, 2, 47, 18, 7]
LOGITS = 1e-4


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"transformer.wte.weight": (53, 24), "transformer.ln_f.weight": (24,), "lm_head.weight": (53, 24)}
    for layer in range(2):
        of_layer = {
            "ln_1.weight": (24,), "attn.c_attn.weight": (72, 24), "attn.c_attn.bias": (72,),
            "attn.c_proj.weight": (24, 24), "ln_2.weight": (24,), "mlp.w1.weight": (22, 24), "mlp.w2.weight": (22, 24),
            "mlp.c_proj.weight": (24, 22),
        }  # fmt: skip
        shapes |= {f"transformer.h.{layer}.{name}": shape for name, shape in of_layer.items()}
    return {name: (rng.normal(size=shape) * 0.3 + ("ln_" in name)).astype(np.float32) for name, shape in shapes.items()}


def reference(tensors, ids):
    """[T, V] in fp64: RMS norms, one product for q, k and v, halves of a head rotated, w1 x * silu(w2 x)."""
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def norm(x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * w[name]

    def rotated(x_THD):
        turn = np.arange(len(x_THD))[:, None] * 10000.0 ** -(np.arange(0, 8, 2) / 8)
        cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
        left, right = x_THD[..., :4], x_THD[..., 4:]
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)

    x, T = w["transformer.wte.weight"][ids], len(ids)
    for layer in range(2):
        h = f"transformer.h.{layer}."
        qkv = norm(x, h + "ln_1.weight") @ w[h + "attn.c_attn.weight"].T + w[h + "attn.c_attn.bias"]
        q, k, v = (part.reshape(T, 3, 8) for part in np.split(qkv, 3, axis=-1))
        scores = np.einsum("thd,shd->hts", rotated(q), rotated(k)) / np.sqrt(8)
        scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hts,shd->thd", odds / odds.sum(-1, keepdims=True), v).reshape(T, 24)
        x = x + mixed @ w[h + "attn.c_proj.weight"].T
        y = norm(x, h + "ln_2.weight")
        gate = y @ w[h + "mlp.w2.weight"].T
        x = x + (y @ w[h + "mlp.w1.weight"].T * gate / (1 + np.exp(-gate))) @ w[h + "mlp.c_proj.weight"].T
    return norm(x, "transformer.ln_f.weight") @ w["lm_head.weight"].T


@pytest.fixture
def folder(tmp_path, tensors):
    def write(**changes):
        path = tmp_path / "theirs"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps(SETTINGS | changes))
        write_safetensors(path / "model.safetensors", tensors)
        return path

    return write


def test_the_folder_gives_the_logits_of_the_formula(folder, tensors):
    model = load_transformer(folder())
    assert model.config.ffn.inter_dim == 22 and model.config.max_seq_len == 32
    with torch.no_grad():
        attend = PackedCausal(TokenTree((Group(len(IDS)),)))
        logits = model.logits(model(torch.tensor(IDS), torch.arange(len(IDS)), attend))
    wanted = torch.from_numpy(reference(tensors, IDS))
    assert wanted.std() > 0.5
    torch.testing.assert_close(logits.double(), wanted, atol=LOGITS, rtol=0)


def test_it_is_written_as_the_qwen2_it_is_equal_to(folder, tensors, tmp_path, fake_tokenizer):
    from transformers import Qwen2ForCausalLM

    files = fake_tokenizer(open_model(folder()))
    saved = save_hf_folder(tmp_path / "ours", WeightsOnDemand(files), files)
    again, report = Qwen2ForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        logits = again(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(logits.double(), torch.from_numpy(reference(tensors, IDS)), atol=LOGITS, rtol=0)


def test_an_odd_width_and_a_partial_rotation_are_refused(folder):
    with pytest.raises(UserError, match="intermediate_size 43"):
        open_model(folder(intermediate_size=43))
    with pytest.raises(UserError, match="rotary_pct"):
        open_model(folder(rotary_pct=0.5))


def test_the_rows_of_the_fused_tensor_are_those_stored(folder, tensors):
    files = open_model(folder())
    fused = tensors["transformer.h.1.attn.c_attn.weight"]
    assert np.array_equal(files.read("layers.1.attn.k.weight"), fused[24:48])
    kind, raw = files.stored("layers.1.attn.v.weight")
    assert kind == "F32" and np.array_equal(raw.view(np.float32).reshape(24, 24), fused[48:])
