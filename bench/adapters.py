"""What adapters beside the weights cost in a batch: `python bench/adapters.py`.

The same chats, about 250 tokens in and 128 out, greedy, in one engine: without an adapter, all with one, and each with
another or none, in turns. Adapters of random numbers over all seven layers. Printed: tokens per second, the median
step, and what the steps of prompts took.
"""

import argparse
import random
import time
from statistics import median

import numpy as np
from serve_load import WORDS_IN, prompt

from smallpress.cli.open_engine import open_engine
from smallpress.engine.request import Request, SamplingParams
from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.tokenizer.chat import encode_chat
from smallpress.weights.adapter import Adapter
from smallpress.weights.load import open_model
from smallpress.weights.reference import resolve

PARTS = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
N_ADAPTERS = 3


def random_adapter(config: ModelConfig, rank: int, seed: int) -> Adapter:
    draw, shapes, pairs = np.random.default_rng(seed), tensor_shapes(config), {}
    for layer in (f"layers.{i}.{part}" for i in range(config.n_layers) for part in PARTS):
        n_out, n_in = shapes[f"{layer}.weight"]
        a, b = draw.normal(0, 0.02, (rank, n_in)), draw.normal(0, 0.02, (n_out, rank))
        pairs[layer] = a.astype(np.float32), b.astype(np.float32)
    return Adapter(pairs, dict.fromkeys(pairs, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="what `smallpress run` takes")
    parser.add_argument("--chats", type=int, default=32)
    parser.add_argument("--out", type=int, default=128)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    files, rng = open_model(resolve(asked.model)), random.Random(0)
    tokenizer = files.tokenizer()
    engine = open_engine(files, "auto", asked.chats, WORDS_IN * 2 + asked.out + 128)
    for seed in range(N_ADAPTERS):
        engine.add_adapter(random_adapter(files.config, asked.rank, seed))
    kinds = {"none": lambda _: 0, "one": lambda _: 1, "one of three or none": lambda i: i % (N_ADAPTERS + 1)}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    for turn in range(asked.rounds + 1):  # the first warms up
        for name, adapter in kinds.items():
            for i in range(asked.chats if turn else 1):
                ids = encode_chat(tokenizer, [{"role": "user", "content": prompt(rng, WORDS_IN)}])
                engine.submit(Request(tuple(ids), SamplingParams(asked.out, 0.0), adapter=adapter(i)))
            steps: list[float] = []
            while engine.busy:
                began = time.perf_counter()
                engine.step()
                steps.append(time.perf_counter() - began)
            usual = median(steps)
            prompts = sum(step for step in steps if step > 4 * usual)
            if turn:
                found[name].append((asked.chats * asked.out / sum(steps), 1000 * usual, prompts))
    print(f"{'adapter':22}{'tokens/s':>10}{'step, ms':>10}{'prompts, s':>12}")
    for name, rounds in found.items():
        rate, usual, prompts = map(median, zip(*rounds, strict=True))
        print(f"{name:22}{rate:10.1f}{usual:10.1f}{prompts:12.2f}")


if __name__ == "__main__":
    main()
