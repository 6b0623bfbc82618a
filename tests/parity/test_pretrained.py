"""A model made here from nothing is one that transformers loads, and computes alike."""

import pytest
import torch

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import MLA, MTP, Dense, ModelConfig, MoE
from smallpress.tokenizer.made import make_tokenizer
from smallpress.train.pretrain_run import new_model
from smallpress.weights.export import save_hf_folder
from smallpress.weights.load import open_model
from smallpress.weights.unborn import UnbornModel

transformers = pytest.importorskip("transformers")

EXPERTS = {"n_active_experts": 2, "n_shared_experts": 1, "moe_inter_dim": 16, "score": "sigmoid", "expert_bias": True}
SPARSE = MoE(n_routed_experts=8, routed_scale=2.5, dense_layers=(0,), dense=Dense(inter_dim=48), **EXPERTS)
TWIN = MoE(
    n_routed_experts=1, n_active_experts=1, moe_inter_dim=48, score="sigmoid", expert_bias=True,
    dense_layers=(0, 1, 2), dense=Dense(inter_dim=48),
)  # fmt: skip


@pytest.mark.parametrize("ffn", [SPARSE, TWIN], ids=["experts", "dense twin"])
def test_transformers_gives_a_new_models_logits(ffn, tmp_path):
    words = make_tokenizer(["the path to the town by the river"] * 9, 280)
    config = ModelConfig(
        family="deepseek_v3", vocab_size=words.vocab_size, dim=32, n_layers=3, ffn=ffn, mtp=MTP(n_modules=1),
        attention=MLA(
            n_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16
        ),
        norm_eps=1e-6, rope_theta=1e4, rope_interleaved=True, max_seq_len=64,
    )  # fmt: skip
    model = new_model(config, std=0.2, seed=0)
    words.save(tmp_path / "tokenizer")
    files = UnbornModel(config, tmp_path / "tokenizer")
    save_hf_folder(tmp_path / "model", dict(model.named_parameters()), files)
    assert open_model(tmp_path / "model").config == config

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ids_N = torch.tensor([5, 80, 200, 17, 33, 9])
    with torch.no_grad():
        hidden_NM = model(ids_N, torch.arange(6), PackedCausal(TokenTree((Group(6),))))
        torch.testing.assert_close(model.logits(hidden_NM), theirs(ids_N[None]).logits[0], rtol=1e-4, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("the path").input_ids == words.encode("the path")
