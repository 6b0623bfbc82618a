"""The whole registry."""

from smallpress.rl.advantage import leave_one_out
from smallpress.rl.algorithm import Algorithm, Clip, clipped, mean_of_rollout_means
from smallpress.rl.cispo import CISPO
from smallpress.rl.dapo import DAPO
from smallpress.rl.dr_grpo import DR_GRPO
from smallpress.rl.grpo import GRPO
from smallpress.rl.gspo import GSPO

ALGORITHMS: dict[str, Algorithm] = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "rloo": Algorithm(leave_one_out, clipped, mean_of_rollout_means, Clip(0.2, 0.2)),
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
}
