"""How the decode rows of one step are put into rectangles: numpy only, once a step, used by every layer.

A row is one sequence's newest token, which attends to all tokens of its pages. Rows whose tables begin with the same
pages (rollouts of one prompt, chats under one system prompt) read those pages once, together: that is a `Shared`
rectangle. The pages that are left to each row alone make `Own` rectangles. Rows of like size go together, a factor of
four apart at most, so that a long sequence does not stretch a short one to its length.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Shared:
    """G groups of at most R rows; group g reads its first `lengths_G[g]` tokens through `tables_GP`."""

    rows_GR: np.ndarray  # int64 into B; places past a group's end repeat its first row
    filled_GR: np.ndarray  # bool
    tables_GP: np.ndarray  # int64; pages past a group's end repeat its first page
    lengths_G: np.ndarray  # int64, whole pages


@dataclass(frozen=True, slots=True)
class Own:
    """Rows that read `lengths_R[r]` tokens of their own; `tables_RP` has room for at least one token more."""

    rows_R: np.ndarray  # int64 into B
    tables_RP: np.ndarray
    lengths_R: np.ndarray
    n_shared: np.ndarray  # [B]: tokens that each row of the step reads in a `Shared` rectangle instead


def plan_decode(
    tables_BP: np.ndarray, lengths_B: np.ndarray, page_size: int, shares: bool = True
) -> tuple[list[Shared], list[Own]]:
    """Rectangles that together cover every token of every row exactly once; with `shares` False each row on its own."""
    groups, n_shared_B = _groups(tables_BP, lengths_B, page_size) if shares else ([], np.zeros_like(lengths_B))
    return _shared(groups, tables_BP, n_shared_B, page_size), _own(tables_BP, lengths_B, n_shared_B, page_size)


def _size_class(n: int) -> int:
    """0 for n <= 4, 1 for n <= 16, 2 for n <= 64...

    >>> [_size_class(n) for n in (1, 4, 5, 16, 17)]
    [0, 0, 1, 1, 2]
    """
    return max(0, ((n - 1).bit_length() - 1) // 2)


def _groups(tables_BP: np.ndarray, lengths_B: np.ndarray, page_size: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows that read their first pages together, and how many leading pages each row reads so (0: none).

    Tables form a tree: all prompts may begin with one template, and the rollouts of each go on with its question. Rows
    leave a group for a branch of their own where that makes fewer pages to read: the branch reads the group's pages
    once more, but what only the branch shares once instead of once a row.
    """
    n_shared_B = np.zeros(len(lengths_B), dtype=np.int64)
    limits_B = (lengths_B - 1) // page_size  # the page being written is never shared
    groups: list[np.ndarray] = []

    def common(rows: np.ndarray, depth: int) -> int:
        """How many leading pages the rows have in common, given that they agree on the first `depth`."""
        limit = int(limits_B[rows].min())
        same_P = (tables_BP[rows, depth:limit] == tables_BP[rows[0], depth:limit]).all(0)
        return limit if same_P.all() else depth + int(same_P.argmin())

    def branch(rows: np.ndarray, depth: int) -> None:
        """Divide rows that have exactly `depth` pages in common."""
        left = np.ones(len(rows), dtype=bool)
        for page in np.unique(tables_BP[rows, depth]) if depth < tables_BP.shape[1] else ():
            inside = (tables_BP[rows, depth] == page) & (limits_B[rows] > depth)
            deeper = common(rows[inside], depth) if inside.sum() > 1 else depth
            if (inside.sum() - 1) * (deeper - depth) > depth:
                branch(rows[inside], deeper)
                left &= ~inside
        if depth > 0 and left.sum() > 1:
            n_shared_B[rows[left]] = depth
            groups.append(rows[left])

    if len(lengths_B) > 1:
        branch(np.arange(len(lengths_B)), common(np.arange(len(lengths_B)), 0))
    return groups, n_shared_B


def _shared(groups: list[np.ndarray], tables_BP: np.ndarray, n_shared_B: np.ndarray, page_size: int) -> list[Shared]:
    classes: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for rows in groups:
        classes[_size_class(len(rows)), _size_class(int(n_shared_B[rows[0]]))].append(rows)
    result = []
    for members in classes.values():
        n_rows, leaders = [len(rows) for rows in members], [rows[0] for rows in members]
        n_pages = n_shared_B[leaders]
        filled_GR = np.arange(max(n_rows)) < np.asarray(n_rows)[:, None]
        rows_GR = np.repeat(np.asarray(leaders)[:, None], max(n_rows), axis=1)
        rows_GR[filled_GR] = np.concatenate(members)
        result.append(
            Shared(rows_GR, filled_GR, _pad_tables(tables_BP[leaders, : n_pages.max()], n_pages), n_pages * page_size)
        )
    return result


def _own(tables_BP: np.ndarray, lengths_B: np.ndarray, n_shared_B: np.ndarray, page_size: int) -> list[Own]:
    own_B = lengths_B - n_shared_B * page_size
    n_pages_B = own_B // page_size + 1  # one token of room at the end
    classes_B = np.array([_size_class(int(n)) for n in n_pages_B])
    result = []
    for size_class in np.unique(classes_B):
        rows = np.flatnonzero(classes_B == size_class)
        columns = n_shared_B[rows, None] + np.arange(n_pages_B[rows].max())
        tables = tables_BP[rows[:, None], np.minimum(columns, tables_BP.shape[1] - 1)]
        tables = _pad_tables(tables, -(-own_B[rows] // page_size))
        result.append(Own(rows, tables, own_B[rows], n_shared_B * page_size))
    return result


def _pad_tables(tables_RP: np.ndarray, n_pages_R: np.ndarray) -> np.ndarray:
    """Replace what lies past a row's own pages by its first page: masked, but in cache already."""
    return np.where(np.arange(tables_RP.shape[1]) < n_pages_R[:, None], tables_RP, tables_RP[:, :1])
