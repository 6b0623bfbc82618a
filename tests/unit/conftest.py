"""Small decoders, one of the llama family with a choice of biases and of the head and one of every other kind; a
tokenizer of bytes; and a second process."""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smallpress.model.config import GQA, MLA, MTP, Dense, Linear, ModelConfig, MoE, Window, Yarn
from smallpress.model.transformer import Transformer, init_weights
from smallpress.tokenizer.spelling import byte_of_letter
from smallpress.tokenizer.tokenizer import Tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant\\n' }}"
)


def _tiny_model(vocab_size: int = 32, tied_head: bool = True, biases: str = "", seed: int = 0) -> Transformer:
    """`biases` names the projections that have one, such as "qkv"; norms and biases are away from ones and zeros."""
    config = ModelConfig(
        family="llama",
        vocab_size=vocab_size,
        dim=32,
        n_layers=2,
        attention=GQA(n_heads=4, n_kv_heads=2, head_dim=8, **{f"{name}_bias": name in biases for name in "qkvo"}),
        ffn=Dense(inter_dim=48),
        norm_eps=1e-5,
        rope_theta=10_000.0,
        max_seq_len=128,
        tied_head=tied_head,
    )
    model = Transformer(config)
    init_weights(model, std=0.15, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Transformer]:
    """Builds a fresh one at each call."""
    return _tiny_model


SIZES = {"vocab_size": 97, "dim": 20, "n_layers": 3, "norm_eps": 1e-5, "rope_theta": 1e4, "max_seq_len": 256}
HEADS = {"n_heads": 6, "n_kv_heads": 2, "head_dim": 8}
LATENT = {"kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5}
EXPERTS = MoE(
    n_routed_experts=8,
    n_active_experts=3,
    n_shared_experts=1,
    moe_inter_dim=7,
    score="sigmoid",
    expert_bias=True,
    n_groups=4,
    n_active_groups=2,
    routed_scale=2.5,
    dense_layers=(0,),
    dense=Dense(inter_dim=24),
)
CONFIGS = {
    "latent, experts, mtp": ModelConfig(
        family="deepseek_v3",
        attention=MLA(n_heads=3, q_lora_rank=9, **LATENT),
        ffn=EXPERTS,
        rope_interleaved=True,
        rope_scaling=Yarn(factor=4, original_max_seq_len=64, mscale=0.7, mscale_all_dim=1.0),
        mtp=MTP(n_modules=1),
        **SIZES,
    ),
    "latent without q lora": ModelConfig(
        family="deepseek_v2", attention=MLA(n_heads=4, bias=True, **LATENT), ffn=Dense(inter_dim=24), **SIZES
    ),
    "windows with their own rope, post norms": ModelConfig(
        family="gemma3_text",
        attention=GQA(
            **HEADS, qk_norm="before_rope", scale=0.3, window=Window(length=5, layers=(0, 2), rope_theta=1e3)
        ),
        ffn=Dense(inter_dim=24, activation="gelu_tanh"),
        rope_scaling=Linear(factor=8),
        post_norms=True,
        embed_scale=20**0.5,
        tied_head=True,
        **SIZES,
    ),
    "a window on every layer": ModelConfig(
        family="mistral",
        attention=GQA(**HEADS, window=Window(length=6, layers=(0, 1, 2))),
        ffn=Dense(inter_dim=24),
        **SIZES,
    ),
    "experts behind norms after rope": ModelConfig(
        family="hunyuan_v1_moe",
        attention=GQA(**HEADS, qk_norm="after_rope"),
        ffn=MoE(n_routed_experts=4, n_active_experts=2, n_shared_experts=1, moe_inter_dim=9),
        **SIZES,
    ),
}


@pytest.fixture(params=CONFIGS)
def odd_model(request: pytest.FixtureRequest) -> Transformer:
    """A model of each kind, with norms, biases and selection biases away from ones and zeros."""
    return _random_model(CONFIGS[request.param])


@pytest.fixture(scope="session")
def config_of() -> dict[str, ModelConfig]:
    return CONFIGS


@pytest.fixture(scope="session")
def random_model() -> Callable[[ModelConfig], Transformer]:
    return _random_model


def _random_model(config: ModelConfig) -> Transformer:
    model = Transformer(config)
    init_weights(model, std=0.4, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def _byte_tokenizer(template: str = CHATML) -> Tokenizer:
    """One token a byte, and the tags of thinking as tokens of their own."""
    letters = sorted(byte_of_letter(), key=byte_of_letter().get)
    return Tokenizer.from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": ["<|im_start|>", "<|im_end|>", "<think>", "</think>", *letters, "th"],
            "tokenizer.ggml.token_type": [3, 3, 4, 4] + [1] * 257,
            "tokenizer.ggml.merges": ["t h"],
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.chat_template": template,
        }
    )


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[..., Tokenizer]:
    """Makes one, ChatML unless another template is given; byte 0 has the id 4, and 1 ends a turn."""
    return _byte_tokenizer


@pytest.fixture(scope="session")
def chatml() -> str:
    return CHATML


@pytest.fixture(scope="session")
def on_two_ranks(tmp_path_factory) -> Callable[[Callable[[Any], Any]], list[Any]]:
    """Calls a function with its `Ranks` on two processes joined by gloo; what each of them gives, by way of JSON.

    They are forked from the test's own process, so nothing is imported twice.
    """

    def call(job: Callable[[Any], Any]) -> list[Any]:
        folder = tmp_path_factory.mktemp("ranks")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=_as_rank, args=(job, rank, port, folder)) for rank in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]

    return call


def _as_rank(job: Callable[[Any], Any], rank: int, port: int, folder: Path) -> None:
    from smallpress.parallel.ranks import joined
    from smallpress.parallel.settings import Parallel

    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    with joined(Parallel(interface="lo", timeout_seconds=120)) as ranks:
        (folder / f"{rank}.json").write_text(json.dumps(job(ranks)))
