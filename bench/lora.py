"""All weights, adapters, and adapters over 4 bits on one task: `python bench/lora.py`, about 20 minutes on two cores.

Sums of three to five numbers with program-written working, from the side that is trained on; the same samples in the
same order for each way, in a process of its own. Measured: accuracy on held-out sums (greedy, strict, the chat
template) with a 95 % interval, peak resident memory of the training, tokens a second. LoRA and QLoRA shall be within 2
points of full training at less than half of its memory.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median

from grpo.environment import ROOT

from smallpress.run.metrics import read_metrics
from smallpress.tasks.task import TASKS, worked_completion

ADAPTERS = ["lr=2e-3", "lora.rank=16", "lora.alpha=32.0"]
WAYS = {
    "full": ["lr=1e-4"],
    "lora": ADAPTERS,
    "qlora nf4": [*ADAPTERS, "lora.base=nf4"],
    "qlora q8_0": [*ADAPTERS, "lora.base=q8_0"],
}
TASK = "chained_sum:3-5"
CLI = "import sys; from smallpress.cli.main import run; code = run(sys.argv[1:])"
PEAK = "import resource; print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"


def write_data(path: Path, n: int) -> None:
    """`n` worked problems, none twice."""
    rows: dict[str, str] = {}
    streams = [TASKS["chained_sum"].examples("train", level, level) for level in (3, 4, 5)]
    for i in range(50 * n):
        example = next(streams[i % 3])
        turns = [{"role": "user", "content": example.prompt}]
        turns.append({"role": "assistant", "content": worked_completion(example)})
        rows.setdefault(example.key, json.dumps({"messages": turns}))
        if len(rows) == n:
            break
    path.write_text("\n".join(rows.values()) + "\n")


def command(words: list[str], measured: bool = False) -> str:
    program = f"{CLI}\n{PEAK}" if measured else f"{CLI}; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"smallpress {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def one(way: str, model: str, data: Path, seed: int, steps: int, n: int, out: Path) -> dict:
    """Train and measure one way with one seed."""
    run = out / f"{way.replace(' ', '-')}-{seed}"
    settings = [word for setting in WAYS[way] for word in ("--set", setting)]
    words = ["sft", "--model", model, "--data", str(data), "--out", str(run), "--seed", str(seed)]
    words += ["--steps", str(steps), "--set", "samples_per_step=32", "--set", "micro_batch_tokens=1024", *settings]
    words += ["--set", "eval_every=1000", "--set", "eval_n=32", "--set", "save_every=1000", "--offline"]
    said = command(words, measured=True)
    peak = int(re.search(r"^PEAK (\d+)$", said, re.MULTILINE)[1]) / (2**20 if sys.platform == "darwin" else 2**10)
    asked = [str(run / "model")] if way == "full" else [model, "--adapter", str(run / "adapter")]
    result = command(["eval", *asked, "--tasks", TASK, "--n", str(n), "--max-tokens", "96", "--json", "--offline"])
    accuracy = json.loads(result)["overall"]["accuracy"]
    rows = read_metrics(run / "metrics.jsonl")
    speed = median(row["tokens_per_second"] for row in rows if "tokens_per_second" in row)
    found = {"way": way, "seed": seed, "accuracy": accuracy, "peak_mib": round(peak), "tokens_per_second": round(speed)}
    print(json.dumps(found), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["full", "lora", "qlora nf4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=60, help="of 32 samples")
    parser.add_argument("--n", type=int, default=200, help="held-out questions")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "lora", help="a new folder for the runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.out / "data.jsonl"
    write_data(data, 32 * options.steps)
    results = [
        one(way, options.model, data, seed, options.steps, options.n, options.out)
        for seed in options.seeds
        for way in options.ways
    ]
    table = {}
    for way in options.ways:
        mine = [result for result in results if result["way"] == way]
        table[way] = {
            "accuracy": round(fmean(result["accuracy"]["value"] for result in mine), 4),
            "peak_mib": max(result["peak_mib"] for result in mine),
            "tokens_per_second": median(result["tokens_per_second"] for result in mine),
        }
    for way, row in table.items():
        if way != "full" and "full" in table:
            row["points_below_full"] = round(100 * (table["full"]["accuracy"] - row["accuracy"]), 1)
            row["share_of_full_memory"] = round(row["peak_mib"] / table["full"]["peak_mib"], 3)
    document = {
        "bench": "lora",
        "steps": options.steps,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "table": table,
        "runs": results,
    }
    (options.out / "lora.json").write_text(json.dumps(document, indent=1))
    print(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
