"""Drafts change how many steps a completion takes, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, cycle

import pytest

from smallpress.engine.batch import Batch
from smallpress.engine.drafts import ROWS, Pace, PromptLookup
from smallpress.engine.engine import Engine
from smallpress.engine.request import Completion, Request, SamplingParams
from smallpress.model.transformer import Transformer

MakeEngine = Callable[..., Engine]
MakePrompt = Callable[..., tuple[int, ...]]
GREEDY = SamplingParams(max_tokens=9, temperature=0.0)
VOCAB = 97


class Foresight:
    """Knows how the requests will go on, and says a wrong id for every place that `wrong` divides."""

    def __init__(self, requests: Sequence[Request], completions: Sequence[Completion], wrong: int = 1000):
        pairs = zip(requests, completions, strict=True)
        self.texts = [request.prompt_ids + completion.ids for request, completion in pairs]
        self.wrong = wrong

    def __call__(self) -> "Foresight":
        return self

    def propose(self, ids: Sequence[int], k: int) -> list[int]:
        n = len(ids)
        text = next(text for text in self.texts if text[:n] == tuple(ids))
        return [(id + (place % self.wrong == 0)) % VOCAB for place, id in enumerate(text[n : n + k], start=n)]


class Silence:
    def propose(self, ids: Sequence[int], k: int) -> list[int]:
        return []


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ids are drafted wherever there is room, whether that pays or not."""
    monkeypatch.setattr(Pace, "length", lambda *_: 3)


@pytest.fixture
def unchanged(runner_kind: str) -> Callable[..., None]:
    """The native runner computes a row alike wherever it stands, so nothing differs; torch sums in another order."""

    def check(completions: Sequence[Completion], expected: Sequence[Completion]) -> None:
        for got, wanted in zip(completions, expected, strict=True):
            assert (got.ids, got.finish_reason, got.n_prompt) == (wanted.ids, wanted.finish_reason, wanted.n_prompt)
            exact = got.logprobs == wanted.logprobs
            assert exact or (runner_kind == "torch" and got.logprobs == pytest.approx(wanted.logprobs, abs=1e-4))

    return check


