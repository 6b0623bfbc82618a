"""Properties of generation: what the engine does must not show in what comes out."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from smallpress.engine.engine import Engine
from smallpress.engine.request import Completion, Request, SamplingParams
from smallpress.model.transformer import Transformer
from smallpress.run.errors import UserError

MakeEngine = Callable[..., Engine]
MakePrompt = Callable[..., tuple[int, ...]]
BF16_ROUNDING = 0.5
"""Largest difference of log-probabilities between the tiny model in bf16, whose logits reach 10, and in fp32."""
REGROUPED = 5e-4
"""Largest difference where sums are grouped otherwise: attention's weights are rounded to bf16 after that."""
GREEDY = SamplingParams(max_tokens=9, temperature=0.0)


def same(completions: list[Completion], expected: list[Completion]) -> None:
    """Same ids and ends; log-probabilities up to the order of summing; how much was cached is not compared."""
    for got, wanted in zip(completions, expected, strict=True):
        assert (got.ids, got.finish_reason, got.n_prompt) == (wanted.ids, wanted.finish_reason, wanted.n_prompt)
        assert got.logprobs == pytest.approx(wanted.logprobs, abs=REGROUPED)


def test_generating_with_pages_equals_one_full_pass(
    make_engine: MakeEngine, model: Transformer, mixed: list[Request], assert_equals_one_pass: Callable[..., None]
):
    for request, completion in zip(mixed, make_engine().generate(mixed), strict=True):
        assert len(completion.ids) == request.params.max_tokens and completion.finish_reason == "length"
        assert_equals_one_pass(model, request, completion)


@pytest.mark.parametrize(
    "shape", [{"n_heads": 4, "n_kv_heads": 4}, {"n_heads": 6, "n_kv_heads": 1}, {"tied_head": False, "bias": True}]
)
def test_every_shape_of_attention_equals_one_full_pass(
    make_engine: MakeEngine,
    build_model: Callable[..., Transformer],
    mixed: list[Request],
    assert_equals_one_pass: Callable[..., None],
    shape: dict[str, int | bool],
):
    model = build_model(**shape)
    for request, completion in zip(mixed, make_engine(model).generate(mixed), strict=True):
        assert_equals_one_pass(model, request, completion)


def test_each_request_alone_gives_what_all_together_give(make_engine: MakeEngine, mixed: list[Request]):
    together = make_engine().generate(mixed)
    same([make_engine().generate([request])[0] for request in mixed], together)


def test_the_order_of_requests_does_not_matter(make_engine: MakeEngine, mixed: list[Request]):
    same(make_engine().generate(mixed[::-1])[::-1], make_engine().generate(mixed))


@pytest.mark.parametrize(
    "settings",
    [
        {"page_size": 1},
        {"page_size": 3},
        {"page_size": 32},
        {"share_prefixes": False},
        {"token_budget": 1},
        {"token_budget": 5},
        {"max_running": 1},
        {"max_running": 4},
    ],
    ids=str,
)
def test_how_the_engine_is_set_up_does_not_matter(
    make_engine: MakeEngine, mixed: list[Request], settings: dict[str, int | bool]
):
    same(make_engine(**settings).generate(mixed), make_engine().generate(mixed))


@pytest.mark.parametrize("share_prefixes", [True, False])
def test_preemption_does_not_change_results(make_engine: MakeEngine, mixed: list[Request], share_prefixes: bool):
    tight = make_engine(n_pages=9, share_prefixes=share_prefixes)
    same(tight.generate(mixed), make_engine().generate(mixed))
    assert tight.stats().n_preempted > 0


def test_the_books_add_up_after_every_step_of_a_tight_run(make_engine: MakeEngine, mixed: list[Request]):
    engine = make_engine(n_pages=9, token_budget=6)
    for request in mixed:
        engine.submit(request)
    while engine.busy:
        engine.step()
        engine.check_integrity()


def test_a_group_of_rollouts_prefills_its_prompt_once(make_engine: MakeEngine, prompt: MakePrompt):
    for n in (1, 10, 12):  # below a page, between pages, whole pages
        engine = make_engine()
        group = [Request(prompt(n), SamplingParams(max_tokens=6, seed=s)) for s in range(8)]
        completions = engine.generate(group)
        assert engine.stats().prefill_tokens == n
        assert [c.n_cached for c in completions] == [0] + [n] * 7
        assert len({c.ids for c in completions}) == 8


