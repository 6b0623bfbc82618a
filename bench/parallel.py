"""Many processes beside one: `python bench/parallel.py curves`, or `quality`, `kills`, or `links` (as root).

curves: 20 steps in fp32 on 1, 2 and 4 processes of this machine, in every way of sharing a model out; the largest
relative difference of the loss from that of one process.

quality: bytes sent for sums in 4, 2 and 1 byte a number, and the loss after as many steps, on two processes.

kills: torchrun trains with 4 processes, of which one is killed at a random moment; after how many seconds torchrun
ends, whether it names the rank, and which processes are left.

links: tokens a second of two processes in network namespaces of their own, joined by a link that is held to 1 Gbit/s
and to 100 Mbit/s (token bucket); gradients in 4, 2 and 1 byte, and weights averaged every 8 steps. Bytes are those of
the link's own counters.

The text is this repository's own, byte by byte.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import GQA, Dense, ModelConfig, MoE
from smallpress.model.token_logprobs import token_logprobs
from smallpress.model.transformer import Transformer, init_weights
from smallpress.parallel.passes import Passes
from smallpress.parallel.ranks import Ranks, arranged, joined
from smallpress.parallel.settings import Parallel
from smallpress.parallel.weights import spread

ROOT = Path(__file__).resolve().parents[1]
SPARSE = MoE(
    n_routed_experts=8, n_active_experts=2, n_shared_experts=1, moe_inter_dim=32, score="sigmoid", expert_bias=True,
    dense_layers=(0,), dense=Dense(inter_dim=96),
)  # fmt: skip

CURVES: dict[int, list[tuple[str, dict[str, Any]]]] = {
    2: [
        ("dense", {}),
        ("dense", {"shard": 2}),
        ("sparse", {"expert": 2}),
        ("sparse", {"expert": 2, "shard": 2}),
        ("dense", {"stages": 2}),
        ("dense", {"stages": 2, "schedule": "zero_bubble"}),
        ("dense", {"stages": 2, "schedule": "dualpipe_v"}),
    ],
    4: [
        ("dense", {}),
        ("dense", {"shard": 4}),
        ("dense", {"shard": 2}),
        ("sparse", {"expert": 4}),
        ("sparse", {"expert": 2}),
        ("sparse", {"expert": 2, "shard": 4}),
        ("dense", {"stages": 4}),
        ("dense", {"stages": 4, "schedule": "zero_bubble"}),
        ("dense", {"stages": 4, "schedule": "dualpipe_v"}),
        ("sparse", {"stages": 2, "expert": 2}),
    ],
}
"""By number of processes; what is left of them are replicas."""

SUMS = [{}, {"reduce": "bfloat16"}, {"reduce": "int8"}]
LINKS = [*SUMS, {"sync_every": 8}, {"sync_every": 8, "reduce": "int8"}]


class Training:
    """A decoder of bytes; every row of a step is a micro-batch."""

    def __init__(self, ranks: Ranks, kind: str, dim: int, n_layers: int, n_rows: int, length: int):
        self.ranks, self.n_rows, self.length = ranks, n_rows, length
        config = ModelConfig(
            family="llama",
            vocab_size=256,
            dim=dim,
            n_layers=n_layers,
            attention=GQA(n_heads=4, n_kv_heads=2, head_dim=dim // 4),
            ffn=SPARSE if kind == "sparse" else Dense(inter_dim=3 * dim),
            norm_eps=1e-5,
            rope_theta=1e4,
            max_seq_len=length,
        )
        model = Transformer(config)
        init_weights(model, std=0.05, seed=0)
        self.weights = spread(model, torch.float32, ranks, weight_decay=0.1)
        self.passes, self.n_done = Passes(self.weights, ranks), 0
        files = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/smallpress/*/*.py")])
        self.text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()
        self.n_weights = sum(parameter.numel() for parameter in self.weights.master.values())

    def step(self) -> float:
        """The loss over all rows, of which the later ones have fewer tokens that count."""
        starts = [(self.n_done * self.n_rows + i) * 7919 % (len(self.text) - self.length) for i in range(self.n_rows)]
        rows = [_Row(self.text[at : at + self.length + 1], i) for i, at in enumerate(starts)]
        mine = self.ranks.mine(rows)
        (n_counted,) = self.ranks.counts(sum(self.length - row.unseen for row in mine))
        loss = self.passes.learn(mine, lambda x_NM, i: mine[i].loss(x_NM, self.weights.model.head_weight) / n_counted)
        self.weights.grad_norm()
        self.weights.step(lr=1e-3, max_norm=1.0)
        self.n_done += 1
        self.weights.end_step(self.n_done)
        return self.ranks.sums(loss)[0]


class _Row:
    def __init__(self, ids: Tensor, unseen: int):
        self.ids, self.unseen, self.ids_N = ids, unseen, ids[:-1]
        self.positions_N = torch.arange(len(self.ids_N))
        self.attend = PackedCausal(TokenTree((Group(len(self.ids_N)),)))

    def loss(self, hidden_NM: Tensor, head_VM: Tensor) -> Tensor:
        return -token_logprobs(hidden_NM[self.unseen :], head_VM, self.ids[1 + self.unseen :])[0].sum()


def as_rank(task: str, interface: str, steps: int) -> None:
    """One of the processes; the first prints a line of JSON for each way."""
    torch.set_num_threads(1)
    with joined(Parallel(interface=interface, timeout_seconds=600)) as world:
        ways = (
            CURVES.get(world.world, CURVES[2])
            if task == "curves"
            else [("dense", way) for way in (SUMS if task == "quality" else LINKS)]
        )
        if task == "curves" and world.alone:
            ways = [("dense", {}), ("sparse", {})]
        for kind, options in ways:
            settings = Parallel(**options)
            ranks = world if world.alone else arranged(settings, "cpu", settings.replicas(world.world))
            size = {"curves": (32, 8, 8, 32), "quality": (64, 4, 4, 128), "links": (256, 8, 4, 256)}[task]
            found = measured(Training(ranks, kind, *size), steps, interface)
            if ranks.first:
                print(json.dumps({"kind": kind, "options": options, **found}), flush=True)


def measured(training: Training, steps: int, interface: str) -> dict[str, Any]:
    began, sent = 0.0, 0
    losses = []
    for step in range(steps):
        if step == min(1, steps - 1):  # the first opens connections
            training.ranks.wait()
            began, sent = time.perf_counter(), _sent(interface)
        losses.append(training.step())
    training.ranks.wait()
    seconds = time.perf_counter() - began
    traffic = getattr(training.weights, "traffic", None)
    return {
        "losses": losses,
        "tokens_per_second": (steps - 1) * training.n_rows * training.length / seconds,
        "weights": training.n_weights,
        "counted_bytes": 0 if traffic is None else traffic.n_bytes / steps,
        "link_bytes": (_sent(interface) - sent) / max(1, steps - 1),
    }


def _sent(interface: str) -> int:
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_bytes").read_text())


def run_ranks(
    task: str, n: int, steps: int, prefixes: Sequence[Sequence[str]], host: str, interfaces: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Start `n` processes, each behind its prefix; what the first prints, as it does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    processes = []
    for rank in range(n):
        env = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(n), "MASTER_ADDR": host, "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        if n > 1:
            env["TORCHELASTIC_RUN_ID"] = "bench"
        words = [
            *prefixes[rank],
            sys.executable,
            __file__,
            "rank",
            "--task",
            task,
            "--interface",
            interfaces[rank],
            "--steps",
            str(steps),
        ]
        processes.append(
            subprocess.Popen(words, env=env, stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL, text=True)
        )
    assert processes[0].stdout is not None
    yield from map(json.loads, processes[0].stdout)
    if any(process.wait() for process in processes):
        sys.exit(f"a process of {task} failed")


def curves(steps: int) -> None:
    single = {row["kind"]: row["losses"] for row in run_ranks("curves", 1, steps, [[]], "127.0.0.1", ["lo"])}
    for n in CURVES:
        for row in run_ranks("curves", n, steps, [[]] * n, "127.0.0.1", ["lo"] * n):
            of_one = single[row["kind"]]
            worst = max(abs(a - b) / b for a, b in zip(row["losses"], of_one, strict=True))
            verdict = "" if worst <= 1e-5 else "   MISSED"
            print(f"{n} processes  {row['kind']:6} {_told(row['options']):40} {worst:.1e}{verdict}", flush=True)


def quality(steps: int) -> None:
    rows = list(run_ranks("quality", 2, steps, [[], []], "127.0.0.1", ["lo", "lo"]))
    for row in rows:
        last, of_wide = (sum(r["losses"][-10:]) / 10 for r in (row, rows[0]))
        n_bytes = row["counted_bytes"]
        told = f"{_told(row['options']):28} {n_bytes:12,.0f} bytes a step {n_bytes / rows[0]['counted_bytes']:7.1%}"
        print(f"{told}   loss {last:.4f} {last / of_wide - 1:+.2%}", flush=True)


def kills(times: int) -> None:
    chance = random.Random(0)
    for _ in range(times):
        rank = chance.randrange(4)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
        words = [*torchrun, __file__, "rank", "--task", "curves", "--steps", "100000"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
            of_rank = _workers(run.pid)
            time.sleep(chance.uniform(0, 10))
            os.kill(of_rank[rank], signal.SIGKILL)
            began = time.perf_counter()
            _, errors = run.communicate()
            seconds = time.perf_counter() - began
        named = f"exitcode: -9) local_rank: {rank}" in errors
        left = [pid for pid in of_rank.values() if Path(f"/proc/{pid}").exists()]
        print(f"rank {rank} killed: ended with {run.returncode} after {seconds:.1f} s, {named=}, {left=}", flush=True)


def _workers(parent: int) -> dict[int, int]:
    """Rank -> process, once all four have come so far as to train."""
    while True:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        found = {}
        for child in children:
            variables = dict(
                pair.partition("=")[::2] for pair in Path(f"/proc/{child}/environ").read_text().split("\0") if pair
            )
            if "RANK" in variables and len(list(Path(f"/proc/{child}/task").iterdir())) > 4:  # gloo's threads
                found[int(variables["RANK"])] = int(child)
        if len(found) == 4:
            return found
        time.sleep(0.5)


def links(steps: int, mbits: Sequence[int]) -> None:
    if os.geteuid() != 0:
        sys.exit("links needs root: it makes network namespaces; try it in a virtual machine")
    for mbit in mbits:
        try:
            _join_namespaces(mbit)
            prefixes = [["ip", "netns", "exec", f"smallpress{rank}"] for rank in (0, 1)]
            rows = list(run_ranks("links", 2, steps, prefixes, "10.231.7.1", ["slow0", "slow1"]))
        finally:
            for rank in (0, 1):
                subprocess.run(["ip", "netns", "del", f"smallpress{rank}"], check=False, stderr=subprocess.DEVNULL)
        print(f"{mbit} Mbit/s, {rows[0]['weights'] / 1e6:.1f} million weights")
        for row in rows:
            speed, megabytes = row["tokens_per_second"], row["link_bytes"] / 1e6
            told = f"  {_told(row['options']):28} {megabytes:8.2f} MB a step {speed:8.0f} tokens/s"
            print(f"{told}  {speed / rows[0]['tokens_per_second']:5.2f} x   loss {row['losses'][-1]:.3f}", flush=True)


def _join_namespaces(mbit: int) -> None:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    for rank in (0, 1):
        ip("netns", "add", f"smallpress{rank}")
    ip("link", "add", "slow0", "netns", "smallpress0", "type", "veth", "peer", "name", "slow1", "netns", "smallpress1")
    for rank in (0, 1):
        space, device = f"smallpress{rank}", f"slow{rank}"
        ip("-n", space, "addr", "add", f"10.231.7.{rank + 1}/24", "dev", device)
        ip("-n", space, "link", "set", device, "up")
        ip("-n", space, "link", "set", "lo", "up")
        shaped = [
            "qdisc",
            "add",
            "dev",
            device,
            "root",
            "tbf",
            "rate",
            f"{mbit}mbit",
            "burst",
            "256kb",
            "latency",
            "50ms",
        ]
        subprocess.run(["tc", "-n", space, *shaped], check=True)


def _told(options: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items()) or "replicas, float32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="curves", choices=["curves", "quality", "kills", "links", "rank"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--times", type=int, default=20, help="of kills")
    parser.add_argument("--mbit", type=int, nargs="+", default=[1000, 100])
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--interface", default="lo", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "rank":
        as_rank(given.task, given.interface, given.steps)
    elif given.part == "curves":
        curves(given.steps or 20)
    elif given.part == "quality":
        quality(given.steps or 300)
    elif given.part == "kills":
        kills(given.times)
    else:
        links(given.steps or 9, given.mbit)


if __name__ == "__main__":
    main()
