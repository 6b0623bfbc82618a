"""The engine: requests in, ids out. The same one serves chat, server, evaluation and the rollouts of training.

The life of a request:

1. `submit` checks it and puts it at the end of the waiting line.
2. A later `step` admits it: pages that already hold the beginning of its ids are shared, a request equal to one that is
   being prefilled in the same step shares all of it (scheduler.py, pages.py).
3. The rest of its prompt runs, in chunks where it exceeds the step's token budget, in one forward pass together with
   the next token of every running request (batch.py, torch_runner.py).
4. The last prompt token's logits give the first new id, drawn from its own seed and the id's index (sampler.py).
5. Each step after runs that id and draws the next. Where few requests run, ids that are likely to follow run along, and
   each that is then drawn is taken in the same step (drafts.py).
6. When pages run out, the latest request gives its pages back, waits, and is computed again from its ids.
7. A stop id, its stopper, `max_tokens` or the context's end finishes it. Its full pages stay findable until their room
   is needed.

A step is: schedule, run, sample, collect.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from smallpress.engine.adjust import Top, drawn_again
from smallpress.engine.batch import Batch
from smallpress.engine.drafts import ROW_COST, Drafter, Pace
from smallpress.engine.module_drafts import ModuleDrafts, Modules
from smallpress.engine.pages import PagePool, root_key
from smallpress.engine.prefix_units import UNIT, PrefixUnits, Shelf
from smallpress.engine.request import Completion, FinishReason, Piece, Request, SamplingParams
from smallpress.engine.scheduler import Scheduler
from smallpress.engine.step import Sequence as Running
from smallpress.engine.step import Step
from smallpress.run.errors import UserError
from smallpress.weights.adapter import Adapter

UNITS_AT_ONCE = 8  # handed to the disk between two looks at the inbox


class Runner(Protocol):
    """What computes. `logits` is whatever its own `sample` takes."""

    page_size: int
    n_pages: int
    vocab_size: int
    max_seq_len: int
    n_modules: int  # of multi-token prediction, if it runs them: then it is one of `module_drafts.Modules` too

    @property
    def page_bytes(self) -> int: ...
    @property
    def page_form(self) -> str: ...
    def reset(self) -> None: ...
    def run(self, batch: Batch) -> Any: ...
    def sample(
        self, logits: Any, batch: Batch, params: Sequence[SamplingParams], indices: Sequence[int]
    ) -> tuple[list[int], list[float]]: ...
    def rows(self, logits: Any, batch: Batch, samples: Sequence[int]) -> NDArray[np.float32]: ...
    def update_weights(self, named: Mapping[str, Any]) -> None: ...
    def add_adapter(self, adapter: Adapter) -> int: ...
    def read_pages(self, pages: Sequence[int]) -> NDArray[np.uint8]: ...
    def write_pages(self, pages: Sequence[int], rows: NDArray[np.uint8]) -> None: ...


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the engine was made, and what it holds now."""

    n_steps: int
    prefill_tokens: int  # prompt tokens computed, again after a preemption
    cached_tokens: int  # prompt tokens shared instead of computed
    new_tokens: int
    n_drafted: int
    n_accepted: int  # drafted ids that were drawn
    n_preempted: int
    busy_seconds: float
    n_running: int
    n_waiting: int
    pages_held: int
    n_pages: int
    loaded_tokens: int = 0  # of the cached ones, those that came back from disk

    @property
    def tokens_per_second(self) -> float:
        """New tokens over the time spent in steps, prefill included."""
        return self.new_tokens / self.busy_seconds if self.busy_seconds else 0.0