def test_a_group_shares_even_when_its_prompt_is_longer_than_a_step(make_engine: MakeEngine, prompt: MakePrompt):
    engine = make_engine(token_budget=5)
    engine.generate([Request(prompt(23), SamplingParams(max_tokens=3, seed=s)) for s in range(4)])
    assert engine.stats().prefill_tokens == 23


def test_questions_under_one_template_share_it(make_engine: MakeEngine, prompt: MakePrompt):
    template, questions = prompt(9, seed=5), [prompt(n, seed=6) for n in (7, 10, 13)]
    requests = [
        Request(template + question, SamplingParams(max_tokens=6, seed=10 * i + s))
        for i, question in enumerate(questions)
        for s in range(5)
    ]
    engine = make_engine()
    same(engine.generate(requests), make_engine(share_prefixes=False).generate(requests))
    # The template's two whole pages once, and of each question what follows them.
    assert engine.stats().prefill_tokens == 8 + sum(9 + n - 8 for n in (7, 10, 13))


def test_a_later_request_computes_only_what_follows_the_pages_it_shares(make_engine: MakeEngine, prompt: MakePrompt):
    engine = make_engine()
    engine.generate([prompt(14)], GREEDY)
    fork = engine.generate([(*prompt(14), 1, 2)], GREEDY)[0]
    again = engine.generate([prompt(14)], GREEDY)[0]
    whole_pages = engine.generate([prompt(14)[:12]], GREEDY)[0]
    assert (fork.n_cached, again.n_cached) == (12, 12)
    assert whole_pages.n_cached == 8  # the last token must run: its logits are needed
    same(
        [fork, again, whole_pages],
        make_engine(share_prefixes=False).generate([(*prompt(14), 1, 2), prompt(14), prompt(14)[:12]], GREEDY),
    )


def test_a_second_turn_shares_the_first_ones_answer(make_engine: MakeEngine, prompt: MakePrompt):
    engine = make_engine()
    first = engine.generate([prompt(6)], GREEDY)[0]  # 6 + 9 tokens, 14 of them computed: 3 pages
    second = engine.generate([(*prompt(6), *first.ids, 5)], GREEDY)[0]
    assert second.n_cached == 12


def test_a_seed_reproduces_and_another_seed_differs(make_engine: MakeEngine, prompt: MakePrompt):
    first, again, other = (
        make_engine().generate([prompt(5)], SamplingParams(max_tokens=20, seed=seed))[0] for seed in (1, 1, 2)
    )
    assert first == again and first.ids != other.ids


def test_equal_plain_prompts_draw_apart(make_engine: MakeEngine, prompt: MakePrompt):
    completions = make_engine().generate([prompt(5)] * 6, SamplingParams(max_tokens=12))
    assert len({c.ids for c in completions}) == 6


def test_a_stop_id_ends_the_completion_and_is_its_last_id(make_engine: MakeEngine, prompt: MakePrompt):
    free = make_engine().generate([prompt(5)], GREEDY)[0]
    stop = free.ids[3]
    ended = make_engine().generate([Request(prompt(5), GREEDY, stop_ids=frozenset({stop}))])[0]
    assert ended.finish_reason == "stop"
    assert ended.ids == free.ids[: free.ids.index(stop) + 1] and len(ended.logprobs) == len(ended.ids)


class AfterThree:
    def __init__(self) -> None:
        self.ids: list[int] = []

    def push(self, id: int) -> bool:
        self.ids.append(id)
        return len(self.ids) == 3


@pytest.mark.parametrize("n_pages", [200, 9])
def test_a_stopper_sees_every_new_id_once_preempted_or_not(make_engine: MakeEngine, prompt: MakePrompt, n_pages: int):
    stoppers = [AfterThree() for _ in range(6)]
    requests = [Request(prompt(7, seed=i), GREEDY, stopper=s) for i, s in enumerate(stoppers)]
    for completion, stopper in zip(make_engine(n_pages=n_pages).generate(requests), stoppers, strict=True):
        assert completion.finish_reason == "stop" and list(completion.ids) == stopper.ids


