"""Completions held to a form: nothing but what is allowed is drawn, by either runner, and others notice nothing."""

from dataclasses import dataclass, field, replace

import numpy as np

from smallpress.engine.adjust import drawn_again
from smallpress.engine.drafts import PromptLookup
from smallpress.engine.request import Request, SamplingParams

SAMPLED = SamplingParams(max_tokens=12, seed=3, temperature=1.0, top_p=0.9)


@dataclass
class Alternating:
    """Ids below 10 at even places, 50 and above at odd ones; free for the first `free`, over after `n`."""

    free: int = 0
    n: int = 99
    ids: list[int] = field(default_factory=list)

    def allowed(self):
        if len(self.ids) < self.free:
            return None
        return np.arange(10) if len(self.ids) % 2 == 0 else np.arange(50, 60)

    def push(self, id: int) -> bool:
        self.ids.append(id)
        return len(self.ids) >= self.n


def holds(ids, free=0) -> bool:
    return all((id < 10 if i % 2 == 0 else 50 <= id < 60) for i, id in enumerate(ids) if i >= free)


def test_only_what_is_allowed_is_drawn(make_engine, prompt):
    engine = make_engine(drafter=PromptLookup)
    constraints = [Alternating(), Alternating(free=4), Alternating(n=5)]
    requests = [Request(prompt(9), SAMPLED, constraint=constraint) for constraint in constraints]
    plain = engine.generate([Request(prompt(9), SAMPLED)])[0]
    held, freed, short, again = engine.generate([*requests, Request(prompt(9), SAMPLED)])
    assert holds(held.ids) and len(held.ids) == 12 and held.finish_reason == "length"
    assert holds(freed.ids, free=4) and freed.ids[:4] == plain.ids[:4] and not holds(plain.ids)
    assert holds(short.ids) and len(short.ids) == 5 and short.finish_reason == "stop"
    assert again.ids == plain.ids
    assert [constraint.ids for constraint in constraints] == [list(c.ids) for c in (held, freed, short)]
    assert held.n_drafted == freed.n_drafted == 0


def test_a_constraint_goes_on_after_its_request_gave_its_pages_back(make_engine, prompt):
    params = replace(SAMPLED, max_tokens=20)
    wide = make_engine().generate([Request(prompt(9), params, constraint=Alternating())])[0]
    engine = make_engine(n_pages=11)  # two of 29 tokens want 16 pages of 4
    first, second = engine.generate([Request(prompt(9), params, constraint=Alternating()) for _ in range(2)])
    assert first.ids == second.ids == wide.ids and engine.stats().n_preempted > 0


def test_log_probabilities_are_over_what_is_allowed():
    logits_V = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    greedy = SamplingParams(temperature=0.0, n_top=3)
    id, logprob, top = drawn_again(logits_V, greedy, [], np.array([2, 3]), 0)
    assert id == 2 and abs(logprob - np.log(2 / 3)) < 1e-6
    assert [i for i, _ in top] == [2, 3]
