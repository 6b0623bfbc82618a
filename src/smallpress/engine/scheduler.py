"""Which tokens run in the next step, and in which pages their keys and values lie.

Running sequences come first, by priority and in the order they were admitted, then waiting ones, whose turn line.py
says, as long as tokens of the step's budget, places and pages last. A prompt longer than the budget is taken in chunks.
When pages run out, the sequence of the worst priority admitted last gives its pages back and waits at the front; it is
computed again later, and as draws depend only on seed and index, it goes on as if nothing had happened.

Who finds the batch full takes the place of a running sequence of worse priority, or of an owner who has at least two
places more: so places are shared out evenly within a step or a few, and nobody's place is taken back and forth.

Sharing happens at scheduling time. A full page is published as soon as the tokens that fill it are scheduled, because a
step writes all keys of a layer before it reads any; a request whose beginning equals published pages takes them up. A
request whose ids equal those of a sequence that finishes its prefill in this very step is a fork: it runs no token at
all, draws from the same logits, and shares the last, partly filled page too, which is copied when either first writes.

Drafts come last, in rows and pages that nobody else needs, and their tokens count for nothing before they are settled:
a page that only a draft fills is known to nobody, and goes back with the step if the draft was wrong.
"""

from collections import Counter
from collections.abc import Iterator

from smallpress.engine.drafts import ROWS
from smallpress.engine.line import Line
from smallpress.engine.module_drafts import ModuleDrafts
from smallpress.engine.pages import PagePool, page_key
from smallpress.engine.prefix_units import PrefixUnits
from smallpress.engine.step import Sequence, Step

LOAD_BYTES = 256 << 20
"""What a step brings back from disk before it admits no more; the request that goes beyond it is let in."""


