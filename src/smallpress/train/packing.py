"""Samples in, micro-batches out: token trees within a budget, a common beginning computed once, nothing seen across.

The samples of a micro-batch lie under what they all begin with (a chat template's system turn), as completions lie
under a prompt in reinforcement learning: each sees that beginning and itself. Those of like length are attended to
together, as one rectangle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smallpress.corpus.packing import common_start, first_fit
from smallpress.model.attention import Group, TokenTree
from smallpress.train.samples import Sample

LIKE = 0.7
"""A sample shorter than this share of a rectangle's longest begins another rectangle."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The last token of a sample predicts nothing and is left out of the tree."""

    tree: TokenTree
    ids_N: Tensor
    rows_P: Tensor  # the row of the tree whose hidden state predicts each trained token
    targets_P: Tensor
    sample_P: Tensor  # which of the samples given a trained token belongs to
    weights_P: Tensor  # of each token in the loss

    @property
    def n_tokens(self) -> int:
        return self.tree.n_tokens


def pack(samples: Sequence[Sample], token_budget: int, weights: Sequence[float] | None = None) -> list[MicroBatch]:
    """Micro-batches of at most `token_budget` tokens; a sample over it has one of its own.

    `weights`: of each sample's trained tokens in the loss; None: all alike, 1 / (trained tokens in all), so that the
    losses of the batches add up to the mean over trained tokens.
    """
    if weights is None:
        weights = [1 / sum(sample.n_trained for sample in samples)] * len(samples)
    shared = len(common_start([sample.ids[:-2] for sample in samples]))
    bins = first_fit([len(sample.ids) - 1 - shared for sample in samples], token_budget - shared)
    return [_lay_out(samples, weights, places) for places in bins]


def _lay_out(samples: Sequence[Sample], weights: Sequence[float], places: Sequence[int]) -> MicroBatch:
    # Every sample keeps at least one row of its own.
    prefix = common_start([samples[i].ids[:-2] for i in places])
    ids, rows, owners = list(prefix), [], []
    targets: list[int] = []
    n_own: list[int] = []
    for i in places:
        sample, start = samples[i], len(ids)
        ids += sample.ids[len(prefix) : -1]
        n_own.append(len(ids) - start)
        for t in range(1, len(sample.ids)):
            if sample.loss_mask[t]:
                rows.append(t - 1 if t <= len(prefix) else start + t - 1 - len(prefix))
                targets.append(sample.ids[t])
                owners.append(i)
    owners_P = torch.tensor(owners)
    return MicroBatch(
        tree=TokenTree(tuple(_rectangles(n_own)), len(prefix)),
        ids_N=torch.tensor(ids),
        rows_P=torch.tensor(rows),
        targets_P=torch.tensor(targets),
        sample_P=owners_P,
        weights_P=torch.tensor(weights, dtype=torch.float32)[owners_P],
    )


def _rectangles(lens: Sequence[int]) -> list[Group]:
    """The samples' own tokens as completions of no prompt, cut into groups where a length falls far below the longest;
    `lens` come in falling order."""
    groups: list[list[int]] = []
    for n in lens:
        if not groups or n < LIKE * groups[-1][0]:
            groups.append([])
        groups[-1].append(n)
    return [Group(0, tuple(group)) for group in groups]
