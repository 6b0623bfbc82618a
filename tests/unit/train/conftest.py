"""Samples of ids alone and a corpus of numbers, and trainers of tiny models over them."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from smallpress.corpus.shard_writer import Vocabulary, new_corpus
from smallpress.corpus.shards import Corpus
from smallpress.lowbit.linear8 import set_backward
from smallpress.model.low_rank import adapt, adapter_scale
from smallpress.optim.master import MasterWeights
from smallpress.train.objective import Likelihood
from smallpress.train.pretrain_run import open_pretrainer, settled
from smallpress.train.pretrain_settings import PretrainSettings
from smallpress.train.pretrainer import Pretrainer
from smallpress.train.samples import Sample
from smallpress.train.settings import TrainSettings
from smallpress.train.trainer import Trainer


def sample(*ids: int, asked: int = 1) -> Sample:
    """The first `asked` tokens are the prompt."""
    return Sample(tuple(ids), tuple(i >= asked for i in range(len(ids))))


@pytest.fixture
def samples() -> list[Sample]:
    """Twenty that begin alike and go on as a rule says: each token is the one before it plus the second."""
    return [sample(1, 2, k, *(2 + (k * n) % 29 for n in range(1, 4 + k % 5)), asked=3) for k in range(2, 22)]


@pytest.fixture
def make_trainer(tiny_model, samples) -> Callable[..., Trainer]:
    def make(model_seed: int = 0, dtype: torch.dtype = torch.float32, lora: dict | None = None, **given) -> Trainer:
        chosen = {"model": "tiny", "lr": 1e-2, "warmup": 1, "samples_per_step": 4, "micro_batch_tokens": 64}
        settings = TrainSettings(**(chosen | {"steps": 12} | given), lora=lora)
        model = tiny_model(seed=model_seed)
        if settings.lora is not None:
            of = settings.lora
            adapt(model, of.targets, of.rank, adapter_scale(of.rank, of.alpha, of.rank_stabilized), of.base)
        model.recompute = settings.recompute
        set_backward(settings.backward, model.layers)
        weights = MasterWeights(model, dtype, optimizer=settings.optimizer, take=True)
        return Trainer(settings, weights, Likelihood(settings.micro_batch_tokens), samples[2:], samples[:2])

    return make


SHAPE = {
    "dim": 16,
    "n_layers": 2,
    "max_seq_len": 64,
    "attention": {
        "kind": "mla", "n_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 4, "v_head_dim": 4,
    },
    "ffn": {
        "kind": "moe", "n_routed_experts": 4, "n_active_experts": 2, "n_shared_experts": 1, "moe_inter_dim": 8,
        "score": "sigmoid", "expert_bias": True, "routed_scale": 2.5, "dense_layers": [0],
        "dense": {"inter_dim": 24},
    },
    "mtp": {"n_modules": 1},
}  # fmt: skip
"""DeepSeek-V3 in small: 8 thousand weights."""

HOLES = ["<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    """Counting in four steps: documents of 5 to 30 numbers below 26 and the end, 30; 27 to 29 mark holes."""
    folder = tmp_path_factory.mktemp("corpora") / "counting"

    def save(path):
        path.mkdir()
        words = {str(i): i for i in range(27)} | {mark: 27 + i for i, mark in enumerate(HOLES)} | {"<end>": 30}
        added = [
            {"id": i, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
            for text, i in words.items() if i > 26
        ]  # fmt: skip
        model = {"type": "BPE", "vocab": words, "merges": [], "byte_fallback": False}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        parts = {"model": model, "added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level}
        (path / "tokenizer.json").write_text(json.dumps({"version": "1.0"} | parts))
        (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))

    bytes_of = np.array([1] * 10 + [2] * 17 + [0] * 4)
    with new_corpus(folder, Vocabulary(bytes_of, 30, save)) as writer:
        for n in range(240):
            document = [(n + k * (1 + n % 4)) % 26 for k in range(5 + n % 26)] + [30]
            writer.add("held_out" if n % 12 == 0 else "train", document)
    return Corpus.open(folder)


@pytest.fixture(scope="session")
def make_pretrainer(corpus) -> Callable[..., Pretrainer]:
    """Eight rows of sixteen tokens a step, in fp32; `shape` changes parts of it."""

    def make(shape: dict | None = None, **given) -> Pretrainer:
        chosen = {
            "corpus": str(corpus.folder), "init_std": 0.1, "steps": 6, "seq_len": 16, "batch_tokens": 128,
            "micro_batch_tokens": 64, "lr": 1e-2, "warmup": 1, "arithmetic": "float32", "eval_tokens": 64,
        }  # fmt: skip
        settings = PretrainSettings(shape=SHAPE | (shape or {}), **(chosen | given))
        return open_pretrainer(settled(settings, corpus), corpus)

    return make