def test_pieces_put_together_are_the_completion(make_engine: MakeEngine, mixed: list[Request]):
    engine = make_engine(n_pages=20)
    order = [engine.submit(request) for request in mixed]
    streamed: dict[int, list[int]] = {request_id: [] for request_id in order}
    done: dict[int, Completion] = {}
    while engine.busy:
        for piece in engine.step():
            assert piece.request_id not in done
            streamed[piece.request_id].append(piece.id)
            if piece.completion:
                done[piece.request_id] = piece.completion
    assert all(tuple(streamed[i]) == done[i].ids for i in order)
    same([done[i] for i in order], make_engine().generate(mixed))
    assert engine.step() == []


def test_cancelling_at_any_step_frees_everything_and_disturbs_nobody(make_engine: MakeEngine, mixed: list[Request]):
    expected = make_engine().generate(mixed)
    for n_steps in range(4):
        engine = make_engine(n_pages=30, token_budget=16)
        order = [engine.submit(request) for request in mixed]
        done: dict[int, Completion] = {}
        for _ in range(n_steps):
            done |= {p.request_id: p.completion for p in engine.step() if p.completion}
        for request_id in order[::2]:
            cancelled = engine.cancel(request_id)
            assert cancelled is not None and cancelled.finish_reason == "cancelled"
            assert cancelled.ids == expected[request_id].ids[: len(cancelled.ids)]
            assert engine.cancel(request_id) is None
            engine.check_integrity()
        while engine.busy:
            done |= {p.request_id: p.completion for p in engine.step() if p.completion}
        same([done[i] for i in order[1::2]], expected[1::2])


def test_interrupting_generate_frees_everything(make_engine: MakeEngine, mixed: list[Request]):
    class Interrupting(AfterThree):
        def push(self, id: int) -> bool:
            if super().push(id):
                raise KeyboardInterrupt
            return False

    engine = make_engine()
    with pytest.raises(KeyboardInterrupt):
        engine.generate([*mixed, Request((1, 2, 3), stopper=Interrupting())])
    assert not engine.busy and engine.stats().pages_held == 0
    same(engine.generate(mixed), make_engine().generate(mixed))


def test_after_a_step_that_failed_the_engine_goes_on_and_trusts_no_page_of_it(
    make_engine: MakeEngine, mixed: list[Request], monkeypatch: pytest.MonkeyPatch
):
    engine = make_engine()
    order = [engine.submit(request) for request in mixed]
    engine.step()
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(engine.runner, "run", lambda _: (_ for _ in ()).throw(MemoryError))
        engine.step()
    engine.check_integrity()
    done: dict[int, Completion] = {}
    while engine.busy:
        done |= {p.request_id: p.completion for p in engine.step() if p.completion}
    same([done[i] for i in order], make_engine().generate(mixed))


def test_new_weights_take_effect_and_old_pages_are_not_used(
    make_engine: MakeEngine, build_model: Callable[..., Transformer], model: Transformer, prompt: MakePrompt
):
    other = build_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    engine = make_engine(model)
    before = engine.generate([prompt(13)], GREEDY)
    engine.update_weights(dict(other.named_parameters()))
    after = engine.generate([prompt(13)], GREEDY)
    assert after[0].n_cached == 0
    same(after, make_engine(other).generate([prompt(13)], GREEDY))
    engine.update_weights(dict(model.named_parameters()))
    same(engine.generate([prompt(13)], GREEDY), before)


def test_requests_under_way_go_on_with_new_weights_over_all_their_ids(
    make_engine: MakeEngine, build_model: Callable[..., Transformer], prompt: MakePrompt
):
    other = build_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    engine = make_engine()
    engine.submit(Request(prompt(6), GREEDY))
    first = [engine.step()[0].id for _ in range(4)]
    engine.update_weights(dict(other.named_parameters()))
    rest = [engine.step()[0].id for _ in range(5)]
    assert tuple(rest) == make_engine(other).generate([(*prompt(6), *first)], replace(GREEDY, max_tokens=5))[0].ids


def test_weights_that_are_not_the_models_are_refused_by_name(make_engine: MakeEngine, model: Transformer):
    engine = make_engine()
    named = dict(model.named_parameters())
    for wrong, message in (
        ({k: v for k, v in named.items() if k != "norm.weight"}, "norm.weight is missing"),
        (named | {"head.bias": torch.zeros(3)}, "no weight head.bias"),
        (named | {"norm.weight": torch.zeros(3)}, r"norm.weight has shape \(3,\)"),
    ):
        with pytest.raises(UserError, match=message):
            engine.update_weights(wrong)