class Scheduler:
    def __init__(
        self,
        pool: PagePool,
        max_running: int,
        token_budget: int,
        share_prefixes: bool = True,
        units: PrefixUnits | None = None,
        modules: ModuleDrafts | None = None,
    ):
        assert max_running > 0 and token_budget > 0, f"{max_running=} {token_budget=}"
        self.pool, self.max_running, self.token_budget = pool, max_running, token_budget
        self.share_prefixes, self.units, self.modules = share_prefixes, units, modules
        self.waiting = Line()
        self.running: dict[int, Sequence] = {}  # in order of admission
        self.places: Counter[str] = Counter()  # of each owner among the running
        self._short: Sequence | None = None  # who found too few pages in the last step
        self.n_preempted = self.n_cached = self.n_drafted = self.n_accepted = 0

    def add(self, sequence: Sequence) -> None:
        self.waiting.add(sequence)

    def schedule(self) -> Step:
        step = Step([], [], [])
        self._make_way()
        budget = self._continue_running(step, self.token_budget)
        self._admit(step, budget)
        return step

    def _make_way(self) -> None:
        """Free a place, or pages, for the first in line, where somebody running has a worse claim to them."""
        if not self.waiting or not self.running:
            return
        first = self.waiting.first(self.places)
        if len(self.running) < self.max_running and first is not self._short:
            return
        n_fair = self.places[first.request.owner] + 2
        yielding = [
            sequence
            for sequence in self._by_priority()
            if sequence.request.priority > first.request.priority
            or (sequence.request.priority == first.request.priority and self.places[sequence.request.owner] >= n_fair)
        ]
        if yielding:
            self._preempt(yielding[-1])

    def _by_priority(self) -> list[Sequence]:
        return sorted(self.running.values(), key=lambda sequence: sequence.request.priority)

    def _continue_running(self, step: Step, budget: int) -> int:
        for sequence in self._by_priority():
            n = min(sequence.n_pending, budget)
            if sequence.request_id not in self.running or n == 0:
                continue
            while not self._make_room(step, sequence, n):
                victim = self._by_priority()[-1]
                self._preempt(victim)
                if victim is sequence:
                    break
            else:
                self._run(step, sequence, n)
                budget -= n
        return budget

    def _make_room(self, step: Step, sequence: Sequence, n: int) -> bool:
        """Give the sequence pages of its own for its next n tokens; False, and nothing done, when there are too few."""
        pool = self.pool
        first = sequence.n_computed // pool.page_size
        copy = first < len(sequence.pages) and pool.references[sequence.pages[first]] > 1
        n_fresh = pool.pages_for(sequence.n_computed + n) - len(sequence.pages)
        if pool.n_available < max(n_fresh, 0) + copy:
            return False
        if copy:
            source, sequence.pages[first] = sequence.pages[first], pool.allocate()
            pool.release(source)
            step.copies.append((source, sequence.pages[first]))
        sequence.pages += [pool.allocate() for _ in range(n_fresh)]
        return True

    def _run(self, step: Step, sequence: Sequence, n: int) -> None:
        step.runs.append((sequence, sequence.n_computed, n))
        self.waiting.charge(sequence.request.owner, n)
        sequence.n_computed += n
        if sequence.n_pending == 0:
            step.samples.append((sequence, len(step.runs) - 1))
        self._publish(sequence)

    def _publish(self, sequence: Sequence) -> None:
        n_full = sequence.n_computed // self.pool.page_size
        if self.share_prefixes and n_full > len(sequence.keys):
            n_before = len(sequence.keys)
            for key in self._next_keys(sequence, sequence.n_computed):
                sequence.keys.append(key)
                self.pool.publish(sequence.pages[len(sequence.keys) - 1], key)
            if self.units is not None:
                self.units.offer(sequence.keys, n_before)

    def _next_keys(self, sequence: Sequence, end: int) -> Iterator[bytes]:
        """Names of the sequence's full pages within its first `end` tokens that it has no names for yet."""
        size = self.pool.page_size
        key = sequence.keys[-1] if sequence.keys else sequence.root
        for stop in range((len(sequence.keys) + 1) * size, end + 1, size):
            key = page_key(key, sequence.ids[stop - size : stop])
            yield key

    def _preempt(self, sequence: Sequence) -> None:
        self.n_preempted += 1
        self._leave(sequence)
        self.waiting.put_back(sequence)

    def _leave(self, sequence: Sequence) -> None:
        del self.running[sequence.request_id]
        self.places[sequence.request.owner] -= 1
        self._give_back(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        """The last page first: the beginning of a sequence is what others may share, so it is used again last."""
        for page in reversed(sequence.pages):
            self.pool.release(page)
        sequence.pages, sequence.keys, sequence.n_computed, sequence.draft = [], [], 0, []
        sequence.carried = None

    def _admit(self, step: Step, budget: int) -> None:
        originals = {(s.root, tuple(s.ids)): (s, i) for s, i in step.samples if s.n_new == 0}
        self._short = None
        while self.waiting and len(self.running) < self.max_running:
            sequence = self.waiting.first(self.places)
            whole = sequence.root, tuple(sequence.ids)
            original = originals.get(whole) if self.share_prefixes else None
            if original is not None:
                if not self._fork(step, sequence, *original):
                    break
            elif not self._start(step, sequence, budget):
                break
            else:
                budget -= step.runs[-1][2]
                if sequence.n_pending == 0:
                    originals[whole] = (sequence, len(step.runs) - 1)
            self.waiting.remove(sequence)
            self.running[sequence.request_id] = sequence
            self.places[sequence.request.owner] += 1

    def _spare(self) -> int:
        """Pages left to newcomers when each running sequence is to get one more without preempting anyone."""
        return self.pool.n_available - len(self.running)

    def _fork(self, step: Step, sequence: Sequence, original: Sequence, run: int) -> bool:
        if self._spare() < 1:
            self._short = sequence
            return False
        for page in original.pages:
            self.pool.hold(page)
        sequence.pages, sequence.keys = original.pages.copy(), original.keys.copy()
        sequence.n_computed = original.n_computed
        self._count_cached(sequence, sequence.n_prompt)
        step.samples.append((sequence, run))
        return True

    def _start(self, step: Step, sequence: Sequence, budget: int) -> bool:
        """Take up shared pages and run the first chunk of the rest: at least the last id, whose logits are needed."""
        if budget == 0 or sum(content.nbytes for _, content in step.loads) >= LOAD_BYTES:
            return False
        pool = self.pool
        keys = list(self._next_keys(sequence, len(sequence.ids) - 1)) if self.share_prefixes else []
        shared: list[int] = []
        for page in map(pool.find, keys):
            if page is None:
                break
            shared.append(page)
        n_kept = sum(pool.is_kept(page) for page in shared)
        if self._spare() - n_kept < pool.pages_for(len(sequence.ids)) - len(shared):
            self._short = sequence
            return False
        for page in shared:
            pool.hold(page)
        sequence.pages, sequence.keys = shared, keys[: len(shared)]
        if self.units is not None:
            self._load(step, sequence, keys)
        sequence.n_computed = len(sequence.pages) * pool.page_size
        self._count_cached(sequence, sequence.n_computed)
        n = min(sequence.n_pending, budget)
        assert self._make_room(step, sequence, n), "room was counted above"
        self._run(step, sequence, n)
        return True

    def _load(self, step: Step, sequence: Sequence, keys: list[bytes]) -> None:
        """Pages that the disk has go behind those that were shared."""
        assert self.units is not None
        for content in self.units.missing(keys, len(sequence.pages)):
            key, page = keys[len(sequence.pages)], self.pool.allocate()
            self.pool.publish(page, key)
            sequence.pages.append(page)
            sequence.keys.append(key)
            step.loads.append((page, content))
        self.units.used(sequence.keys)

    def draft(self, step: Step) -> None:
        """Lengthen runs of one token by what may follow it, an even share of the rows to each."""
        n_rows = sum(n for _, _, n in step.runs)
        room = min(ROWS, self.token_budget) - n_rows
        if room <= 0:
            return
        asked = []
        decoding = [(s, i) for s, i in step.samples if s.n_new and step.runs[i][2] == 1 and self._may_draft(s, step)]
        for n_done, (sequence, i) in enumerate(decoding):
            n_ids = len(sequence.ids)
            n_fit = (len(sequence.pages) + self.pool.n_available) * self.pool.page_size - n_ids
            share = -(-room // (len(decoding) - n_done))
            k = min(sequence.pace.length(n_rows), share, n_fit, sequence.max_len - n_ids - 1)
            if k <= 0:
                continue
            if sequence.drafter is None:
                self._fit_pages(sequence, n_ids + k)
                asked.append((sequence, i, k))
                room -= k
            else:
                room -= self._lengthen(step, sequence, i, sequence.drafter.propose(sequence.ids, k))
        if asked:
            assert self.modules is not None
            drafts = self.modules.propose([(sequence, k) for sequence, _, k in asked])
            for (sequence, i, _), draft in zip(asked, drafts, strict=True):
                self._lengthen(step, sequence, i, draft)

    def _may_draft(self, sequence: Sequence, step: Step) -> bool:
        """Modules read pages before the step copies any, and need to know what came before."""
        if not sequence.by_modules or sequence.carried is None:
            return sequence.drafter is not None
        return sequence.pages[-1] not in [target for _, target in step.copies]

    def _lengthen(self, step: Step, sequence: Sequence, run: int, draft: list[int]) -> int:
        n_ids = len(sequence.ids)
        sequence.draft = draft
        self._fit_pages(sequence, n_ids + len(draft))
        step.runs[run] = (sequence, n_ids - 1, 1 + len(draft))
        return len(draft)

    def _fit_pages(self, sequence: Sequence, n_tokens: int) -> None:
        """As many pages as so many tokens need: more of them, or the last ones given back."""
        n_pages = self.pool.pages_for(n_tokens)
        sequence.pages += [self.pool.allocate() for _ in range(n_pages - len(sequence.pages))]
        while len(sequence.pages) > n_pages:
            self.pool.release(sequence.pages.pop())

    def settle(self, sequence: Sequence, n_right: int) -> None:
        """The first `n_right` ids of the draft have become the sequence's own; the pages of the others go back."""
        n_drafted = len(sequence.draft)
        sequence.pace.judge(n_drafted, n_right)
        for counts in (self, sequence):
            counts.n_drafted += n_drafted
            counts.n_accepted += n_right
        sequence.draft, sequence.n_computed = [], len(sequence.ids) - 1
        self._fit_pages(sequence, sequence.n_computed)
        self._publish(sequence)

    def _count_cached(self, sequence: Sequence, n: int) -> None:
        if sequence.n_cached is None:
            sequence.n_cached = min(n, sequence.n_prompt)
            self.n_cached += sequence.n_cached

    def retire(self, sequence: Sequence) -> None:
        """The sequence is over: its pages go back, its full ones stay findable."""
        if sequence.request_id in self.running:
            self._leave(sequence)
        else:
            self.waiting.remove(sequence)

    def restart(self) -> None:
        """Put every running sequence back to waiting, in order, and trust no page: a step failed or weights changed."""
        for sequence in reversed(list(self.running.values())):
            self._preempt(sequence)
        self.pool.forget()
        if self.units is not None:
            self.units.forget()

    def check_integrity(self) -> None:
        self.pool.check_integrity([s.pages for s in self.running.values()])
        assert len(self.running) <= self.max_running, f"{len(self.running)} running, {self.max_running} places"
        counted = Counter(sequence.request.owner for sequence in self.running.values())
        assert counted == +self.places, f"counted {counted}, recorded {self.places}"
        for sequence in self.waiting:
            assert not sequence.pages and not sequence.n_computed, f"request {sequence.request_id} waits with pages"
        for sequence in self.running.values():
            pages = self.pool.pages_for(sequence.n_computed)
            assert len(sequence.pages) == pages, f"request {sequence.request_id}: {sequence}"
            assert not sequence.draft, f"request {sequence.request_id} has a draft between steps"
            assert 0 < sequence.n_computed <= len(sequence.ids) <= sequence.max_len, f"counts of {sequence}"
            assert len(sequence.keys) * self.pool.page_size <= sequence.n_computed, f"names of {sequence}"
