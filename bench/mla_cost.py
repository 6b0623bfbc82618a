"""Attention over latents beside grouped-query attention, by the length of the context: `python bench/mla_cost.py`.

One layer in the native core with random weights, whose feed-forward is next to nothing. A step of one token behind so
many others, less such a step behind none: what reading the cache costs, in microseconds a layer. Latent attention is
DeepSeek-V2-Lite's (16 heads, 512 + 64 numbers a token); the other has as many heads of the same 128 dimensions over 16,
4 or 1 keys and values. Ratios are of medians, over the one with 4; times are taken in turns.
"""

import argparse
import time
from datetime import UTC, datetime
from statistics import median

import numpy as np
from models.random_weights import RandomWeights

from smallpress.engine.native_runner import NativeRunner, n_threads
from smallpress.model.config import GQA, MLA, Dense, ModelConfig
from smallpress.model.sizes import cache_bytes
from smallpress.run.machine import this_machine

LENGTHS = (1024, 4096, 16384)
PAGE = 16
HEADS: dict[str, GQA | MLA] = {
    "latent": MLA(n_heads=16, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128),
    "16 kv heads": GQA(n_heads=16, n_kv_heads=16, head_dim=128),
    "4 kv heads": GQA(n_heads=16, n_kv_heads=4, head_dim=128),
    "1 kv head": GQA(n_heads=16, n_kv_heads=1, head_dim=128),
}
BESIDE = "4 kv heads"


def config(attention: GQA | MLA) -> ModelConfig:
    return ModelConfig(
        family="bench", vocab_size=64, dim=256, n_layers=1, attention=attention, ffn=Dense(inter_dim=16), norm_eps=1e-6,
        rope_theta=1e4, max_seq_len=2 * LENGTHS[-1], tied_head=True,
    )  # fmt: skip


def step_seconds(runner: NativeRunner, length: int, n_rows: int = 1) -> float:
    """Of a step whose last of `n_rows` tokens sees `length`."""
    places = np.arange(length - n_rows, length)
    table, none = np.arange(runner.n_pages), np.zeros(0, dtype=np.int64)
    began = time.perf_counter()
    runner.core.forward(places % 64, places, table, np.zeros_like(places), none)
    return time.perf_counter() - began


def warm_seconds(runner: NativeRunner, length: int) -> float:
    """Of a step among others, as while decoding: another model's threads have gone to sleep, and wake in the first."""
    return median([step_seconds(runner, length) for _ in range(6)][2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of a prompt that is timed whole")
    options = parser.parse_args()
    runners = {}
    for name, attention in HEADS.items():
        made = config(attention)
        runners[name] = NativeRunner(made, RandomWeights(made), PAGE, -(-LENGTHS[-1] // PAGE))
        for length in range(512, LENGTHS[-1] + 1, 512):  # numbers in every page
            step_seconds(runners[name], length, 64)
    core = next(iter(runners.values())).core
    print(datetime.now(UTC).isoformat(timespec="seconds"), this_machine().cpu, core.kernels, n_threads(), "threads")
    print("context".ljust(10) + "".join(name.rjust(24) for name in HEADS))
    for length in LENGTHS:
        rounds = [
            {name: warm_seconds(r, length) - warm_seconds(r, 1) for name, r in runners.items()}
            for _ in range(options.repeats)
        ]
        cost = {name: median(one[name] for one in rounds) for name in HEADS}
        columns = (f"{1e6 * cost[name]:9.0f} us, ratio {cost[name] / cost[BESIDE]:5.2f}".rjust(24) for name in HEADS)
        print(f"{length:<10}" + "".join(columns))
    rounds = [{name: step_seconds(r, options.prompt, options.prompt) for name, r in runners.items()} for _ in range(3)]
    cost = {name: median(one[name] for one in rounds) for name in HEADS}
    columns = (f"{1e3 * cost[name]:9.1f} ms, ratio {cost[name] / cost[BESIDE]:5.2f}".rjust(24) for name in HEADS)
    print(f"{options.prompt}, prompt".ljust(10) + "".join(columns))
    sizes = (f"{cache_bytes(config(heads)):,} bytes a token".rjust(24) for heads in HEADS.values())
    print("cache".ljust(10) + "".join(sizes))


if __name__ == "__main__":
    main()
