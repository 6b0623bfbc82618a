"""Rows of documents in, what a pass takes: the layout, the tokens, and which of them are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from smallpress.corpus.rows import Row
from smallpress.model.attention import Group, TokenTree


@dataclass(frozen=True, slots=True)
class Pass:
    """What one depth of a batch computes: depth 0 is the decoder, depth d the d-th further module.

    At depth d position i of a row takes token i + d and predicts token i + d + 1, so that a row has T - d positions.
    """

    tree: TokenTree
    ids_N: Tensor
    targets_N: Tensor
    counted_N: Tensor  # 1.0 where the prediction counts, 0.0 where a document ends in between


@dataclass(frozen=True, slots=True)
class RowBatch:
    """B rows of T + 1 tokens. `documents_BS` numbers the documents within each row, all alike where each sees what
    stands before it in the row."""

    ids_BS: Tensor
    documents_BS: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], mask_documents: bool) -> "RowBatch":
        ids_BS = torch.stack([torch.from_numpy(row.ids) for row in rows])
        marks_BS = torch.zeros_like(ids_BS)
        if mask_documents:
            for marks_S, row in zip(marks_BS, rows, strict=True):
                marks_S[torch.from_numpy(row.starts)] = 1
        return cls(ids_BS, marks_BS.cumsum(1))

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        B, S = self.ids_BS.shape
        return B, S - 1

    def at_depth(self, depth: int) -> Pass:
        _, T = self.shape
        n = T - depth
        assert n > 0, f"rows of {T} tokens have nothing to predict at depth {depth}"
        counted_BT = self.documents_BS[:, :n] == self.documents_BS[:, depth + 1 :]
        return Pass(
            tree=self._layout(n),
            ids_N=self.ids_BS[:, depth:T].flatten(),
            targets_N=self.ids_BS[:, depth + 1 :].flatten(),
            counted_N=counted_BT.flatten().float(),
        )

    def _layout(self, n: int) -> TokenTree:
        """The first `n` positions of every row; neighbours of equal length are attended to together."""
        lens = [
            k for row in self.documents_BS[:, :n] for k in torch.unique_consecutive(row, return_counts=True)[1].tolist()
        ]
        return TokenTree(tuple(Group(0, (length,) * len(list(same))) for length, same in groupby(lens)))
