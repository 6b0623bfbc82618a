"""What a runner needs to know about one step, as arrays: no requests, no scheduling."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Prefill:
    """Several tokens of one sequence: rows start .. start + n_tokens of the batch, its last n_tokens so far."""

    start: int
    n_tokens: int
    length: int  # tokens of the sequence after this step, drafted ones included
    table: np.ndarray  # [pages_for(length)], int64


@dataclass(frozen=True, slots=True)
class Batch:
    """One step, N tokens: first B decode rows of one token each, then the prefills.

    Every token's k and v are written to its slot before any token of the same layer attends, so a row may read pages
    that another row of the same batch fills.
    """

    ids_N: np.ndarray  # int64
    positions_N: np.ndarray  # int64
    slots_N: np.ndarray  # int64: page * page_size + offset
    adapters_N: np.ndarray  # int64: the number of each row's adapter, 0 for none
    request_ids_B: np.ndarray  # int64: whose token each decode row is
    tables_BP: np.ndarray  # int64; row b is filled up to pages_for(lengths_B[b]), the rest repeats page tables_BP[b, 0]
    lengths_B: np.ndarray  # int64: tokens of the sequence, the one of this step included
    prefills: tuple[Prefill, ...]
    copies: tuple[tuple[int, int], ...]  # (source, target) pages to copy before anything else, one after another
    logit_rows_R: np.ndarray  # int64, rows of N that need logits, each once, in order
    row_of_sample_S: np.ndarray  # int64, into R: the logits of each draw
    first_rows: np.ndarray  # int64, rows of N: where each run of the step begins, in the step's order
    loads: tuple[tuple[int, np.ndarray], ...] = ()  # (page, its bytes) to write after the copies, before anything else

    @property
    def n_tokens(self) -> int:
        return len(self.ids_N)
