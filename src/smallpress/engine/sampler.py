"""Logits in, one id a row out, with its log-probability.

The draw is an inverse cumulative distribution: the first id at which the running sum of weights exp((logit - max) / T)
passes u * total. Summing is done in two levels, blocks of 256 ids and then the ids of one block, so that no running sum
over the whole vocabulary is formed and no weight but those of one block is kept. Filters are one threshold a row:
weights below it count as zero.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smallpress.engine.named_weights import broken_logits
from smallpress.engine.randomness import uniforms
from smallpress.engine.request import SamplingParams

BLOCK = 256
ROWS_AT_ONCE = 8  # 8 x 49,152 fp32 weights stay in a processor's second cache
FIRST_SORTED = 1024  # how many of the likeliest ids top-p looks at before it looks at all


def sample(
    logits_BV: Tensor, params: Sequence[SamplingParams], indices: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Draw one id a row; `indices[b]` is the place of the new token in row b's completion.

    The log-probability is of softmax(logits / T) over the whole vocabulary, before filters; a greedy row (T = 0) takes
    the best id and reports T = 1. Raises UserError when a row holds NaN or +infinity; -infinity is a forbidden id.
    """
    assert len(logits_BV) == len(params) == len(indices), f"{len(logits_BV)=} {len(params)=} {len(indices)=}"
    device = logits_BV.device
    cool_B1 = torch.tensor([[1.0 / p.temperature if p.temperature else 1.0] for p in params], device=device)
    best_B1, sums_BC = _best_and_sums(logits_BV, cool_B1)
    totals_B1 = sums_BC.sum(-1, keepdim=True)
    broken = (~torch.isfinite(totals_B1)).nonzero()
    if len(broken):
        raise broken_logits(int(broken[0, 0]), len(params))
    thresholds_B1 = torch.zeros_like(cool_B1)
    filtered = [row for row, p in enumerate(params) if p.filtered and p.temperature]
    if filtered:
        weights_FV = _weights(logits_BV[filtered], best_B1[filtered], cool_B1[filtered])
        thresholds_B1[filtered] = _thresholds(weights_FV, totals_B1[filtered], [params[row] for row in filtered])
        sums_BC[filtered] = _block_sums(weights_FV.masked_fill_(weights_FV < thresholds_B1[filtered], 0.0))
    draws_B1 = torch.from_numpy(uniforms([p.seed for p in params], indices)).to(device)[:, None]
    ids_B1 = _draw(logits_BV, (best_B1, cool_B1, thresholds_B1), sums_BC, draws_B1)
    greedy = [row for row, p in enumerate(params) if not p.temperature]
    if greedy:
        ids_B1[greedy] = logits_BV[greedy].argmax(-1, keepdim=True)
    logprobs_B1 = (logits_BV.gather(-1, ids_B1).double() - best_B1) * cool_B1 - totals_B1.log()
    return ids_B1[:, 0].tolist(), logprobs_B1[:, 0].tolist()


def _weights(logits_BV: Tensor, best_B1: Tensor, cool_B1: Tensor) -> Tensor:
    """exp((logit - best) / T), fp32."""
    return logits_BV.float().sub(best_B1).mul_(cool_B1).exp_()


