"""32 chats at once, beside llama.cpp's server, in turns in one run: `python bench/serve_load.py`.

Both serve the same Q8_0 file on the same threads to the same client. In each round each server answers 32 chats that
begin together, about 256 tokens in and 128 out, greedy, streamed, no two prompts alike. Printed: tokens per second of
all streams together, seconds to the first token, and between tokens; and the ratio of the medians. A line to stderr
says how each round went.

The peer is the llama-server that `--llama-server` names, best built for this machine. Without it, llama-server out of
the package `xllamacpp` where SMALLPRESS_PEERS has it (its wheel is for any x86 with AVX2, and so slower); else the
server of llama-cpp-python, which answers one request after another.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from grpo.environment import peers_python
from serving.client import Heard, ask, chat_body
from serving.servers import Server, llama, smallpress

THINGS = ("river", "lamp", "forest", "engine", "window", "garden", "paper", "violin", "harbour", "winter", "bridge")
WORDS_IN = 205  # with the template about 256 tokens
FASTEST = "-fa off"  # its flash attention halves its speed here
WARM_OUT = 8  # tokens of each answer before the first round


@dataclass
class Round:
    tokens_per_second: float
    firsts: list[float]
    gaps: list[float]


def prompt(rng: random.Random, n_words: int) -> str:
    words = " ".join(rng.choice(THINGS) for _ in range(n_words))
    return f"Write a very long story with these words: {words}. Do not stop."


async def _all(port: int, bodies: list[bytes]) -> list[Heard]:
    return await asyncio.gather(*(ask(port, body) for body in bodies))


def measure(server: Server, bodies: list[bytes]) -> Round:
    began = time.perf_counter()
    heard = asyncio.run(_all(server.port, bodies))
    seconds = time.perf_counter() - began
    for one in heard:
        if not one.whole:
            raise SystemExit(f"an answer did not come: {one.body[:300]!r}")
    gaps = [b - a for one in heard for a, b in zip(one.said, one.said[1:], strict=False)]
    return Round(sum(one.n_tokens for one in heard) / seconds, [one.first for one in heard], gaps)


def spread(values: list[float]) -> str:
    """Median and 95th percentile; nothing where no answer had two pieces."""
    if not values:
        return f"{'-':>9}{'-':>9}"
    late = sorted(values)[int(0.95 * (len(values) - 1))]
    return f"{1000 * median(values):9.0f}{1000 * late:9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a .gguf file, or what becomes one for the peer")
    parser.add_argument("--chats", type=int, default=32)
    parser.add_argument("--words", type=int, default=WORDS_IN)
    parser.add_argument("--out", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-server", type=Path, help="a llama-server built for this machine")
    parser.add_argument("--llama-options", default=FASTEST, help="of it")
    parser.add_argument("--alone", action="store_true", help="without the peer")
    asked = parser.parse_args()
    n_threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    context, rng = asked.words * 2 + asked.out + 128, random.Random(0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(asked.model)
        if file.suffix != ".gguf" and not asked.alone:
            file = Path(folder) / "q8_0.gguf"
            words = ["convert", asked.model, file, "--to", "q8_0"]
            subprocess.run([sys.executable, "-m", "smallpress.cli.main", *words], check=True)
        options = ("--parallel", str(asked.chats), "--context", str(context))
        servers = {"smallpress": stack.enter_context(smallpress(f"model={file}", *options))}
        if not asked.alone:
            python = peers_python() if asked.llama_server is None else Path()
            more = asked.llama_options.split()
            peer = llama(python, asked.llama_server, file, asked.chats, context, n_threads, more)
            servers["llama.cpp"] = stack.enter_context(peer)
        print(f"{asked.chats} chats, {asked.out} tokens out, {n_threads} threads, {asked.rounds} rounds in turns")
        rounds: dict[str, list[Round]] = {name: [] for name in servers}
        for turn in range(asked.rounds + 1):  # the first warms up
            n_chats, n_out = (asked.chats, asked.out) if turn else (2, WARM_OUT)
            texts = [prompt(rng, asked.words) for _ in range(n_chats)]
            bodies = [chat_body([{"role": "user", "content": text}], n_out) for text in texts]
            for name, server in servers.items():
                measured = measure(server, bodies)
                if turn:
                    rounds[name].append(measured)
                    rate = f"{measured.tokens_per_second:.1f} tokens/s"
                    print(f"round {turn} of {asked.rounds}, {name}: {rate}", file=sys.stderr, flush=True)
    print(f"{'':12}{'tokens/s':>10}{'first ms':>9}{'p95':>9}{'next ms':>9}{'p95':>9}")
    for name, measured_rounds in rounds.items():
        rate = median(one.tokens_per_second for one in measured_rounds)
        firsts = [value for one in measured_rounds for value in one.firsts]
        gaps = [value for one in measured_rounds for value in one.gaps]
        print(f"{name:12}{rate:10.1f}{spread(firsts)}{spread(gaps)}")
    if not asked.alone:
        ours, theirs = ([one.tokens_per_second for one in rounds[name]] for name in servers)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"ratio {median(ours) / median(theirs):.2f}, of rounds {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
