"""Whose turn it is: places are shared between owners, urgent requests go first, and nothing is lost by giving way."""

from collections import Counter
from itertools import count

from smallpress.engine.line import Line
from smallpress.engine.request import Request, SamplingParams
from smallpress.engine.step import Sequence


def request(ids, owner="", priority=0, n=4, seed=0):
    return Request(tuple(ids), SamplingParams(max_tokens=n, seed=seed), owner=owner, priority=priority)


class Queue:
    """A line with numbered sequences."""

    def __init__(self):
        self.line, self.numbers = Line(), count()

    def add(self, owner="", priority=0):
        sequence = Sequence(next(self.numbers), request([1], owner, priority), 9, [1])
        self.line.add(sequence)
        return sequence

    def take(self, places=None):
        sequence = self.line.first(places or {})
        self.line.remove(sequence)
        return sequence


def test_alone_it_is_first_come_first_served():
    queue = Queue()
    added = [queue.add() for _ in range(5)]
    assert [queue.take() for _ in range(5)] == added and len(queue.line) == 0


def test_owners_take_turns_however_many_requests_one_has():
    queue = Queue()
    for _ in range(10):
        queue.add("many")
    queue.add("few")
    queue.add("few")
    taken = []
    for _ in range(6):
        taken.append(queue.take().request.owner)
        queue.line.charge(taken[-1], 100)
    assert taken == ["many", "few", "many", "few", "many", "many"]


def test_turns_are_counted_in_tokens():
    queue, costs = Queue(), {"long": 300, "short": 100}
    for owner in costs:
        for _ in range(12):
            queue.add(owner)
    taken = []
    for _ in range(8):
        taken.append(queue.take().request.owner)
        queue.line.charge(taken[-1], costs[taken[-1]])
    assert Counter(taken) == {"short": 6, "long": 2}


def test_who_comes_later_neither_waits_for_old_debts_nor_has_saved_up_turns():
    queue = Queue()
    for _ in range(9):
        queue.add("a")
    queue.line.charge("a", 1_000_000)
    queue.add("b")
    queue.add("b")
    taken = []
    for _ in range(4):
        taken.append(queue.take().request.owner)
        queue.line.charge(taken[-1], 10)
    assert taken == ["a", "b", "a", "b"]


def test_a_lower_priority_number_goes_first_whoever_waits():
    queue = Queue()
    late, urgent, plain = queue.add("a", 5), queue.add("b", -5), queue.add("a", 0)
    assert [queue.take({"b": 9}) for _ in range(3)] == [urgent, plain, late]


def run_to_end(engine):
    """Request ids in the order in which they end; the books are checked after each step."""
    ended = []
    while engine.busy:
        ended += [piece.request_id for piece in engine.step() if piece.completion is not None]
        engine.check_integrity()
    return ended


def test_a_key_with_many_requests_does_not_keep_another_waiting(make_engine, prompt):
    engine = make_engine(max_running=4)
    for i in range(40):
        engine.submit(request(prompt(9, seed=i), "many", n=60))
    engine.step()
    mine = [engine.submit(request(prompt(5, seed=50 + i), "few", n=3)) for i in range(2)]
    steps = 0
    while any(id in engine._live for id in mine):
        engine.step()
        steps += 1
    assert steps <= 6 and engine.stats().n_preempted == 2
    assert engine.scheduler.places["many"] in (2, 3, 4)
    for id in list(engine._live):
        engine.cancel(id)
    assert not +engine.scheduler.places


def test_places_are_shared_out_and_not_taken_back_and_forth(make_engine, prompt):
    engine = make_engine(max_running=6)
    for owner in ("a", "b", "c"):
        for i in range(6):
            engine.submit(request(prompt(4, seed=i), owner, n=50, seed=i))
    for _ in range(6):
        engine.step()
    assert engine.scheduler.places == {"a": 2, "b": 2, "c": 2}
    preempted = engine.stats().n_preempted
    for _ in range(20):
        engine.step()
    assert engine.stats().n_preempted == preempted <= 4
    run_to_end(engine)


def test_an_urgent_request_takes_the_place_of_a_patient_one_which_loses_nothing(make_engine, prompt):
    def all_of(urgent):
        engine = make_engine(max_running=1)
        patient = engine.submit(request(prompt(21), priority=3, n=20, seed=7))
        first = [engine.step()[0]]
        if urgent:
            hurry = engine.submit(request(prompt(5), priority=-1, n=3))
            pieces = [piece for _ in range(3) for piece in engine.step()]
            assert [piece.request_id for piece in pieces] == [hurry] * 3
        while engine.busy:
            first += engine.step()
        assert all(piece.request_id == patient for piece in first)
        return [piece.id for piece in first]

    assert all_of(urgent=True) == all_of(urgent=False)


def test_a_worse_or_an_equal_claim_takes_nobodys_place(make_engine, prompt):
    engine = make_engine(max_running=2)
    for i in range(2):
        engine.submit(request(prompt(9, seed=i), "a", n=10))
    engine.step()
    for priority in (0, 5):
        engine.submit(request(prompt(9, seed=9), "a", priority))
    for _ in range(5):
        engine.step()
    assert engine.stats().n_preempted == 0 and engine.stats().n_waiting == 2
    run_to_end(engine)


def test_an_urgent_request_gets_the_pages_it_needs(make_engine, prompt):
    engine = make_engine(n_pages=10, page_size=4, max_running=4)
    patient = [engine.submit(request(prompt(13, seed=i), priority=1, n=6)) for i in range(2)]
    engine.step()
    urgent = engine.submit(request(prompt(24, seed=5), n=3))
    assert run_to_end(engine)[0] == urgent
    assert not any(id in engine._live for id in patient)
