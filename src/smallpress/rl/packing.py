"""Rollouts in, micro-batches out: trees of tokens within a budget, nothing padded, shared prompts computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smallpress.corpus.packing import common_start, first_fit
from smallpress.model.attention import Group, TokenTree


@dataclass(frozen=True, slots=True)
class Trained:
    """One rollout as the update sees it; every token of `ids` is trained on."""

    ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    advantage: float
    weight: float  # of each of its tokens in the loss


@dataclass(frozen=True, slots=True)
class TrainedGroup:
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Trained, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.prompt_ids) + sum(len(rollout.ids) for rollout in self.rollouts)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The last token of a rollout predicts nothing and is left out of the tree."""

    tree: TokenTree
    ids_N: Tensor
    rows_P: Tensor  # the row of the tree whose hidden state predicts each trained token
    targets_P: Tensor
    rollout_P: Tensor
    sampler_logprobs_P: Tensor
    advantages_P: Tensor
    weights_P: Tensor


def pack(groups: Sequence[TrainedGroup], token_budget: int) -> list[MicroBatch]:
    """Micro-batches of at most `token_budget` tokens, groups of like size together, the largest first.

    A group over the budget is taken apart and its prompt repeated; a single rollout over it gets a batch of its own.
    """
    pieces = [piece for group in groups for piece in _split(group, token_budget)]
    bins = first_fit([piece.n_tokens for piece in pieces], token_budget)
    return [_lay_out([pieces[i] for i in members]) for members in bins]


def _split(group: TrainedGroup, token_budget: int) -> list[TrainedGroup]:
    parts: list[list[Trained]] = [[]]
    room = token_budget - len(group.prompt_ids)
    for rollout in sorted(group.rollouts, key=lambda rollout: len(rollout.ids)):
        if parts[-1] and len(rollout.ids) > room:
            parts.append([])
            room = token_budget - len(group.prompt_ids)
        parts[-1].append(rollout)
        room -= len(rollout.ids)
    return [TrainedGroup(group.prompt_ids, tuple(part)) for part in parts]


def _lay_out(groups: Sequence[TrainedGroup]) -> MicroBatch:
    # Every group keeps at least one prompt token of its own: its last row predicts the first tokens of its rollouts.
    prefix = common_start([group.prompt_ids[:-1] for group in groups])
    ids, rows, rollouts, layout = list(prefix), [], [], []
    for group in groups:
        ids += group.prompt_ids[len(prefix) :]
        last_of_prompt = len(ids) - 1
        for rollout in group.rollouts:
            rows += [last_of_prompt, *range(len(ids), len(ids) + len(rollout.ids) - 1)]
            ids += rollout.ids[:-1]
            rollouts.append(rollout)
        lens = tuple(len(rollout.ids) - 1 for rollout in group.rollouts)
        layout.append(Group(len(group.prompt_ids) - len(prefix), lens))
    lens_R = torch.tensor([len(rollout.ids) for rollout in rollouts])

    def spread(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(lens_R)

    return MicroBatch(
        tree=TokenTree(tuple(layout), len(prefix)),
        ids_N=torch.tensor(ids),
        rows_P=torch.tensor(rows),
        targets_P=torch.tensor([id for rollout in rollouts for id in rollout.ids]),
        rollout_P=torch.arange(len(rollouts)).repeat_interleave(lens_R),
        sampler_logprobs_P=torch.tensor([lp for rollout in rollouts for lp in rollout.sampler_logprobs]),
        advantages_P=spread([rollout.advantage for rollout in rollouts]),
        weights_P=spread([rollout.weight for rollout in rollouts]),
    )
