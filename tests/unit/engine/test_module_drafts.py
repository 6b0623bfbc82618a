"""Drafts by the model's own modules: the same completions, in fewer steps where the modules are right."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from smallpress.engine.drafts import Pace, modules_pay, row_cost
from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner, Packing
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.torch_runner import TorchRunner
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import GQA, MTP, Dense, ModelConfig, MoE
from smallpress.model.transformer import Transformer
from smallpress.planner.model import known_models

VOCAB = 97
MakeEngine = Callable[..., Engine]


@pytest.fixture
def engine_of(runner_kind: str) -> Iterator[MakeEngine]:
    made: list[Engine] = []

    def make(
        model: Transformer, modules: bool = True, page_size: int = 4, n_pages: int = 200, packing: Packing = "int8",
        **settings: Any,
    ) -> Engine:  # fmt: skip
        if runner_kind == "torch":
            runner = TorchRunner(model, page_size, n_pages, torch.float32, modules=modules)
        else:
            named = dict(model.named_parameters())
            runner = NativeRunner(model.config, named, page_size, n_pages, packing=packing, modules=modules)
        made.append(Engine(runner, **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.check_integrity()


@pytest.fixture
def latent_model(config_of: dict[str, ModelConfig], random_model: Callable[..., Transformer]) -> Transformer:
    """Latent attention, experts, one module."""
    return random_model(config_of["latent, experts, mtp"])


@pytest.fixture
def grouped_model(config_of: dict[str, ModelConfig], random_model: Callable[..., Transformer]) -> Transformer:
    """Grouped queries, two modules that take the hidden state first."""
    config = config_of["a window on every layer"].model_copy(update={"mtp": MTP(n_modules=2, hidden_first=True)})
    return random_model(config)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("latent_model", {"max_running": 4, "page_size": 1}),
        ("latent_model", {"max_running": 4, "n_pages": 9}),
        ("grouped_model", {"max_running": 4, "token_budget": 6}),
        ("grouped_model", {"max_running": 3, "page_size": 3, "share_prefixes": False}),
    ],
    ids=str,
)
def test_modules_change_no_completion(
    engine_of: MakeEngine,
    mixed: list[Request],
    kind: str,
    settings: dict[str, int | bool],
    request: pytest.FixtureRequest,
    runner_kind: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Pace, "length", lambda *_: 3)
    model, requests = request.getfixturevalue(kind), mixed[::2]
    expected = engine_of(model, modules=False, **settings).generate(requests)
    engine = engine_of(model, **settings)
    for got, wanted in zip(engine.generate(requests), expected, strict=True):
        assert (got.ids, got.finish_reason) == (wanted.ids, wanted.finish_reason)
        exact = got.logprobs == wanted.logprobs
        assert exact or (runner_kind == "torch" and got.logprobs == pytest.approx(wanted.logprobs, abs=1e-4))
    assert engine.stats().n_drafted > 0


@torch.no_grad()
def drafts_of(model: Transformer, ids: list[int], k: int) -> list[int]:
    """What the modules say after `ids`, every one over the whole text anew; zeros stand before the first token."""

    def causal(n: int) -> PackedCausal:
        return PackedCausal(TokenTree((Group(n),)), window=model.config.attention.window)

    text, n_known = torch.tensor(ids), len(ids) - 1
    before_NM = made_NM = model(text[:-1], torch.arange(n_known), causal(n_known))
    for n in range(k):
        first = torch.zeros(1, made_NM.shape[1])
        # A module beyond the last is the last, which goes on with what it made itself.
        before_NM = torch.cat((first, made_NM) if n < len(model.mtp) else (before_NM, made_NM[-1:]))
        places, module = torch.arange(len(text)), min(n, len(model.mtp) - 1)
        made_NM = model.predict_further(module, before_NM, text, places, causal(len(text)))
        text = torch.cat((text, model.logits(made_NM[-1:]).argmax(-1)))
    return text[len(ids) :].tolist()


@pytest.mark.parametrize("kind", ["latent_model", "grouped_model"])
def test_drafts_are_what_the_modules_say_of_the_whole_text(
    engine_of: MakeEngine, prompt: Callable[..., tuple[int, ...]], kind: str, request: pytest.FixtureRequest,
    runner_kind: str, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(Pace, "length", lambda *_: 3)
    model = request.getfixturevalue(kind)
    engine = engine_of(model, share_prefixes=False, token_budget=10, packing="bfloat16")
    assert engine.modules is not None
    propose, same = engine.modules.propose, []

    def checked(asked):
        drafts = propose(asked)
        for (sequence, k), draft in zip(asked, drafts, strict=True):
            same.extend(a == b for a, b in zip(draft, drafts_of(model, sequence.ids, k), strict=True))
        return drafts

    monkeypatch.setattr(engine.modules, "propose", checked)
    engine.generate([prompt(n) for n in (5, 1, 14)], SamplingParams(max_tokens=12))
    # In bf16 rounding moves some of them.
    assert len(same) > 60 and sum(same) >= len(same) * (1.0 if runner_kind == "torch" else 0.8), sum(same) / len(same)


@torch.no_grad()
def counting_model(module_step: int) -> Transformer:
    """Its decoder says t + 1 after any token t; its module t + `module_step`. Blocks add nothing to the stream."""
    config = ModelConfig(
        family="deepseek_v3", vocab_size=VOCAB, dim=64, n_layers=1, mtp=MTP(n_modules=1), norm_eps=1e-6, rope_theta=1e4,
        attention=GQA(n_heads=2, n_kv_heads=1, head_dim=4), ffn=Dense(inter_dim=8), max_seq_len=256,
    )  # fmt: skip
    model = Transformer(config)
    for name, weight in model.named_parameters():
        if name.endswith(("o.weight", "down.weight")):
            weight.zero_()
    angles = torch.arange(VOCAB)[:, None] * torch.arange(1, 33) * (2 * torch.pi / VOCAB)
    model.embed.weight.copy_(torch.cat((angles.cos(), angles.sin()), 1))  # a circle in each of 32 planes
    model.head.weight.copy_(model.embed.weight.roll(1, 0))
    turn = torch.arange(1, 33) * (2 * torch.pi / VOCAB) * (module_step - 1)
    cos, sin = turn.cos().diag(), turn.sin().diag()
    rotation = torch.cat((torch.cat((cos, -sin), 1), torch.cat((sin, cos), 1)))
    model.mtp[0].proj.weight.copy_(torch.cat((rotation, torch.zeros(64, 64)), 1))  # of the embedding alone
    return model


def test_modules_that_are_always_right_are_all_accepted(engine_of: MakeEngine):
    request = Request((5, 6, 7), SamplingParams(max_tokens=60, temperature=0.0))
    engine = engine_of(counting_model(module_step=1))
    (completion,) = engine.generate([request])
    assert completion.ids == tuple(range(8, 68))
    stats = engine.stats()
    assert stats.n_accepted == stats.n_drafted > 45 and stats.n_steps == 60 - stats.n_accepted < 15


def test_modules_that_are_always_wrong_are_asked_less_and_less(engine_of: MakeEngine):
    request = Request((5, 6, 7), SamplingParams(max_tokens=60, temperature=0.0))
    engine = engine_of(counting_model(module_step=2))
    (completion,) = engine.generate([request])
    assert completion.ids == tuple(range(8, 68))
    # As for any drafts: two ids, then one six times, then one every sixteenth step.
    assert (engine.stats().n_drafted, engine.stats().n_accepted) == (8 + 3, 0)


def test_a_request_held_to_a_form_is_not_drafted_for(engine_of: MakeEngine):
    class Anything:
        def allowed(self) -> None:
            return None

        def push(self, id: int) -> bool:
            return False

    engine = engine_of(counting_model(module_step=1))
    engine.generate([Request((5, 6), SamplingParams(max_tokens=9, temperature=0.0), constraint=Anything())])
    assert (engine.stats().n_drafted, engine.stats().n_steps) == (0, 9)


@pytest.mark.parametrize("fails", ["propose", "follow"])
def test_modules_that_fail_leave_nothing_behind(engine_of: MakeEngine, fails: str, monkeypatch: pytest.MonkeyPatch):
    request = Request((5, 6, 7), SamplingParams(max_tokens=20, temperature=0.0))
    engine = engine_of(counting_model(module_step=1))
    engine.submit(request)
    engine.step()

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(engine.modules, fails, fail)
        engine.step()
    engine.check_integrity()
    assert engine.stats().pages_held == 0
    pieces = [piece for _ in range(20) for piece in engine.step()]
    assert [piece.id for piece in pieces] == list(range(9, 28)) and pieces[-1].completion is not None


def test_a_row_more_costs_its_experts_and_a_module_its_own():
    heads = GQA(n_heads=1, n_kv_heads=1, head_dim=10)
    sizes = {"vocab_size": 100, "dim": 10, "n_layers": 2, "norm_eps": 1e-6, "rope_theta": 1e4, "max_seq_len": 8}
    dense = ModelConfig(family="x", attention=heads, ffn=Dense(inter_dim=10), **sizes)
    assert row_cost(dense, by_modules=False) == pytest.approx(0.2)
    experts = MoE(n_routed_experts=9, n_active_experts=2, moe_inter_dim=10)
    sparse = ModelConfig(family="x", attention=heads, ffn=experts, mtp=MTP(n_modules=1), **sizes)
    # A layer: attention 400, two experts of 300, router 90, two norms of 10; with head and last norm 3230 in all.
    assert row_cost(sparse, by_modules=False) == pytest.approx((0.2 * (3230 - 1200) + 1200) / 3230)
    # A module: a layer, a projection of 200 and three norms; and the head again.
    assert row_cost(sparse, by_modules=True) == pytest.approx((0.2 * (3230 - 1200) + 1200 + 1110 + 230 + 1000) / 3230)
    # One of two layers is no draft of the whole: with its row and its module every id more would cost 1.6 steps.
    assert not modules_pay(sparse) and not modules_pay(dense)
    v3 = known_models()["deepseek-v3"]
    assert modules_pay(v3) and not modules_pay(v3.model_copy(update={"mtp": None}))
