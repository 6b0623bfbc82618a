"""Supervised training on this machine, ours and TRL's SFTTrainer, in one run: `python bench/sft_speed.py`.

The same model, conversations (loss on the answers), tokens a step and precision (bf16 over fp32 weights; fp32 with
`--settings fp32`), packed on both sides. Two processes stay alive and take turns, one optimizer step each; the first is
a warm-up. A token counts once, whichever side: the template's beginning, which ours computes once a micro-batch, too.
Every ratio is ours over the peer's: above 1, ours is faster or smaller. `--settings` tries the peer's settings instead.
"""

import argparse
import json
import os
import platform
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from grpo.environment import ROOT, model_folder, peers_python
from grpo_step import Side
from sft.rows import make_rows, save

SIDES = ROOT / "bench" / "sft"


def summary(steps: list[dict]) -> dict[str, float]:
    """Over the counted steps."""
    return {
        "tokens_per_second": round(median(step["tokens"] / step["seconds"] for step in steps), 1),
        "tokens_a_step": round(median(step["tokens"] for step in steps)),
        "peak_memory_mib": max(step["peak_memory_mib"] for step in steps),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="catalogue name, folder or .gguf file")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each side, after a warm-up")
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--settings", nargs="+", default=["best"], help="the peer's, see sft/trl_side.py; each in turn")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench", help="folder of results and logs")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sides end with it
    options.out.mkdir(parents=True, exist_ok=True)
    python = peers_python()
    folder = model_folder(options.model, python, options.out)
    os.environ["PYTHONPATH"] = str(ROOT / "bench")  # only now: gguf.py there is not the package
    rows = options.out / "sft_speed.rows.jsonl"
    save(rows, make_rows(600))
    counts = ["--steps", str(options.steps + 1), "--step-tokens", str(options.step_tokens)]
    results = {}
    for setting in options.settings:
        log = options.out / f"sft_speed.{setting}"
        dtype = "float32" if setting == "fp32" else "bfloat16"
        mine = [sys.executable, SIDES / "ours_side.py", rows, folder, *counts, "--dtype", dtype]
        ours = Side("smallpress", mine, Path(f"{log}.ours.log"))
        theirs = [python, SIDES / "trl_side.py", rows, folder, *counts, "--setting", setting]
        done: tuple[list[dict], list[dict]] = ([], [])
        with ours, Side("trl", theirs, Path(f"{log}.trl.log")) as peer:
            for n in range(options.steps + 1):
                for side, steps in zip((ours, peer), done, strict=True):
                    steps.append(side.step())
                    speed = steps[-1]["tokens"] / steps[-1]["seconds"]
                    label = f"step {n}" if n else "warm-up"
                    print(f"{label}: {side.name} {speed:.0f} tokens/s", file=sys.stderr, flush=True)
            a, b = summary(done[0][1:]), summary(done[1][1:])
            results[setting] = {
                "smallpress": a,
                "trl": b,
                "faster": round(a["tokens_per_second"] / b["tokens_per_second"], 3),
                "smaller": round(b["peak_memory_mib"] / a["peak_memory_mib"], 3),
                "sides": [ours.introduction, peer.introduction],
            }
        print(json.dumps({setting: results[setting]}, indent=1))
    results |= {
        "bench": "sft_speed",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }
    path = options.out / "sft_speed.json"
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
