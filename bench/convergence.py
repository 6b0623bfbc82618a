"""What arithmetic, optimizer and sparsity do to learning: `python bench/convergence.py`, hours on two cores.

A decoder of 1.4 (dense) or 3.4 (sparse) million weights learns real text for 500 steps, several times under each way
with other seeds, which draw the weights and the order of the text; ways share them. What counts is the held-out loss at
the end, and the mean loss of the last hundred steps, whose text is the same for all ways; and the difference of each
from the first way's under the same seed, with a 95 % interval (Student's t over seeds).

    adamw8    moments in 8 bits beside fp32
    linear8   linear layers in int8 and in fp32 beside bf16
    sparse    experts, balanced by V3's bias, by a loss, and not at all, beside the dense model that multiplies as much

Each (way, seed) is a file in OUT: what is there is not done again. `--report` only prints.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from statistics import fmean, stdev

import torch
from grpo.environment import ROOT
from pretrain.text import DEFAULT, make_corpus

from smallpress.corpus.shards import Corpus
from smallpress.model.sizes import multiply_adds, parameters
from smallpress.run.atomic import write_file
from smallpress.run.settings import settings_from
from smallpress.train.balance import RouterWatch, evenness
from smallpress.train.pretrain_run import open_pretrainer, settled
from smallpress.train.pretrain_settings import PretrainSettings

DIM, N_LAYERS, N_EXPERTS = 128, 4, 16
MLA = {
    "kind": "mla", "n_heads": 4, "q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}  # fmt: skip
DENSE = {"ffn": {"kind": "dense", "inter_dim": 388}}  # 3 x 128, and what the routers multiply
SPARSE = {
    "ffn": {
        "kind": "moe", "n_routed_experts": N_EXPERTS, "n_active_experts": 2, "n_shared_experts": 1,
        "moe_inter_dim": 128, "score": "sigmoid", "expert_bias": True, "routed_scale": 1.0,
        "dense_layers": [0], "dense": {"inter_dim": 384},
    }
}  # fmt: skip
SHARED = {
    "init_std": 0.02, "seq_len": 256, "batch_tokens": 2048, "micro_batch_tokens": 2048, "lr": 3e-3,
    "lr_shape": "cosine", "warmup": 50, "arithmetic": "float32", "eval_tokens": 1 << 17,
}  # fmt: skip


def balance(gamma: float, alpha: float) -> dict:
    return {"balance": {"gamma": gamma, "alpha": alpha}}


WAYS = {
    "dense fp32": (DENSE, {}),
    "adamw8": (DENSE, {"optimizer": "adamw8"}),
    "bf16": (DENSE, {"arithmetic": "bfloat16"}),
    "int8": (DENSE, {"arithmetic": "int8", "dtype": "bfloat16"}),
    "experts, bias": (SPARSE, balance(0.02, 0.0)),
    "experts, loss": (SPARSE, balance(0.0, 0.01)),
    "experts, unbalanced": (SPARSE, balance(0.0, 0.0)),
}
PARTS = {
    "adamw8": ["dense fp32", "adamw8"],
    "linear8": ["bf16", "int8", "dense fp32"],
    "sparse": ["dense fp32", "experts, bias", "experts, loss", "experts, unbalanced"],
}
"""Each is compared with the first of its part."""

LATE = 100
"""Steps at the end whose losses are averaged."""

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t, two-sided 95 %, by degrees of freedom."""


def settings_of(way: str, corpus: Corpus, steps: int, seed: int) -> PretrainSettings:
    shape, more = WAYS[way]
    shape = {"dim": DIM, "n_layers": N_LAYERS, "max_seq_len": 256, "attention": MLA} | shape
    given = SHARED | {"shape": shape, "corpus": str(corpus.folder), "steps": steps, "seed": seed} | more
    return settled(settings_from(PretrainSettings, given, way), corpus)


