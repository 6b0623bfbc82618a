"""Decode of sparse experts beside a dense model of their active size: `python bench/moe_decode.py`.

64 experts, 6 active, against one feed-forward as wide as those 6, in the native core with random weights; all else is
equal. Steps of one token are timed in turns, one model after the other, so that both meet the same machine. The ratio
is of medians, sparse over dense: at 1, choosing and gathering cost nothing. The experts' weights exceed the processor's
caches; those of one token's choice, and the dense ones, need not, and `--inter-dim` makes both larger.
"""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median

import numpy as np
from models.random_weights import RandomWeights

from smallpress.engine.native_runner import BITS, NativeRunner, n_threads
from smallpress.model.config import GQA, Dense, ModelConfig, MoE
from smallpress.run.machine import this_machine

N_EXPERTS, N_ACTIVE = 64, 6
LENGTH = 64  # tokens before those that are timed


def config(ffn: Dense | MoE, dim: int, n_layers: int) -> ModelConfig:
    heads = GQA(n_heads=dim // 64, n_kv_heads=dim // 128, head_dim=64)
    return ModelConfig(
        family="qwen3_moe", vocab_size=1024, dim=dim, n_layers=n_layers, attention=heads, ffn=ffn, norm_eps=1e-5,
        rope_theta=1e4, max_seq_len=4096, tied_head=True,
    )  # fmt: skip


def steps(runner: NativeRunner, n_rows: int) -> Iterator[float]:
    """Seconds of each step of `n_rows` sequences, one token each."""
    generator, position = np.random.default_rng(1), LENGTH
    tables, starts = np.arange(n_rows * 8), np.arange(n_rows) * 8
    while True:
        ids, places = generator.integers(0, 1024, n_rows), np.full(n_rows, position % 128)
        began = time.perf_counter()
        runner.core.forward(ids, places, tables, starts, np.arange(n_rows))
        yield time.perf_counter() - began
        position += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--inter-dim", type=int, default=512, help="of one expert")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--packing", default="int8", choices=tuple(BITS))
    parser.add_argument("--rows", type=int, default=1, help="sequences that decode at once")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    experts = MoE(n_routed_experts=N_EXPERTS, n_active_experts=N_ACTIVE, moe_inter_dim=options.inter_dim)
    kinds = {"sparse": experts, "dense": Dense(inter_dim=N_ACTIVE * options.inter_dim)}
    models = {}
    for name, ffn in kinds.items():
        made = config(ffn, options.dim, options.layers)
        models[name] = NativeRunner(made, RandomWeights(made), page_size=16, n_pages=256, packing=options.packing)
    core = models["sparse"].core
    print(datetime.now(UTC).isoformat(timespec="seconds"), this_machine().cpu, core.kernels, n_threads(), "threads")
    times = {name: steps(model, options.rows) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(options.steps):
        for name, timed in times.items():
            seconds[name].append(next(timed))
    for name, found in seconds.items():
        middle = median(found[options.steps // 10 :])
        read = models[name].core.weight_bytes
        print(
            f"{name:8}{1e3 * middle:9.3f} ms a step{read / 1e6:9.1f} MB met by a token{read / middle / 1e9:7.1f} GB/s"
        )
    ratio = median(seconds["sparse"]) / median(seconds["dense"])
    print(f"ratio {ratio:.3f} ({options.packing}, {options.rows} rows, {options.layers} layers of {options.dim})")


if __name__ == "__main__":
    main()
