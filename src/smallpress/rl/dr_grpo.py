"""Dr. GRPO: GRPO done right (Liu et al. 2025, arXiv 2503.20783).

    J = (1 / (number of rollouts * max_tokens)) sum over i, t of min(r_t A_i, clip(r_t) A_i),   A_i = R_i - mean R

Two biases of GRPO go: dividing by the deviation favours questions that are nearly always or never solved, dividing by
the own length favours long wrong answers. Assumes `max_tokens` is the same for all; the gradient is smaller than
GRPO's by the ratio of lengths, so the learning rate may be larger.
"""

from smallpress.rl.advantage import centered
from smallpress.rl.algorithm import Algorithm, Clip, clipped, constant

DR_GRPO = Algorithm(centered, clipped, constant, Clip(0.2, 0.2))
