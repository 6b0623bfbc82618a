"""Prefixes that come back: the same tokens as computed ones, from memory or disk, to nobody else."""

import numpy as np
import pytest

from smallpress.engine.engine import Engine
from smallpress.engine.native_runner import NativeRunner
from smallpress.engine.prefix_units import UNIT
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.torch_runner import TorchRunner

PAGE = 16
PARAMS = SamplingParams(max_tokens=4, temperature=0.0)


class Memory(dict):
    """A shelf that keeps units in a dict, in which tests look and meddle."""

    used_last = ()
    room = 1000

    def holds(self, name):
        return name in self

    def read(self, name, n_bytes):
        content = self[name]
        return None if content is None else content.reshape(n_bytes)

    def put(self, name, content):
        if len(self) >= self.room:
            return False
        self[name] = content
        return True

    def used(self, names):
        self.used_last = tuple(names)


@pytest.fixture
def engine(model, runner_kind):
    import torch

    made = []

    def make(shelf, n_pages=40, **settings):
        if runner_kind == "torch":
            runner = TorchRunner(model, PAGE, n_pages, torch.float32)
        else:
            runner = NativeRunner(model.config, dict(model.named_parameters()), PAGE, n_pages)
        made.append(Engine(runner, shelf=shelf, **settings))
        return made[-1]

    yield make
    for one in made:
        one.check_integrity()


def ask(engine, ids, **asker):
    (completion,) = engine.generate([Request(tuple(ids), PARAMS, **asker)])
    while engine.save():
        pass
    return completion


def test_a_later_process_goes_on_with_whole_units_and_gives_the_same_tokens(engine, prompt):
    shelf, ids = Memory(), prompt(200)
    first = ask(engine(shelf), ids)
    assert len(shelf) == 200 // UNIT == 3 and first.n_cached == 0
    again = engine(shelf)
    second = ask(again, ids)
    assert second.n_cached == again.stats().loaded_tokens == 3 * UNIT == 192
    assert second.ids == first.ids
    np.testing.assert_allclose(second.logprobs, first.logprobs, atol=0.05)
    assert len(shelf.used_last) == 3 and again.stats().prefill_tokens == 8


def test_pages_in_memory_are_taken_first_and_the_rest_of_a_unit_from_disk(engine, prompt):
    shelf, ids = Memory(), prompt(150)
    ask(engine(shelf), ids)
    again = engine(shelf)
    ask(again, ids[:40])  # two pages of the first unit of four
    found = ask(again, ids)
    assert found.n_cached == 2 * UNIT and again.stats().loaded_tokens == 2 * UNIT - 2 * PAGE


def test_less_than_a_unit_is_not_kept_and_the_last_token_is_always_computed(engine, prompt):
    shelf, ids = Memory(), prompt(64)
    ask(engine(shelf), ids[:60])
    assert not shelf
    ask(engine(shelf), ids)
    assert len(shelf) == 1 and ask(engine(shelf), ids).n_cached == 0
    assert ask(engine(shelf), [*ids, 5]).n_cached == 64


def test_one_salts_prefixes_are_nobody_elses_in_memory_and_on_disk(engine, prompt):
    shelf, ids = Memory(), prompt(140)
    one = engine(shelf)
    mine = ask(one, ids, salt=b"mine")
    assert ask(one, ids, salt=b"yours").n_cached == ask(one, ids).n_cached == 0
    assert ask(one, ids, salt=b"mine").n_cached == 128 + 8 // PAGE * PAGE
    assert len(shelf) == 3 * 2
    again = engine(shelf)
    assert ask(again, ids, salt=b"theirs").n_cached == again.stats().loaded_tokens == 0
    back = ask(again, ids, salt=b"mine")
    assert back.n_cached == again.stats().loaded_tokens == 128 and back.ids == mine.ids


def test_equal_prompts_of_two_salts_in_one_step_share_nothing(engine, prompt):
    one, ids = engine(Memory()), prompt(140)
    salts = (b"a", b"a", b"b")
    done = one.generate([Request(tuple(ids), PARAMS, salt=salt) for salt in salts])
    assert [c.n_cached for c in done] == [0, 140, 0]


def test_a_unit_that_is_lost_or_damaged_is_computed(engine, prompt):
    shelf, ids = Memory(), prompt(200)
    first = ask(engine(shelf), ids)
    shelf[list(shelf)[1]] = None
    found = ask(engine(shelf), ids)
    assert found.n_cached == UNIT and found.ids == first.ids


def test_a_disk_that_takes_nothing_loses_units_and_no_tokens(engine, prompt):
    shelf = Memory()
    shelf.room = 1
    one = engine(shelf, n_pages=14)
    for seed in range(3):
        one.generate([Request(prompt(130, seed=seed), PARAMS)])
    assert len(shelf) == 1 and one.save()
    shelf.room = 1000
    # Of six units one was taken; 14 pages hold one more of the second prompt, both of the third.
    assert not one.save() and len(shelf) == 4


def test_more_than_the_pool_holds_comes_back_to_many_at_once(engine, prompt):
    shelf, prompts = Memory(), [prompt(130, seed=seed) for seed in range(6)]
    first = [ask(engine(shelf), ids) for ids in prompts]
    tight = engine(shelf, n_pages=20)
    done = tight.generate([Request(ids, PARAMS) for ids in prompts])
    assert [c.ids for c in done] == [c.ids for c in first]
    assert all(c.n_cached == 128 for c in done)


def test_new_weights_let_the_shelf_go(engine, prompt, model):
    shelf, one = Memory(), None
    one = engine(shelf)
    ask(one, prompt(130))
    one.update_weights(dict(model.named_parameters()))
    assert ask(one, prompt(130)).n_cached == 0 and not one.save()


def test_a_page_goes_through_bytes_unchanged(engine, prompt):
    one = engine(Memory())
    ask(one, prompt(40))
    runner = one.runner
    rows = runner.read_pages([0, 1])
    assert rows.shape == (2, runner.page_bytes) and rows.dtype == np.uint8
    runner.write_pages([7, 5], rows)
    assert (runner.read_pages([5, 7]) == rows[::-1]).all()
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        runner.write_pages([10_000], rows[:1])
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        runner.write_pages([1], rows[:1, :-2])
