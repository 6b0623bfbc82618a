"""The loss of a micro-batch: the algorithm's objective, corrected for the sampler, with the KL leash."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smallpress.rl.algorithm import Algorithm, Clip, Terms


def k3(policy_logprobs_P: Tensor, ref_logprobs_P: Tensor) -> Tensor:
    """[P]: pi_ref / pi - log(pi_ref / pi) - 1, an unbiased estimate of KL(pi, pi_ref) that is never negative.

    DeepSeekMath eq. 4. It has no upper bound: a token that pi_ref likes and pi has all but dropped costs e^gap.
    """
    gap_P = ref_logprobs_P - policy_logprobs_P
    return gap_P.expm1() - gap_P


def sampler_weights(old_logprobs_P: Tensor, sampler_logprobs_P: Tensor, cap: float) -> Tensor:
    """[P]: min(pi_old / pi_sampler, cap), truncated importance weights (Yao et al. 2025, TIS).

    The engine rounds otherwise than the trainer (another batch, maybe 8 bits): a token drawn from pi_sampler is counted
    as if drawn from pi_old.
    """
    return (old_logprobs_P - sampler_logprobs_P).exp().clamp(max=cap)


@dataclass(frozen=True, slots=True)
class Leash:
    """beta weighs the KL to the reference model; 0 means there is none."""

    beta: float
    sampler_cap: float


def token_losses(
    algorithm: Algorithm,
    clip: Clip,
    leash: Leash,
    terms: Terms,
    sampler_logprobs_P: Tensor,
    ref_logprobs_P: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """[P] losses, still to be weighted, and [P] arrays for the log under their metric names."""
    objective_P, held_P = algorithm.objective(terms, clip)
    loss_P = -objective_P * sampler_weights(terms.old_logprobs_P, sampler_logprobs_P, leash.sampler_cap)
    with torch.no_grad():
        gap_P = terms.old_logprobs_P - sampler_logprobs_P
        log = {
            "clip_ratio/low_mean": (held_P < 0).float(),
            "clip_ratio/high_mean": (held_P > 0).float(),
            "sampling/logp_difference/mean": gap_P.abs(),
            "sampling/importance_ratio/mean": gap_P.exp(),
        }
    if ref_logprobs_P is not None:
        kl_P = k3(terms.policy_logprobs_P, ref_logprobs_P)
        loss_P = loss_P + leash.beta * kl_P
        log["kl"] = kl_P.detach()
    return loss_P, log
