"""Draws that need a row of logits in Python: changed logits, ids held to a form, the likeliest beside the one drawn.

Few requests ask for either, so the runners know nothing of it: they draw every row, and the rows named here are drawn
again from their changed logits, with the same uniform number.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smallpress.engine.randomness import uniforms
from smallpress.engine.request import SamplingParams

Top = tuple[tuple[int, float], ...]


def drawn_again(
    logits_V: NDArray[np.float32],
    params: SamplingParams,
    new_ids: Sequence[int],
    allowed_I: NDArray[np.intp] | None,
    id: int,
) -> tuple[int, float, Top]:
    """(id, log-probability, likeliest) of the token after `new_ids`; `id` stands where nothing changes the logits.

    `allowed_I` are the ids that may be drawn, or None; the log-probabilities are then over these alone.
    """
    if params.changes_logits:
        logits_V = changed_logits(logits_V, params, new_ids)
    if allowed_I is not None:
        logits_V = logits_V[allowed_I]
    if params.changes_logits or allowed_I is not None:
        id = draw(logits_V, params, len(new_ids))
    logprobs_V = log_softmax(logits_V, params.temperature)
    logprob, top = float(logprobs_V[id]), likeliest(logprobs_V, params.n_top)
    if allowed_I is None:
        return id, logprob, top
    return int(allowed_I[id]), logprob, tuple((int(allowed_I[i]), value) for i, value in top)


def changed_logits(
    logits_V: NDArray[np.float32], params: SamplingParams, new_ids: Sequence[int]
) -> NDArray[np.float32]:
    """logits + bias - presence * [seen] - frequency * times seen, over the `new_ids` of the completion so far."""
    changed_V = logits_V.copy()
    for id, bias in params.logit_bias:
        if id < len(changed_V):
            changed_V[id] += bias
    if new_ids and (params.presence_penalty or params.frequency_penalty):
        ids, counts = np.unique(np.asarray(new_ids), return_counts=True)
        changed_V[ids] -= np.float32(params.presence_penalty) + np.float32(params.frequency_penalty) * counts
    return changed_V


def draw(logits_V: NDArray[np.float32], params: SamplingParams, index: int) -> int:
    """One id from one row, by the rules of SamplingParams; `index` is the new token's place in the completion."""
    if not params.temperature:
        return int(logits_V.argmax())
    weights_V = np.exp((logits_V.astype(np.float64) - logits_V.max()) / params.temperature)
    if params.top_k and params.top_k < len(weights_V):
        weights_V[weights_V < np.partition(weights_V, -params.top_k)[-params.top_k]] = 0.0
    if params.top_p < 1.0:
        sorted_V = np.sort(weights_V)[::-1]
        running_V = sorted_V.cumsum()
        last = min(int(np.searchsorted(running_V, params.top_p * running_V[-1])), len(sorted_V) - 1)
        weights_V[weights_V < sorted_V[last]] = 0.0
    weights_V[weights_V < params.min_p] = 0.0
    running_V = weights_V.cumsum()
    target = min(uniforms([params.seed], [index])[0] * running_V[-1], running_V[-1] * (1 - 2.0**-50))
    return int(np.searchsorted(running_V, target, side="right"))


def log_softmax(logits_V: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """log softmax(logits / T) over the whole row, fp64; T = 0 is reported as T = 1."""
    scaled_V = (logits_V.astype(np.float64) - logits_V.max()) / (temperature or 1.0)
    return scaled_V - np.log(np.exp(scaled_V).sum())


def likeliest(logprobs_V: NDArray[np.float64], n: int) -> Top:
    """The `n` likeliest ids and their log-probabilities, best first; of equals the lower id first."""
    n = min(n, len(logprobs_V))
    if n == 0:
        return ()
    ids = np.argpartition(-logprobs_V, n - 1)[:n]
    ids = ids[np.lexsort((ids, -logprobs_V[ids]))]
    return tuple((int(id), float(logprobs_V[id])) for id in ids)
