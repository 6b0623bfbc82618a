"""Whether rollouts in int8 teach as well as rollouts in bf16: `python bench/rollout_dtypes.py`, half an hour.

`make demo` with so many steps, under each seed once with rollouts in either. What counts is the accuracy on held-out
sums at the end, measured alike for both; and the difference under the same seed, with a 95 % interval (Student's t over
seeds). Each run is a folder in OUT: one that is over is not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from convergence import interval
from grpo.environment import ROOT

DTYPES = ("bfloat16", "int8")
UNMEASURED = ("measure_n=0", "eval_n=8", "eval_every=1000")
TASK = ("--tasks", "chained_sum:3-5", "--n", 211, "--template", "r1_zero_example")  # all of them that are held out
HOW = (*TASK, "--max-tokens", 96, "--dtype", "bfloat16")


def smallpress(*words: object) -> None:
    command = [sys.executable, "-m", "smallpress.cli.main", *map(str, words), "--offline"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})


def accuracy(folder: Path, dtype: str, seed: int, steps: int) -> float:
    result, model = folder / "held_out.json", folder / "model"
    if not model.exists():
        given = [word for one in (f"rollout_dtype={dtype}", *UNMEASURED) for word in ("--set", one)]
        recipe = ROOT / "recipes" / "demo.toml"
        smallpress("grpo", recipe, "--out", folder, "--steps", steps, "--seed", seed, "--minutes", 1000, *given)
    if not result.exists():
        smallpress("eval", model, *HOW, "--out", result)
    return json.loads(result.read_text())["overall"]["accuracy"]["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("runs/rollout_dtypes"))
    asked = parser.parse_args()
    found: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    for seed in asked.seeds:
        for dtype in DTYPES:
            folder = asked.out / f"{dtype}-{asked.steps}-{seed}"
            found[dtype].append(accuracy(folder, dtype, seed, asked.steps))
            print(f"seed {seed}, {dtype}: {found[dtype][-1]:.3f}", flush=True)
    mean, half = interval([ours - wide for wide, ours in zip(*found.values(), strict=True)])
    for dtype, values in found.items():
        print(f"{dtype:9} {fmean(values):.3f}  {' '.join(f'{value:.3f}' for value in values)}")
    print(
        f"int8 less bfloat16, accuracy after {asked.steps} steps: {mean:+.3f} +- {half:.3f}, {len(asked.seeds)} seeds"
    )


if __name__ == "__main__":
    main()
