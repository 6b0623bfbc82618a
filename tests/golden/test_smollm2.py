"""The real model's text, recorded from transformers (record.py): what a person would see, and what it cost to round."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.torch_runner import TorchRunner
from smallpress.tokenizer.chat import encode_chat
from smallpress.weights.load import load_transformer, open_model

ANSWERS = json.loads(Path(__file__).with_name("smollm2.json").read_text(encoding="utf-8"))["answers"]
ROUNDING = 0.06
"""Mean difference, in nats, between a token's log-probability with weights and activations in 8 bits and in fp32.
It was 0.04 when this was written."""


@pytest.fixture(scope="module")
def transformer(smollm2):
    return load_transformer(smollm2)


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return open_model(smollm2).tokenizer()


@pytest.mark.parametrize("answer", ANSWERS, ids=[answer["question"] for answer in ANSWERS])
def test_the_engine_in_fp32_says_what_transformers_says(transformer, tokenizer, answer):
    assert encode_chat(tokenizer, [{"role": "user", "content": answer["question"]}]) == answer["prompt_ids"]
    engine = Engine(TorchRunner(transformer, n_pages=64, dtype=torch.float32))
    params = SamplingParams(temperature=0.0, max_tokens=len(answer["ids"]))
    request = Request(tuple(answer["prompt_ids"]), params, stop_ids=tokenizer.eos_ids)
    (completion,) = engine.generate([request])
    assert list(completion.ids) == answer["ids"]
    assert completion.logprobs == pytest.approx(answer["logprobs"], abs=1e-3)


def test_eight_bits_change_log_probabilities_little(transformer):
    core = NativeRunner(transformer.config, dict(transformer.named_parameters()), page_size=16, n_pages=16).core
    gaps = []
    for answer in ANSWERS:
        ids = answer["prompt_ids"] + answer["ids"]
        n, first = len(ids) - 1, len(answer["prompt_ids"]) - 1
        rows = np.arange(n)
        core.forward(np.array(ids[:-1]), rows, np.arange(16), np.zeros(n, dtype=np.int64), rows[first:])
        logprobs = torch.from_numpy(core.logits()).log_softmax(-1)
        said = logprobs.gather(1, torch.tensor(answer["ids"])[:, None])[:, 0].numpy()
        gaps.append(np.abs(said - np.array(answer["logprobs"])))
    assert np.concatenate(gaps).mean() < ROUNDING
