"""Drafts by the model's own modules of multi-token prediction (DeepSeek-V3, 2024; see model/mtp.py).

Module k takes a token and what module k - 1, or for k = 0 the decoder, made of the token before it, and says the token
k + 1 places after the decoder's own. In a step:

1. `propose`: of each sequence the newest token goes through module 0, which says the first drafted id; that one goes
   through module 1, and so on. Beyond the last module, it goes on with what it made itself.
2. The decoder runs tokens and drafts, as it does any drafts.
3. `follow`: the modules run the same rows with what the decoder has now made of them, so that what the modules keep of
   a token depends on the tokens up to it alone: it lies in the token's page, is shared with it, and where a draft was
   wrong the next step writes over it.
4. `carry`: what was made of a sequence's last token is kept, until the next one of its runs begins.

Where a sequence begins with pages of another's, what was made of the last shared token is not known; zeros stand for
it. That and anything else here can make a draft worse, never a completion.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smallpress.engine.batch import Batch, Prefill
from smallpress.engine.step import Sequence as Running
from smallpress.engine.step import Step

Floats = NDArray[np.float32]


class Modules(Protocol):
    """What a runner with modules has besides: see `NativeRunner`."""

    page_size: int
    n_modules: int

    def hidden(self) -> Floats: ...
    def predict(self, k: int, before_NM: Floats, batch: Batch, rows: NDArray[np.int64]) -> tuple[Floats, list[int]]: ...


class ModuleDrafts:
    def __init__(self, runner: Modules):
        self.runner = runner
        self._made: list[Floats] = []  # of the last step's rows, for each module what goes before the next token

    def propose(self, asked: Sequence[tuple[Running, int]]) -> list[list[int]]:
        """Of each sequence at most so many ids that may follow its own, all together; their pages are there."""
        drafts: list[list[int]] = [[] for _ in asked]
        made: list[Any] = [None] * len(asked)
        for n in range(max((k for _, k in asked), default=0)):
            live = [i for i, (_, k) in enumerate(asked) if n < k and len(drafts[i]) == n]
            if not live:
                break
            k = min(n, self.runner.n_modules - 1)
            # A module that has not seen the newest token yet begins with it.
            before = [_after(asked[i][0].carried, k, made[i]) if n == k else made[i][-1:] for i in live]
            batch = self._batch([(asked[i][0], drafts[i], len(b)) for i, b in zip(live, before, strict=True)])
            hidden_NM, ids = self.runner.predict(k, np.concatenate(before), batch, batch.logit_rows_R)
            for i, prefill, id in zip(live, batch.prefills, ids, strict=True):
                made[i] = hidden_NM[prefill.start : prefill.start + prefill.n_tokens]
                drafts[i] += [id] * (id >= 0)
        return drafts

    def _batch(self, last: Sequence[tuple[Running, list[int], int]]) -> Batch:
        """The last n of each sequence's ids and drafted ones."""
        size = self.runner.page_size
        ids: list[int] = []
        positions, slots, prefills = [], [], []
        for sequence, draft, n in last:
            end = len(sequence.ids) + len(draft)
            table, places = np.array(sequence.pages, dtype=np.int64), np.arange(end - n, end)
            prefills.append(Prefill(len(ids), n, end, table))
            ids += [*sequence.ids[-n:], *draft][-n:]
            positions.append(places)
            slots.append(table[places // size] * size + places % size)
        rows = np.array([prefill.start + prefill.n_tokens - 1 for prefill in prefills], dtype=np.int64)
        none = np.zeros(0, dtype=np.int64)
        return Batch(
            ids_N=np.array(ids, dtype=np.int64),
            positions_N=np.concatenate(positions),
            slots_N=np.concatenate(slots),
            adapters_N=np.zeros(len(ids), dtype=np.int64),
            request_ids_B=none,
            tables_BP=none.reshape(0, 1),
            lengths_B=none,
            prefills=tuple(prefills),
            copies=(),
            logit_rows_R=rows,
            row_of_sample_S=none,
            first_rows=np.array([prefill.start for prefill in prefills], dtype=np.int64),
        )

    def follow(self, step: Step, batch: Batch) -> None:
        """After the decoder has run: the modules over the same rows."""
        made_NM, none = self.runner.hidden(), np.zeros(0, dtype=np.int64)
        self._made = []
        for k in range(self.runner.n_modules):
            before_NM = np.roll(made_NM, 1, axis=0)
            for row, (sequence, _, _) in zip(batch.first_rows, step.runs, strict=True):
                before_NM[row] = 0.0 if sequence.carried is None else sequence.carried[k]
            self._made.append(made_NM)
            made_NM, _ = self.runner.predict(k, before_NM, batch, none)

    def carry(self, step: Step, batch: Batch) -> None:
        """After drafts are settled: of every sequence that goes on, its last token's."""
        runs = [(sequence, i) for i, (sequence, _, _) in enumerate(step.runs)]
        for sequence, i in runs + step.samples:  # some samples are from another's run
            if sequence.n_computed:
                row = batch.first_rows[i] + sequence.n_computed - 1 - step.runs[i][1]
                sequence.carried = np.stack([made_NM[row] for made_NM in self._made])


def _after(carried: Floats | None, k: int, made_NM: Floats | None) -> Floats:
    assert carried is not None, "a sequence drafts that has carried nothing"
    return carried[k, None] if made_NM is None else np.concatenate((carried[k, None], made_NM))