def learn(way: str, corpus: Corpus, steps: int, seed: int) -> dict:
    """One run; its result."""
    settings = settings_of(way, corpus, steps, seed)
    trainer, began, curve = open_pretrainer(settings, corpus), time.perf_counter(), []
    log: dict[str, float] = {}
    losses = []
    for step in range(1, steps + 1):
        log, _ = trainer.step()
        losses.append(log["loss"])
        if step % max(1, steps // 10) == 0:
            curve.append([step, log["loss"], log.get("load/max_over_mean", 1.0)])
            print(f"  {way}, seed {seed}, step {step}: loss {log['loss']:.4f}", file=sys.stderr, flush=True)
    sizes, config = parameters(settings.shape), settings.shape
    with RouterWatch(trainer.weights.model) as watch:
        measured = trainer.measure()
    return {
        "way": way, "seed": seed, "steps": steps, "curve": curve, "skipped": trainer.n_skipped,
        "weights": sizes.total, "active": sizes.active, "multiply_adds": multiply_adds(config, 128, absorbed=False),
        "load": {key: value for key, value in log.items() if key.startswith("load/")},
        "held_out_load": evenness(watch.loads) if watch.loads else {},
        "seconds": time.perf_counter() - began, "late_loss": fmean(losses[-LATE:]), **measured,
    }  # fmt: skip


def file_of(out: Path, way: str, steps: int, seed: int) -> Path:
    return out / f"{way.replace(', ', '-').replace(' ', '-')}-{steps}-{seed}.json"


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval; without an end for a single seed."""
    n = len(differences)
    return fmean(differences), T_95[min(n - 1, 9)] * stdev(differences) / math.sqrt(n) if n > 1 else math.inf


def report(part: str, out: Path, steps: int, seeds: list[int]) -> str:
    lines = [f"{part}: held-out loss in nats after {steps} steps"]
    found = {}
    for way in PARTS[part]:
        files = {seed: file_of(out, way, steps, seed) for seed in seeds}
        found[way] = {seed: json.loads(file.read_text()) for seed, file in files.items() if file.exists()}
    base = found[PARTS[part][0]]
    for way, runs in found.items():
        if not runs:
            lines.append(f"  {way:20} not done")
            continue
        losses = [run["eval/loss"] for run in runs.values()]
        one = next(iter(runs.values()))
        line = f"  {way:20} {fmean(losses):.4f}  {one['weights'] / 1e6:.2f}M weights, {one['active'] / 1e6:.2f}M active"
        if "load/max_over_mean" in one["load"]:
            last, all_of = (
                fmean(run[key]["load/max_over_mean"] for run in runs.values()) for key in ("load", "held_out_load")
            )
            line += f", busiest expert {all_of:.2f} times mean over held-out text, {last:.2f} in the last step"
        if way != PARTS[part][0] and (both := sorted(set(runs) & set(base))):
            for what, key in (("difference", "eval/loss"), ("of late steps", "late_loss")):
                if all(key in found[seed] for found in (runs, base) for seed in both):
                    mean, half = interval([100 * (runs[seed][key] / base[seed][key] - 1) for seed in both])
                    line += f"; {what} {mean:+.2f} % +- {half:.2f} ({len(both)} seeds)"
        lines.append(line)
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="texts; none: those beside the repository")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "convergence")
    parser.add_argument("--report", action="store_true", help="print what is there")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    data = ROOT.parent / "shared" / "data"
    files = options.files or [data / name for name in DEFAULT]
    if not options.report:
        if missing := [str(file) for file in files if not file.exists()]:
            print(f"skipped: {', '.join(missing)} is not there; give text files")
            return 0
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
        corpus = make_corpus(options.out / f"corpus-{options.vocab}", files, options.vocab)
        print(f"{corpus.train.n_tokens:,} tokens, {corpus.held_out.n_tokens:,} held out", file=sys.stderr)
        for part in options.only:
            for seed in options.seeds:
                for way in PARTS[part]:
                    file = file_of(options.out, way, options.steps, seed)
                    if not file.exists():
                        write_file(file, json.dumps(learn(way, corpus, options.steps, seed), indent=1).encode())
            print(report(part, options.out, options.steps, options.seeds), flush=True)
    else:
        print("\n".join(report(part, options.out, options.steps, options.seeds) for part in options.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