def test_the_model_given_is_not_touched_nor_shared(
    make_engine: MakeEngine, build_model: Callable[..., Transformer], prompt: MakePrompt
):
    model = build_model()
    engine = make_engine(model)
    before = engine.generate([prompt(5)], GREEDY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    engine.update_weights  # noqa: B018  not called: the runner's weights are its own
    engine.pool.forget()
    same(engine.generate([prompt(5)], GREEDY), before)


def test_the_context_ends_a_completion(
    make_engine: MakeEngine, build_model: Callable[..., Transformer], prompt: MakePrompt
):
    by_model = make_engine(build_model(max_seq_len=16)).generate([prompt(10)], SamplingParams(max_tokens=100))[0]
    by_pages = make_engine(n_pages=4).generate([prompt(10)], SamplingParams(max_tokens=100))[0]
    for completion in (by_model, by_pages):
        assert (len(completion.ids), completion.finish_reason) == (6, "length")


@pytest.mark.parametrize(
    ("ids", "message"), [((), "empty"), (tuple(range(16)), "16 tokens"), ((1, 97), "97"), ((-1, 3), "-1")]
)
def test_a_request_that_can_never_run_is_refused(make_engine: MakeEngine, ids: tuple[int, ...], message: str):
    engine = make_engine(n_pages=4)
    with pytest.raises(UserError, match=message):
        engine.submit(Request(ids))
    assert not engine.busy


def test_the_statistics_count_tokens(make_engine: MakeEngine, prompt: MakePrompt):
    engine = make_engine()
    engine.generate([prompt(10)] * 3, SamplingParams(max_tokens=4))
    engine.submit(Request(prompt(6)))
    stats = engine.stats()
    assert (stats.n_steps, stats.prefill_tokens, stats.cached_tokens, stats.new_tokens) == (4, 10, 20, 12)
    assert (stats.n_running, stats.n_waiting, stats.pages_held, stats.n_pages) == (0, 1, 0, 200)
    assert stats.tokens_per_second > 0


def test_a_long_context_equals_one_full_pass(
    make_engine: MakeEngine,
    build_model: Callable[..., Transformer],
    prompt: MakePrompt,
    assert_equals_one_pass: Callable,
):
    model = build_model(max_seq_len=2048)
    requests = [Request(prompt(n), SamplingParams(max_tokens=5)) for n in (900, 3, 40)]
    completions = make_engine(model, page_size=16, token_budget=256).generate(requests)
    for request, completion in zip(requests, completions, strict=True):
        assert_equals_one_pass(model, request, completion)


def test_a_new_engine_on_a_used_runner_starts_from_nothing(make_engine: MakeEngine, mixed: list[Request]):
    used = make_engine()
    for request in mixed[::-1]:
        used.submit(request)
    for _ in range(3):
        used.step()
    for request_id in range(len(mixed)):
        used.cancel(request_id)
    same(Engine(used.runner).generate(mixed), make_engine().generate(mixed))


def test_damaged_weights_are_reported_and_leave_no_trace_once_replaced(
    make_engine: MakeEngine, model: Transformer, mixed: list[Request]
):
    engine = make_engine()
    named = dict(model.named_parameters())
    with pytest.raises(UserError, match="diverged"):
        engine.update_weights(named | {"layers.0.attn.v.weight": torch.full((12, 20), torch.nan)})
        engine.generate(mixed)
    engine.update_weights(named)
    same(engine.generate(mixed), make_engine().generate(mixed))


def test_keys_kept_from_step_to_step_are_those_in_the_pages(
    make_engine: MakeEngine, mixed: list[Request], monkeypatch: pytest.MonkeyPatch
):
    kept = make_engine().generate(mixed)
    monkeypatch.setattr("smallpress.engine.decode_attention.KEPT_BYTES", 0)
    assert make_engine().generate(mixed) == kept


def test_bf16_stays_close_to_one_full_pass_in_fp32(
    make_engine: MakeEngine, model: Transformer, mixed: list[Request], assert_equals_one_pass: Callable[..., None]
):
    for request, completion in zip(mixed, make_engine(dtype=torch.bfloat16).generate(mixed), strict=True):
        if request.params.temperature:
            assert_equals_one_pass(model, request, completion, atol=BF16_ROUNDING)