def _best_and_sums(logits_BV: Tensor, cool_B1: Tensor) -> tuple[Tensor, Tensor]:
    """The best logit of each row and the block sums of its weights; a few rows at a time, in one buffer."""
    B, V = logits_BV.shape
    all_at_one = bool((cool_B1 == 1.0).all())
    buffer = torch.empty(min(B, ROWS_AT_ONCE), V, dtype=torch.float32, device=logits_BV.device)
    best, sums = [], []
    for start in range(0, B, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        weights_BV = buffer[: B - start].copy_(logits_BV[rows])
        best.append(weights_BV.amax(-1, keepdim=True))
        weights_BV.sub_(best[-1])
        if not all_at_one:
            weights_BV.mul_(cool_B1[rows])
        sums.append(_block_sums(weights_BV.exp_()))
    return torch.cat(best), torch.cat(sums)


def _block_sums(weights_BV: Tensor) -> Tensor:
    """[B, ceil(V / BLOCK)], fp64; the last block may be short."""
    n_whole = weights_BV.shape[1] // BLOCK * BLOCK
    sums_BC = weights_BV[:, :n_whole].unflatten(-1, (-1, BLOCK)).sum(-1).double()
    if n_whole == weights_BV.shape[1]:
        return sums_BC
    return torch.cat((sums_BC, weights_BV[:, n_whole:].sum(-1, keepdim=True).double()), dim=-1)


def _draw(logits_BV: Tensor, row: tuple[Tensor, Tensor, Tensor], sums_BC: Tensor, draws_B1: Tensor) -> Tensor:
    """The first id at which the running sum exceeds draw * total; an id of weight zero is never that one.

    `row` is each row's best logit, 1 / T and threshold, from which the weights of the one block are found again.
    """
    V = logits_BV.shape[1]
    best_B1, cool_B1, thresholds_B1 = row
    running_BC = sums_BC.cumsum(-1)
    target_B1 = draws_B1 * running_BC[:, -1:]
    block_B1 = _first_above(running_BC, target_B1)
    rest_B1 = target_B1 - (running_BC - sums_BC).gather(-1, block_B1)
    ids_BI = block_B1 * BLOCK + torch.arange(BLOCK, device=logits_BV.device)
    weights_BI = _weights(logits_BV.gather(-1, ids_BI.clamp(max=V - 1)), best_B1, cool_B1)
    weights_BI.masked_fill_((ids_BI >= V) | (weights_BI < thresholds_B1), 0.0)
    return ids_BI.gather(-1, _first_above(weights_BI.double().cumsum(-1), rest_B1))


def _first_above(running_BI: Tensor, target_B1: Tensor) -> Tensor:
    """Where each row first exceeds its target; one that rounding has lifted to the row's end is taken just below it."""
    return torch.searchsorted(running_BI, torch.minimum(target_B1, running_BI[:, -1:] * (1 - 2.0**-50)), right=True)


def _thresholds(weights_FV: Tensor, totals_F1: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """[F, 1]: the smallest weight each row keeps. The best id weighs 1, so min-p is a threshold as it stands."""
    V, device = weights_FV.shape[1], weights_FV.device
    min_p_F1 = torch.tensor([[p.min_p] for p in params], device=device)
    if all(p.top_k == 0 and p.top_p == 1.0 for p in params):
        return min_p_F1
    top_k_F1 = torch.tensor([[min(p.top_k, V) or V] for p in params], device=device)
    top_p_F1 = torch.tensor([[p.top_p] for p in params], dtype=torch.float64, device=device)
    n_sorted = min(V, max(FIRST_SORTED, max(p.top_k for p in params)))
    while True:
        sorted_FS = weights_FV.topk(n_sorted, dim=-1).values
        running_FS = sorted_FS.double().cumsum(-1)
        last_F1 = top_k_F1.clamp(max=n_sorted) - 1
        wanted_F1 = top_p_F1 * torch.where(top_k_F1 < V, running_FS.gather(-1, last_F1), totals_F1)
        if n_sorted == V or bool(((running_FS[:, -1:] >= wanted_F1) | (top_p_F1 == 1.0)).all()):
            break
        n_sorted = V
    reached_F1 = torch.searchsorted(running_FS, wanted_F1).clamp_(max=n_sorted - 1)
    by_p_F1 = torch.where(top_p_F1 < 1.0, sorted_FS.gather(-1, reached_F1), 0.0)
    by_k_F1 = torch.where(top_k_F1 < V, sorted_FS.gather(-1, last_F1), 0.0)
    return torch.stack((min_p_F1, by_p_F1, by_k_F1)).amax(0)
