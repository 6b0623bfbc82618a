"""Reward models against transformers: their folders scored by us, ours scored by them, one at a time and padded."""

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3TextConfig,
    LlamaConfig,
    Qwen2Config,
)

from smallpress.model.reward_model import all_scores
from smallpress.run.errors import UserError
from smallpress.tokenizer.spelling import byte_of_letter
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.tokenizer.whole import encode_whole
from smallpress.weights.load import open_model
from smallpress.weights.reward_model import (
    fresh_reward_model,
    load_reward_model,
    open_reward_model,
    save_reward_model,
)

REASSOCIATION = 2e-5
"""fp32 sums in another order, on scores of about 1."""

SIZES = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=8),
}
TEXTS = [(5, 9, 60, 33, 7, 18), (5, 9, 60, 47), (5, 9, 60, 33, 7, 200, 11, 12, 99), (8,)]


def randomly(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))
    return model.eval()


def tokenizer_of_bytes():
    letters = sorted(byte_of_letter(), key=byte_of_letter().get)
    return Tokenizer.from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": ["<|im_start|>", "<|im_end|>", *letters, "th"],
            "tokenizer.ggml.token_type": [3, 3] + [1] * 257,
            "tokenizer.ggml.merges": ["t h"],
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}",
        }
    )


@torch.no_grad()
def their_scores(model, texts, pad=None):
    """One by one, or filled up with `pad` into one batch."""
    if pad is None:
        return [float(model(torch.tensor([text])).logits[0, 0]) for text in texts]
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[pad] * (longest - len(text))] for text in texts])
    seen = torch.tensor([[int(i < len(text)) for i in range(longest)] for text in texts])
    return model(ids, attention_mask=seen).logits[:, 0].tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_their_reward_model_gives_the_same_scores_through_us(name, tmp_path):
    CONFIGS[name].num_labels = 1
    theirs = randomly(AutoModelForSequenceClassification.from_config(CONFIGS[name]))
    theirs.save_pretrained(tmp_path)
    ours = load_reward_model(open_reward_model(tmp_path))
    (scores,) = all_scores(ours, [TEXTS[:3]], token_budget=100)
    assert scores == pytest.approx(their_scores(theirs, TEXTS[:3]), abs=REASSOCIATION)
    apart = all_scores(ours, [[text] for text in TEXTS], token_budget=10)  # each alone, or two in a batch
    assert [one for (one,) in apart] == pytest.approx(their_scores(theirs, TEXTS, pad=0), abs=REASSOCIATION)
    with pytest.raises(UserError, match=r"is a reward model: it scores answers and writes none; give it to"):
        open_model(tmp_path)


@pytest.mark.parametrize("name", CONFIGS)
def test_ours_gives_the_same_scores_through_them(name, tmp_path, monkeypatch):
    """With a tokenizer whose every conversation ends with the token that it pads with, where it is left alone."""
    randomly(AutoModelForCausalLM.from_config(CONFIGS[name])).save_pretrained(tmp_path / "base")
    tokenizer = tokenizer_of_bytes()
    tokenizer.pad_with("<|im_end|>")
    files = open_model(tmp_path / "base")
    monkeypatch.setattr(files, "tokenizer", lambda: tokenizer)
    model = fresh_reward_model(files, seed=3)
    save_reward_model(tmp_path / "out", dict(model.named_parameters()), files, "A test.", dtype="float32")

    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    talks = [[{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": text}] for text in ("4", "it is 5")]
    texts = [encode_whole(tokenizer, talk) for talk in talks]
    (scores,) = all_scores(model, [texts], token_budget=100)
    assert abs(scores[0] - scores[1]) > 1e-3
    assert their_scores(theirs, texts) == pytest.approx(scores, abs=REASSOCIATION)
    pad = AutoTokenizer.from_pretrained(tmp_path / "out").pad_token_id
    assert pad == theirs.config.pad_token_id == 0 != texts[0][-1]
    assert their_scores(theirs, texts, pad) == pytest.approx(scores, abs=REASSOCIATION)

    again = load_reward_model(open_reward_model(tmp_path / "out"))
    assert all_scores(again, [texts], token_budget=100) == [scores]


def test_a_folder_that_is_no_reward_model_of_one_score_is_refused(tmp_path):
    config = Qwen2Config(**SIZES, num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "three")
    with pytest.raises(UserError, match=r"score.weight has the shape \[3, 32\]"):
        open_reward_model(tmp_path / "three")
    AutoModelForCausalLM.from_config(CONFIGS["llama"]).save_pretrained(tmp_path / "words")
    with pytest.raises(UserError, match=r"words is no reward model; give one, such as"):
        open_reward_model(tmp_path / "words")
    settings = json.loads((tmp_path / "words/config.json").read_text()) | {
        "architectures": ["LlamaForSequenceClassification"]
    }
    (tmp_path / "words/config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="is no reward model"):  # it says so, and has no score
        open_reward_model(tmp_path / "words")
