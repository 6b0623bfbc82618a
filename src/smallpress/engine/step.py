"""A request under way, and the choice of tokens that makes a step."""

from dataclasses import dataclass, field

import numpy as np

from smallpress.engine.batch import Batch, Prefill
from smallpress.engine.drafts import Drafter, Pace
from smallpress.engine.request import Request


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way. The first `n_computed` of its ids have their k and v in `pages`."""

    request_id: int
    request: Request
    max_len: int  # prompt and completion together
    ids: list[int]
    logprobs: list[float] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    root: bytes = b""  # what its first page's name is made from: whoever has another shares nothing with it
    keys: list[bytes] = field(default_factory=list)  # names of its first full pages
    n_computed: int = 0
    n_cached: int | None = None  # set at the first admission
    drafter: Drafter | None = None
    by_modules: bool = (
        False  # whether the model's own modules draft for it; then with what they need of its last token:
    )
    carried: np.ndarray | None = None  # see ModuleDrafts; None: unknown
    pace: Pace = field(default_factory=Pace)
    draft: list[int] = field(default_factory=list)  # ids that run behind its own in the step under way
    n_drafted: int = 0
    n_accepted: int = 0

    @property
    def n_prompt(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def n_new(self) -> int:
        return len(self.ids) - self.n_prompt

    @property
    def n_pending(self) -> int:
        return len(self.ids) - self.n_computed


@dataclass(frozen=True, slots=True)
class Step:
    """`runs` are (sequence, first new position, how many); `samples` are (sequence, index of the run it draws from).

    A run counts its sequence's draft, and a sample draws once from the last own token and from each of the draft.
    `loads` are pages whose content comes from elsewhere.
    """

    runs: list[tuple[Sequence, int, int]]
    samples: list[tuple[Sequence, int]]
    copies: list[tuple[int, int]]
    loads: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def batch(self, page_size: int) -> Batch:
        """The arrays of the step: runs of one token first, then the longer ones, each in the order of `runs`."""
        decodes = [(i, sequence, first) for i, (sequence, first, n) in enumerate(self.runs) if n == 1]
        tables_BP = _rectangle([sequence.pages for _, sequence, _ in decodes])
        firsts_B = np.array([first for _, _, first in decodes], dtype=np.int64)
        pages_B = tables_BP[np.arange(len(decodes)), firsts_B // page_size]
        ids = [sequence.ids[first] for _, sequence, first in decodes]
        positions, slots = [firsts_B], [pages_B * page_size + firsts_B % page_size]
        first_row = {i: row for row, (i, _, _) in enumerate(decodes)}
        last_row = first_row.copy()
        adapters = [sequence.request.adapter for _, sequence, _ in decodes]
        prefills = []
        for i, (sequence, first, n) in enumerate(self.runs):
            if n == 1:
                continue
            table = np.array(sequence.pages, dtype=np.int64)
            first_row[i] = len(ids)
            prefills.append(Prefill(len(ids), n, first + n, table))
            adapters += [sequence.request.adapter] * n
            ids += sequence.ids[first : first + n] + sequence.draft
            positions.append(np.arange(first, first + n))
            slots.append(table[positions[-1] // page_size] * page_size + positions[-1] % page_size)
            last_row[i] = len(ids) - 1
        drawn_S = [last_row[i] - back for sequence, i in self.samples for back in range(len(sequence.draft), -1, -1)]
        place_of = {row: place for place, row in enumerate(sorted(set(drawn_S)))}
        return Batch(
            ids_N=np.array(ids, dtype=np.int64),
            positions_N=np.concatenate(positions),
            slots_N=np.concatenate(slots),
            adapters_N=np.array(adapters, dtype=np.int64),
            request_ids_B=np.array([sequence.request_id for _, sequence, _ in decodes], dtype=np.int64),
            tables_BP=tables_BP,
            lengths_B=firsts_B + 1,
            prefills=tuple(prefills),
            copies=tuple(self.copies),
            logit_rows_R=np.array(list(place_of), dtype=np.int64),
            row_of_sample_S=np.array([place_of[row] for row in drawn_S], dtype=np.int64),
            first_rows=np.array([first_row[i] for i in range(len(self.runs))], dtype=np.int64),
            loads=tuple(self.loads),
        )


def _rectangle(tables: list[list[int]]) -> np.ndarray:
    """Page tables as rows of one length; the rest of a row repeats its first page."""
    width = max(map(len, tables), default=1)
    return np.array([t + t[:1] * (width - len(t)) for t in tables], dtype=np.int64).reshape(len(tables), width)
