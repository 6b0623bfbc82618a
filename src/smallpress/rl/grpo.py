"""GRPO: group relative policy optimization (Shao et al. 2024, DeepSeekMath, eq. 3; DeepSeek-R1, eq. 1-3).

    J = mean over rollouts i of (1 / |o_i|) sum over t of min(r_t A_i, clip(r_t, 1 - eps, 1 + eps) A_i)
    A_i = (R_i - mean R) / std R,   r_t = pi(o_t) / pi_old(o_t)

The R1 papers write one ratio for a whole answer; DeepSeekMath and every implementation take one for each token.
Assumes a group holds right and wrong answers alike: one that agrees gives no signal. Long wrong answers are punished
less per token than short ones, which is what Dr. GRPO mends. R1 sets eps = 10 with rollouts 16 updates old.
"""

from smallpress.rl.advantage import normalized
from smallpress.rl.algorithm import Algorithm, Clip, clipped, mean_of_rollout_means

GRPO = Algorithm(normalized, clipped, mean_of_rollout_means, Clip(0.2, 0.2))
