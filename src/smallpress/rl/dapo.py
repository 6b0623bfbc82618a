"""DAPO: decoupled clip and dynamic sampling (Yu et al. 2025, arXiv 2503.14476).

    J = (1 / number of tokens) sum over i, t of min(r_t A_i, clip(r_t, 1 - 0.2, 1 + 0.28) A_i),   A as in GRPO

The wider upper bound lets rare tokens grow (clip-higher); every token of the step counts once; groups whose rollouts
agree are replaced by new prompts (dynamic sampling); answers near the length limit lose reward gradually
(`reward.overlong`). No KL term. Edge: where no group disagrees within the allowed rounds, the step is empty.
"""

from smallpress.rl.advantage import normalized
from smallpress.rl.algorithm import Algorithm, Clip, clipped, mean_of_tokens

DAPO = Algorithm(normalized, clipped, mean_of_tokens, Clip(0.2, 0.28), dynamic_sampling=True)
