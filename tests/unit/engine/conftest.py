"""Tiny random models, engines whose books are checked after every test, and the plain forward pass to compare with."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner
from smallpress.engine.request import Completion, Request, SamplingParams
from smallpress.engine.torch_runner import TorchRunner
from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.transformer import Transformer, init_weights

FP32_REASSOCIATION = 5e-5
"""Largest difference of log-probabilities between two orders of summing the same fp32 model."""

NATIVE_8_BIT = 2.0
"""Between the tiny model, whose logits reach 10, in 8 bits and in fp32; half of that is its weights."""

VOCAB = 97


def _build_model(
    n_heads: int = 9, n_kv_heads: int = 3, tied_head: bool = True, bias: bool = False, max_seq_len: int = 256
) -> Transformer:
    heads = GQA(n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=4, q_bias=bias, k_bias=bias, v_bias=bias, o_bias=bias)
    config = ModelConfig(
        family="llama",
        vocab_size=VOCAB,
        dim=20,
        n_layers=2,
        attention=heads,
        ffn=Dense(inter_dim=24, bias=bias),
        norm_eps=1e-5,
        rope_theta=10_000.0,
        max_seq_len=max_seq_len,
        tied_head=tied_head,
    )
    model = Transformer(config)
    init_weights(model, std=0.4, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases: away from their plain ones and zeros
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="session")
def build_model() -> Callable[..., Transformer]:
    return _build_model


@pytest.fixture(scope="session")
def model() -> Transformer:
    """9 query heads, 3 kv heads, 2 layers, 97 words, tied head."""
    return _build_model()


@pytest.fixture(params=["torch", "native"])
def runner_kind(request: pytest.FixtureRequest) -> str:
    """Every test of the engine holds for both runners."""
    return request.param


@pytest.fixture
def make_engine(model: Transformer, runner_kind: str) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(
        model: Transformer = model,
        page_size: int = 4,
        n_pages: int = 200,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> Engine:
        if runner_kind == "torch":
            runner = TorchRunner(model, page_size, n_pages, dtype)
        elif dtype == torch.float32:
            runner = NativeRunner(model.config, dict(model.named_parameters()), page_size, n_pages)
        else:
            pytest.skip("the native runner has one number format")
        made.append(Engine(runner, **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.check_integrity()


@pytest.fixture(scope="session")
def prompt() -> Callable[..., tuple[int, ...]]:
    def random_ids(n: int, seed: int = 0) -> tuple[int, ...]:
        generator = torch.Generator().manual_seed(1000 * seed + n)
        return tuple(torch.randint(0, VOCAB, (n,), generator=generator).tolist())

    return random_ids


@pytest.fixture
def mixed(prompt: Callable[..., tuple[int, ...]]) -> list[Request]:
    """Odd lengths, three groups of rollouts, greedy and sampled, filtered and not, mixed in one line."""
    requests = []
    for n in (1, 4, 7, 13, 16, 21):
        for seed, temperature in enumerate((1.0, 0.7, 0.0)):
            params = SamplingParams(max_tokens=5 + n % 4 + seed, temperature=temperature, seed=100 * n + seed)
            requests.append(Request(prompt(n), replace(params, top_p=0.9) if seed == 1 else params))
    return requests


def _causal(_layer: int, q_NHD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor) -> torch.Tensor:
    """Attention over one sequence, as plain as torch has it."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_NHD, k_NKD, v_NKD))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


@pytest.fixture(scope="session")
def full_logits() -> Callable[[Transformer, tuple[int, ...]], torch.Tensor]:
    """[len(ids), V] by one forward pass without any cache."""

    @torch.no_grad()
    def logits(model: Transformer, ids: tuple[int, ...]) -> torch.Tensor:
        return model.logits(model(torch.tensor(ids), torch.arange(len(ids)), _causal))

    return logits


@pytest.fixture
def assert_equals_one_pass(full_logits: Callable[..., torch.Tensor], runner_kind: str) -> Callable[..., None]:
    """The completion's log-probabilities are those of one pass over all its ids, and greedy ids are its best ones."""
    exact = FP32_REASSOCIATION if runner_kind == "torch" else NATIVE_8_BIT

    def check(model: Transformer, request: Request, completion: Completion, atol: float = exact) -> None:
        n = len(request.prompt_ids)
        logits = full_logits(model, request.prompt_ids + completion.ids)[n - 1 : -1]
        logprobs = (logits / (request.params.temperature or 1.0)).log_softmax(-1)
        ids = torch.tensor(completion.ids)
        said = logprobs.gather(1, ids[:, None])[:, 0]
        gap = (said - torch.tensor(completion.logprobs)).abs().max().item()
        assert gap <= atol, f"log-probabilities differ by {gap}"
        if request.params.temperature == 0.0:
            if runner_kind == "torch":
                assert ids.tolist() == logits.argmax(-1).tolist()
            assert (logprobs.amax(-1) - said).max().item() <= 2 * atol

    return check