def record(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches of the steps to come."""
    batches: list[Batch] = []
    run = engine.runner.run
    monkeypatch.setattr(engine.runner, "run", lambda batch: (batches.append(batch), run(batch))[1])
    return batches


def rest(engine: Engine) -> dict[int, Completion]:
    """Step to the end, the books checked after every step."""
    done: dict[int, Completion] = {}
    while engine.busy:
        done |= {piece.request_id: piece.completion for piece in engine.step() if piece.completion}
        engine.check_integrity()
    return done


@pytest.mark.parametrize("wrong", [1000, 3, 1], ids=["right", "mixed", "wrong"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_running": 1},
        {"max_running": 4},
        {"max_running": 4, "page_size": 1},
        {"max_running": 4, "page_size": 3},
        {"max_running": 4, "share_prefixes": False},
        {"max_running": 4, "token_budget": 6},
        {"max_running": 4, "n_pages": 9},
        {"max_running": 4, "n_pages": 9, "share_prefixes": False},
    ],
    ids=str,
)
def test_drafts_change_no_completion(
    make_engine: MakeEngine,
    unchanged: Callable[..., None],
    mixed: list[Request],
    settings: dict[str, int | bool],
    wrong: int,
):
    plain = make_engine(**settings)
    expected = plain.generate(mixed)
    engine = make_engine(**settings, drafter=Foresight(mixed, expected, wrong))
    order = [engine.submit(request) for request in mixed]
    done = rest(engine)
    unchanged([done[i] for i in order], expected)
    stats = engine.stats()
    # Requests that begin alike may be told each other's ids, so one of the wrong ones may be right.
    assert stats.n_drafted > 0 and (stats.n_accepted > stats.n_drafted / 20) == (wrong > 1)
    fewer = plain.stats().n_steps - stats.n_steps
    assert "n_pages" in settings or (fewer > 0 if wrong > 1 else fewer <= stats.n_accepted)
    assert (stats.n_drafted, stats.n_accepted) == tuple(
        sum(getattr(completion, name) for completion in done.values()) for name in ("n_drafted", "n_accepted")
    )
    assert stats.new_tokens == sum(len(completion.ids) for completion in expected)


def test_looking_up_the_prompt_changes_no_completion(
    make_engine: MakeEngine, unchanged: Callable[..., None], prompt: MakePrompt
):
    params = [SamplingParams(max_tokens=60, temperature=t, seed=s) for s, t in enumerate((0.0, 0.0, 0.3, 1.0))]
    requests = [Request(prompt(7, seed=i) * 3, one) for i, one in enumerate(params)]
    engine = make_engine(drafter=PromptLookup)
    unchanged(engine.generate(requests), make_engine().generate(requests))
    assert 0 < engine.stats().n_accepted < engine.stats().n_drafted


def test_steps_and_tokens_of_a_draft_add_up(make_engine: MakeEngine, prompt: MakePrompt):
    request = Request(prompt(5), GREEDY)
    (expected,) = make_engine().generate([request])
    engine = make_engine(drafter=Foresight([request], [expected]))
    engine.submit(request)
    # The prompt gives one id; then three are drafted and four drawn, twice.
    steps = [[piece.id for piece in engine.step()] for _ in range(3)]
    assert [len(ids) for ids in steps] == [1, 4, 4] and tuple(chain(*steps)) == expected.ids
    stats = engine.stats()
    assert (stats.n_steps, stats.new_tokens, stats.n_drafted, stats.n_accepted) == (3, 9, 6, 6)


@pytest.mark.parametrize("n", range(1, 10))
def test_whatever_ends_a_completion_ends_it_within_a_draft(
    make_engine: MakeEngine,
    unchanged: Callable[..., None],
    prompt: MakePrompt,
    n: int,
):
    class After:
        def __init__(self) -> None:
            self.ids: list[int] = []

        def push(self, id: int) -> bool:
            self.ids.append(id)
            return len(self.ids) == n

    whole = Request(prompt(5), replace(GREEDY, temperature=1.0, seed=3))
    free = make_engine().generate([whole])
    stop_id = frozenset({free[0].ids[n - 1]})
    stopper, drafted_stopper = After(), After()
    endings = [
        (replace(whole, stop_ids=stop_id), replace(whole, stop_ids=stop_id)),
        (replace(whole, stopper=stopper), replace(whole, stopper=drafted_stopper)),
        (replace(whole, params=replace(whole.params, max_tokens=n)),) * 2,
    ]
    for plain, drafted in endings:
        engine = make_engine(drafter=Foresight([whole], free))
        unchanged(engine.generate([drafted]), make_engine().generate([plain]))
    assert drafted_stopper.ids == stopper.ids == list(free[0].ids[:n])


@pytest.mark.parametrize("n_prompt", range(8, 14))
def test_the_end_of_the_context_ends_a_completion_within_a_draft(
    make_engine: MakeEngine,
    build_model: Callable[..., Transformer],
    unchanged: Callable[..., None],
    prompt: MakePrompt,
    n_prompt: int,
    monkeypatch: pytest.MonkeyPatch,
):
    request = Request(prompt(n_prompt), SamplingParams(max_tokens=100))
    for settings in ({"model": build_model(max_seq_len=16)}, {"n_pages": 4}):
        expected = make_engine(**settings).generate([request])
        engine = make_engine(**settings, drafter=Foresight([request], expected))
        batches = record(engine, monkeypatch)
        unchanged(engine.generate([request]), expected)
        assert len(expected[0].ids) == 16 - n_prompt
        assert max(batch.positions_N.max() for batch in batches) == 14


def test_a_draft_takes_no_page_that_another_request_needs(
    make_engine: MakeEngine, unchanged: Callable[..., None], prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
):
    """Two of three pages each at their ends, six pages in all: the first's drafts would like a fourth."""

    class AfterEight:
        n = 0

        def push(self, _: int) -> bool:
            self.n += 1
            return self.n == 8

    def requests() -> list[Request]:
        return [Request(prompt(n), replace(GREEDY, max_tokens=20), stopper=AfterEight()) for n in (5, 3)]

    expected = make_engine().generate(requests())
    drafts = Foresight(requests(), [replace(one, ids=one.ids + (0,) * 9) for one in expected], wrong=1)
    engine = make_engine(n_pages=6, drafter=drafts)
    batches = record(engine, monkeypatch)
    unchanged(engine.generate(requests()), expected)
    assert engine.stats().n_preempted == 0
    lengths = [[one.length for one in batch.prefills] for batch in batches[1:]]
    assert max(map(max, lengths)) > 12, "no draft reached into a fourth page while there was one"


def test_a_draft_is_cut_where_pages_end(make_engine: MakeEngine, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch):
    requests = [Request(prompt(n), GREEDY) for n in (5, 6)]
    expected = make_engine().generate(requests)
    engine = make_engine(n_pages=5, drafter=Foresight(requests, expected))
    batches = record(engine, monkeypatch)
    for request in requests:
        engine.submit(request)
    engine.step()
    engine.step()
    # Of five pages of four the prompts hold two each. The first's 6 ids and 3 drafted ones take the fifth; beside the
    # other's 7 there is room for one.
    assert [(one.n_tokens, one.length) for one in batches[1].prefills] == [(4, 9), (2, 8)]
    rest(engine)


def test_only_ids_that_were_taken_can_be_found_by_others(
    make_engine: MakeEngine, unchanged: Callable[..., None], prompt: MakePrompt
):
    request = Request(prompt(6), GREEDY)
    expected = make_engine().generate([request])
    right = make_engine(drafter=Foresight([request], expected))
    right.generate([request])
    right.drafter = None
    # 6 + 9 tokens, 14 of them computed: 3 pages, as without drafts. The last four ids came in one step.
    (second,) = right.generate([(*prompt(6), *expected[0].ids, 5)], GREEDY)
    assert second.n_cached == 12
    wrong = make_engine(drafter=Foresight([request], expected, wrong=5))
    wrong.generate([request])
    drafted = [*prompt(6), *expected[0].ids]
    drafted[10] = (drafted[10] + 1) % VOCAB  # as it was drafted, in the third page
    wrong.drafter = None
    again = wrong.generate([Request((*drafted, 5), GREEDY)])
    assert again[0].n_cached == 8
    unchanged(again, make_engine().generate([Request((*drafted, 5), GREEDY)]))


def test_some_draft_and_others_do_not(make_engine: MakeEngine, unchanged: Callable[..., None], prompt: MakePrompt):
    requests = [
        Request(prompt(n, seed=n), SamplingParams(max_tokens=25, temperature=n % 2, seed=n))
        for n in (3, 5, 8, 9, 12, 17)
    ]
    expected = make_engine().generate(requests)
    drafters = cycle([Silence(), Silence(), Foresight(requests, expected, wrong=7)])
    engine = make_engine(drafter=lambda: next(drafters))
    completions = engine.generate(requests)
    unchanged(completions, expected)
    assert [completion.n_accepted > 0 for completion in completions] == [False, False, True] * 2


def test_cancelling_at_any_step_frees_everything_and_disturbs_nobody(
    make_engine: MakeEngine, unchanged: Callable[..., None], mixed: list[Request]
):
    expected = make_engine().generate(mixed)
    for n_steps in range(1, 6):
        engine = make_engine(n_pages=30, max_running=6, drafter=Foresight(mixed, expected, wrong=4))
        order = [engine.submit(request) for request in mixed]
        done: dict[int, Completion] = {}
        for _ in range(n_steps):
            done |= {p.request_id: p.completion for p in engine.step() if p.completion}
        for request_id in order[::2]:
            cancelled = engine.cancel(request_id)
            if cancelled is not None:
                assert cancelled.ids == expected[request_id].ids[: len(cancelled.ids)]
            engine.check_integrity()
        done |= rest(engine)
        unchanged([done[i] for i in order[1::2]], expected[1::2])


@pytest.mark.parametrize("fails", ["run", "sample", "stopper"])
def test_a_step_that_failed_leaves_nothing_of_its_drafts(
    make_engine: MakeEngine,
    unchanged: Callable[..., None],
    mixed: list[Request],
    fails: str,
    monkeypatch: pytest.MonkeyPatch,
):
    class Fails:
        """The third id comes within the first draft."""

        n = 0

        def push(self, _: int) -> bool:
            self.n += 1
            if self.n == 3 and fails == "stopper":
                raise MemoryError
            return False

    def fail(*_: object) -> None:
        raise MemoryError

    requests = [replace(mixed[0], stopper=Fails()), *mixed[1:5]]
    expected = make_engine().generate(mixed[:5])
    engine = make_engine(drafter=Foresight(mixed[:5], expected))
    order = [engine.submit(request) for request in requests]
    engine.step()
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        if fails != "stopper":
            patch.setattr(engine.runner, fails, fail)
        engine.step()
    engine.check_integrity()
    assert engine.stats().pages_held == 0
    done = rest(engine)
    unchanged([done[i] for i in order], expected)
    assert engine.stats().n_accepted > 0


def test_drafts_share_a_number_of_rows_and_are_none_where_many_run(
    make_engine: MakeEngine, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch
):
    requests = [Request(prompt(5, seed=s), GREEDY) for s in range(ROWS)]
    expected = make_engine().generate(requests)
    for n, drafted in ((4, [3, 3, 3, 3]), (5, [3, 2, 2, 2, 2]), (ROWS - 1, [1]), (ROWS, [])):
        engine = make_engine(drafter=Foresight(requests, expected))
        batches = record(engine, monkeypatch)
        for request in requests[:n]:
            engine.submit(request)
        engine.step()
        engine.step()
        assert sorted((one.n_tokens - 1 for one in batches[1].prefills), reverse=True) == drafted
        assert batches[1].n_tokens == n + sum(drafted) <= ROWS
        rest(engine)


def test_nobody_drafts_beside_a_prompt(make_engine: MakeEngine, prompt: MakePrompt, monkeypatch: pytest.MonkeyPatch):
    requests = [Request(prompt(n), GREEDY) for n in (5, ROWS)]
    expected = make_engine().generate(requests)
    engine = make_engine(drafter=Foresight(requests, expected))
    engine.submit(requests[0])
    engine.step()
    engine.submit(requests[1])
    batches = record(engine, monkeypatch)
    engine.step()
    assert batches[0].n_tokens == 1 + ROWS
    rest(engine)
    assert engine.stats().n_accepted > 0
