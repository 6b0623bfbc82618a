"""Adapters in both directions: ours are loaded by peft, peft's by ours, with the same logits; merging is the same."""

import json
import warnings

import numpy as np
import pytest
import torch

from smallpress.model.attention import Group, TokenTree
from smallpress.model.hidden_rows import hidden_rows
from smallpress.run.errors import UserError
from smallpress.weights.adapter import open_adapter, save_adapter, with_adapter
from smallpress.weights.load import load_transformer, open_model

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
LOGITS = 2e-4


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder of transformers' own making, with weights large enough to tell."""
    folder = tmp_path_factory.mktemp("base")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=64, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def their_logits(model):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(IDS[None]).logits[0]


def our_logits(files):
    model = load_transformer(files)
    with torch.no_grad():
        return model.logits(hidden_rows(model, TokenTree((Group(len(IDS)),)), IDS, torch.arange(len(IDS))))


def plain(base):
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_peft_loads_our_adapter_with_the_same_logits(base, tmp_path, rank_stabilized):
    draw, files = np.random.default_rng(0), open_model(base)
    shapes = {"layers.0.attn.q": (32, 32), "layers.1.mlp.down": (32, 48), "layers.1.attn.v": (16, 32)}
    pairs = {
        name: (draw.normal(0, 0.3, (4, n_in)).astype("f4"), draw.normal(0, 0.3, (n_out, 4)).astype("f4"))
        for name, (n_out, n_in) in shapes.items()
    }
    save_adapter(tmp_path / "a", pairs, files.config, str(base), 6.0, rank_stabilized)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(plain(base), tmp_path / "a")
    ours = our_logits(with_adapter(files, tmp_path / "a"))
    torch.testing.assert_close(ours, their_logits(theirs), atol=LOGITS, rtol=LOGITS)
    assert (ours - our_logits(files)).abs().max() > 0.1


def test_ours_reads_an_adapter_of_peft_with_ranks_of_their_own(base, tmp_path):
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 2},
        alpha_pattern={"up_proj": 5}, init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(plain(base), config)
        theirs.save_pretrained(tmp_path / "a")
    files = with_adapter(open_model(base), tmp_path / "a")
    torch.testing.assert_close(our_logits(files), their_logits(theirs), atol=LOGITS, rtol=LOGITS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = theirs.merge_and_unload().state_dict()
    for name in ("layers.0.attn.q", "layers.1.mlp.up"):
        their_name = name.replace("attn.q", "self_attn.q_proj").replace("mlp.up", "mlp.up_proj")
        np.testing.assert_allclose(files.read(f"{name}.weight"), merged[f"model.{their_name}.weight"], atol=1e-6)
    kind, raw = files.stored("layers.0.attn.q.weight")
    assert kind == "F32" and np.array_equal(raw.view(np.float32), files.read("layers.0.attn.q.weight"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
    ],
)
def test_what_an_adapter_asks_for_and_is_not_done_is_refused(base, tmp_path, change, says):
    pairs = {"layers.0.attn.q": (np.ones((2, 32), "f4"), np.ones((32, 2), "f4"))}
    save_adapter(tmp_path / "a", pairs, open_model(base).config, "x", 2.0, False)
    path = tmp_path / "a/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=says):
        open_adapter(tmp_path / "a", open_model(base).config)


def test_an_adapter_of_another_model_is_refused(base, tmp_path):
    config = open_model(base).config
    for wrong, says in (((32, 8), "do not fit"), ((31, 2), "do not fit")):
        pairs = {"layers.0.attn.q": (np.ones((2, 32), "f4"), np.ones(wrong, "f4"))}
        folder = tmp_path / str(wrong)
        save_adapter(folder, pairs, config, "x", 2.0, False)
        with pytest.raises(UserError, match=says):
            open_adapter(folder, config)
    with pytest.raises(UserError, match="is no adapter"):
        open_adapter(base, config)