class Engine:
    """`runner` is the engine's own from here on: its pages are this engine's to hand out.

    A runner with modules drafts with them; else `drafter` makes what drafts for one request, and without it nothing is
    drafted. `row_cost` is what one row more takes, as a share of a step (drafts.py). `shelf` keeps prefixes beyond the
    pool's room and the process's life (prefix_units.py); it is for these weights only, and is let go when they change.
    """

    def __init__(
        self,
        runner: Runner,
        max_running: int = 256,
        token_budget: int = 2048,
        share_prefixes: bool = True,
        drafter: Callable[[], Drafter] | None = None,
        shelf: Shelf | None = None,
        row_cost: float = ROW_COST,
    ):
        self.runner, self.drafter, self.row_cost = runner, drafter, row_cost
        self.modules = ModuleDrafts(cast(Modules, runner)) if runner.n_modules else None
        runner.reset()
        self.pool = PagePool(runner.n_pages, runner.page_size)
        self.units = None if shelf is None else PrefixUnits(runner, self.pool, shelf)
        self.scheduler = Scheduler(self.pool, max_running, token_budget, share_prefixes, self.units, self.modules)
        self._marks = [b""]  # of the model as it is, and of each adapter
        self._live: dict[int, Running] = {}
        self._next_id = 0
        self._n_steps = self._prefill_tokens = self._new_tokens = 0
        self._busy_seconds = 0.0

    @property
    def busy(self) -> bool:
        return bool(self._live)

    @property
    def capacity(self) -> int:
        """Tokens of prompt and completion together that one request can have."""
        return min(self.runner.max_seq_len, self.runner.n_pages * self.runner.page_size)

    def is_running(self, request_id: int) -> bool:
        """Whether the request has been admitted and is not over."""
        return request_id in self.scheduler.running

    def submit(self, request: Request) -> int:
        """Put the request in line; returns its id. UserError when it can never run."""
        capacity, n_prompt = self.capacity, len(request.prompt_ids)
        if n_prompt == 0:
            raise UserError("the prompt is empty", "give at least one token")
        if n_prompt >= capacity:
            raise UserError(f"the prompt has {n_prompt} tokens", f"this engine's context holds {capacity}; shorten it")
        if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < self.runner.vocab_size:
            raise UserError(
                f"the prompt holds ids from {min(request.prompt_ids)} to {max(request.prompt_ids)}",
                f"the model's vocabulary has {self.runner.vocab_size}; use the model's own tokenizer",
            )
        assert 0 <= request.adapter < len(self._marks), f"{request.adapter=} of {len(self._marks) - 1}"
        request_id, self._next_id = self._next_id, self._next_id + 1
        max_len = min(capacity, n_prompt + request.params.max_tokens)
        root = root_key(request.salt, self._marks[request.adapter])
        sequence = Running(request_id, request, max_len, list(request.prompt_ids), root=root, pace=Pace(self.row_cost))
        if request.constraint is None:
            sequence.by_modules = self.modules is not None
            if self.drafter is not None and self.modules is None:
                sequence.drafter = self.drafter()
        self._live[request_id] = sequence
        self.scheduler.add(sequence)
        return request_id

    def step(self) -> list[Piece]:
        """Run what is due; a piece for each new token, those of one request in order. Nothing to do: an empty list."""
        if not self._live:
            return []
        began = time.perf_counter()
        step = self.scheduler.schedule()
        try:
            self.scheduler.draft(step)
            pieces = self._compute(step)
        except BaseException:
            # Pages published for this step were perhaps not filled. Whoever catches may go on stepping.
            self.release()
            raise
        self._n_steps += 1
        if self.units is not None:
            self.units.save(1 + sum(n for _, _, n in step.runs) // UNIT)
        self._busy_seconds += time.perf_counter() - began
        return pieces

    def _compute(self, step: Step) -> list[Piece]:
        batch = step.batch(self.pool.page_size)
        logits = self.runner.run(batch)
        if self.modules is not None:
            self.modules.follow(step, batch)
        pieces = self._draw(step, batch, logits)
        if self.modules is not None:
            self.modules.carry(step, batch)
        return pieces

    def _draw(self, step: Step, batch: Batch, logits: Any) -> list[Piece]:
        self._prefill_tokens += sum(max(0, min(first + n, s.n_prompt) - first) for s, first, n in step.runs)
        if not step.samples:
            return []
        draws = [(sequence, k) for sequence, _ in step.samples for k in range(1 + len(sequence.draft))]
        ids, logprobs = self.runner.sample(
            logits, batch, [s.request.params for s, _ in draws], [s.n_new + k for s, k in draws]
        )
        drawn = zip(ids, logprobs, self._adjust(logits, batch, draws, ids, logprobs), strict=True)
        return [
            piece
            for sequence, _ in step.samples
            for piece in self._collect(sequence, list(islice(drawn, 1 + len(sequence.draft))))
        ]

    def _adjust(
        self, logits: Any, batch: Batch, draws: list[tuple[Running, int]], ids: list[int], logprobs: list[float]
    ) -> list[Top]:
        """Draw again, in place, where a request asks for what the runners do not know (adjust.py)."""
        tops: list[Top] = [()] * len(draws)
        asked = [(s.request.params, s.request.constraint) for s, _ in draws]
        allowed = [constraint.allowed() if constraint is not None else None for _, constraint in asked]
        wanted = [
            i for i, (params, _) in enumerate(asked) if params.n_top or params.changes_logits or allowed[i] is not None
        ]
        if not wanted:
            return tops
        for i, logits_V in zip(wanted, self.runner.rows(logits, batch, wanted), strict=True):
            sequence, k = draws[i]
            new_ids = sequence.ids[sequence.n_prompt :] + sequence.draft[:k]
            ids[i], logprobs[i], tops[i] = drawn_again(logits_V, asked[i][0], new_ids, allowed[i], ids[i])
        return tops

    def _collect(self, sequence: Running, drawn: list[tuple[int, float, Top]]) -> list[Piece]:
        """Take what was drawn up to the first id that is not the drafted one: from there on, others had been run."""
        pieces, n_right = [], 0
        for (id, logprob, top), drafted in zip(drawn, [*sequence.draft, None], strict=True):
            reason = self._append(sequence, id, logprob)
            n_right += id == drafted
            pieces.append(Piece(sequence.request_id, id, logprob, None, top))
            if reason or id != drafted:
                break
        if sequence.draft:
            self.scheduler.settle(sequence, n_right)
        if reason:
            pieces[-1] = replace(pieces[-1], completion=self._finish(sequence, reason))
        return pieces

    def _append(self, sequence: Running, id: int, logprob: float) -> FinishReason | None:
        request = sequence.request
        sequence.ids.append(id)
        sequence.logprobs.append(logprob)
        self._new_tokens += 1
        stopped = id in request.stop_ids
        if request.stopper is not None:
            stopped = request.stopper.push(id) or stopped
        if request.constraint is not None:
            stopped = request.constraint.push(id) or stopped
        return "stop" if stopped else "length" if len(sequence.ids) >= sequence.max_len else None

    def _finish(self, sequence: Running, reason: FinishReason) -> Completion:
        del self._live[sequence.request_id]
        self.scheduler.retire(sequence)
        return Completion(
            ids=tuple(sequence.ids[sequence.n_prompt :]),
            logprobs=tuple(sequence.logprobs),
            finish_reason=reason,
            n_prompt=sequence.n_prompt,
            n_cached=sequence.n_cached or 0,
            n_drafted=sequence.n_drafted,
            n_accepted=sequence.n_accepted,
        )

    def save(self) -> bool:
        """Between steps, when there is time: hand prefixes to the disk. Whether more of them wait for it."""
        if self.units is None:
            return False
        self.units.save(UNITS_AT_ONCE)
        return self.units.waiting

    def cancel(self, request_id: int) -> Completion | None:
        """End a request between steps and free what it holds; None when it is already over."""
        sequence = self._live.get(request_id)
        return None if sequence is None else self._finish(sequence, "cancelled")

    def generate(
        self, prompts: Iterable[Request | Sequence[int]], params: SamplingParams | None = None
    ) -> list[Completion]:
        """Run requests to their ends; completions in the order given.

        Plain ids take `params`, the i-th with seed + i, so that equal prompts do not draw alike.

        Interrupted by an error or Ctrl-C, it cancels what it submitted. Other requests in the engine go on meanwhile,
        and their pieces are dropped: do not mix with a caller that streams.
        """
        params = params or SamplingParams()
        requests = [
            p if isinstance(p, Request) else Request(tuple(p), replace(params, seed=(params.seed + i) % 2**63))
            for i, p in enumerate(prompts)
        ]
        order: list[int] = []
        done: dict[int, Completion] = {}
        try:
            for request in requests:
                order.append(self.submit(request))
            while len(done) < len(order):
                for piece in self.step():
                    if piece.completion is not None:
                        done[piece.request_id] = piece.completion
        finally:
            for request_id in order:
                self.cancel(request_id)
        return [done[request_id] for request_id in order]

    def update_weights(self, named: Mapping[str, Any]) -> None:
        """Take over new weights. Requests under way keep their ids so far and are computed again with the new ones."""
        self.release()
        self.units = self.scheduler.units = None
        self.runner.update_weights(named)

    def add_adapter(self, adapter: Adapter) -> int:
        """Returns the number by which requests ask for it. UserError where it can only be run merged."""
        number = self.runner.add_adapter(adapter)
        self._marks.append(adapter.mark())
        assert number == len(self._marks) - 1, f"{number=}"
        return number

    def release(self) -> None:
        """Give back the memory of the cache, for who computes between two rounds; what is under way starts over."""
        self.scheduler.restart()
        self.runner.reset()

    def stats(self) -> Stats:
        return Stats(
            n_steps=self._n_steps,
            prefill_tokens=self._prefill_tokens,
            cached_tokens=self.scheduler.n_cached,
            new_tokens=self._new_tokens,
            n_drafted=self.scheduler.n_drafted,
            n_accepted=self.scheduler.n_accepted,
            n_preempted=self.scheduler.n_preempted,
            busy_seconds=self._busy_seconds,
            n_running=len(self.scheduler.running),
            n_waiting=len(self.scheduler.waiting),
            pages_held=self.pool.n_held,
            n_pages=self.pool.n_pages,
            loaded_tokens=self.units.n_loaded * self.pool.page_size if self.units is not None else 0,
        )

    def check_integrity(self) -> None:
        """Pages, references and requests add up. Called by tests after every test, and cheap enough when idle."""
        self.scheduler.check_integrity()
        in_line = [s.request_id for s in self.scheduler.waiting] + list(self.scheduler.running)
        assert sorted(in_line) == sorted(self._live), f"in line {in_line}, live {list(self._live)}"
        if not self._live:
            assert self.pool.n_held == 0, f"{self.pool.n_held} pages held by nobody"
