"""Pretraining killed at random moments and resumed each time, beside the same run left alone: `python bench/kills.py`

A sparse model with latent attention and 8-bit moments, on one process and on two under torchrun (shards, experts dealt
out). SIGKILL comes at a moment drawn from all that a sitting takes, its start and its checkpoints included; on two
processes it hits one of them or torchrun itself. A run that ends is compared byte for byte (weights, moments, cursors,
random states, exported model, logged losses), and the next begins, until there were `--times` kills of each kind.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from grpo.environment import ROOT
from pretrain.text import make_corpus
from safetensors.torch import load_file

from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics

STEPS = 24
SETTINGS = [
    'optimizer="adamw8"', "seq_len=64", "batch_tokens=512", "first_batch_tokens=512", "micro_batch_tokens=256",
    "save_every=2", "eval_every=8", "eval_tokens=1024", "ema=0.9", "fim_rate=0", 'arithmetic="float32"',
]  # fmt: skip
WORDS = [f"--steps={STEPS}", *(f"--set={setting}" for setting in SETTINGS)]
TWO = ["--set=parallel.shard=2", "--set=parallel.expert=2", "--set=parallel.interface=lo"]


class Runs:
    """One run, as often as it is begun, on `n` processes."""

    def __init__(self, n: int, corpus: Path, folder: Path):
        self.n, self.corpus, self.log, self.chance = n, corpus, folder / "log", random.Random(n)
        began = time.perf_counter()
        self.broken(folder / "unbroken", 0)
        self.seconds = time.perf_counter() - began
        self.wanted = contents(folder / "unbroken")

    def sit(self, path: Path) -> "subprocess.Popen[bytes]":
        """Begin the run at `path`, or go on with it."""
        recipe = ["pretrain", str(ROOT / "recipes" / "pretrain.toml"), "--corpus", str(self.corpus), "--out", str(path)]
        words = ["resume", str(path)] if (path / "run.json").exists() else recipe + WORDS + TWO * (self.n > 1)
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.n}", "-m", "smallpress"]
        command = [sys.executable, *(torchrun if self.n > 1 else ["-m", "smallpress"]), *words]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)

    def kill_one(self, sitting: "subprocess.Popen[bytes]") -> str:
        """What was killed; the others of the sitting end by themselves."""
        alive = {"torchrun" if self.n > 1 else "process": sitting.pid}
        alive |= {f"rank {rank}": pid for rank, pid in enumerate(children(sitting.pid))} if self.n > 1 else {}
        name = self.chance.choice(sorted(alive))
        try:
            os.kill(alive[name], signal.SIGKILL)
        except ProcessLookupError:
            return "nothing"
        return name

    def broken(self, path: Path, left: int) -> Counter[str]:
        """One run killed `left` times at most until it is done."""
        killed, code = Counter[str](), 1
        for _ in range(4 * left + 4):
            sitting = self.sit(path)
            was = killed.total()
            if was < left:
                try:
                    sitting.wait(self.chance.uniform(0.0, self.seconds))
                except subprocess.TimeoutExpired:
                    killed[self.kill_one(sitting)] += 1
            code = sitting.wait()
            end_of(path)
            if code == 0:
                break
            if killed.total() == was:
                raise SystemExit(f"a sitting that nobody killed ended with {code}:\n{self.log.read_text()[-2000:]}")
        return killed


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def end_of(path: Path) -> None:
    """Wait until no process of a sitting is left; they have a minute."""
    for _ in range(600):
        commands = (read(item) for item in Path("/proc").glob("[0-9]*/cmdline"))
        if not any(str(path).encode() in command for command in commands):
            return
        time.sleep(0.1)
    raise SystemExit(f"processes of {path} are left a minute after one was killed")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def contents(path: Path) -> dict[str, object]:
    """All that a run must have twice alike, but for what counts seconds."""
    newest = RunFolder.open(path).checkpoints.newest()
    assert newest is not None and newest.step == STEPS, f"{path} did not end"
    state = json.loads((newest.path / "state.json").read_bytes())
    rows = [[item for item in row.items() if not timed(item[0])] for row in read_metrics(path / "metrics.jsonl")]
    found: dict[str, object] = {file.name: file.read_bytes() for file in (path / "model").glob("*")}
    for file in newest.path.glob("*.safetensors"):  # of many processes the headers say the same in any order
        found |= {f"{file.name} {name}": bits(tensor) for name, tensor in load_file(file).items()}
    return found | {"state": {k: v for k, v in state.items() if not timed(k)}, "metrics": rows}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def timed(key: str) -> bool:
    return key.startswith(("seconds", "tokens_per_second")) or key == "minutes"


def trial(n: int, times: int, corpus: Path, folder: Path) -> list[str]:
    """What came out otherwise than in the unbroken run."""
    folder.mkdir()
    runs = Runs(n, corpus, folder)
    print(f"{n} processes: a sitting takes {runs.seconds:.1f} s", file=sys.stderr, flush=True)
    killed, faults, n_runs = Counter[str](), [], 0
    while killed.total() - killed["nothing"] < times:
        path = folder / f"broken-{n_runs}"
        killed += runs.broken(path, times - killed.total() + killed["nothing"])
        found = contents(path)
        differing = [name for name in {*runs.wanted, *found} if found.get(name) != runs.wanted.get(name)]
        left = [str(item) for item in path.rglob(".*.tmp-*")]
        faults += [f"{path.name}: differing {sorted(differing)}, left over {left}"] if differing or left else []
        n_runs += 1
        print(
            f"{n} processes: {dict(killed)} killed in {n_runs} runs, {len(faults)} faults", file=sys.stderr, flush=True
        )
        shutil.rmtree(path)
    told = ", ".join(f"{name} {count}" for name, count in sorted(killed.items()) if name != "nothing")
    print(f"{n} processes: {told}; {n_runs} runs, {len(faults)} not as the unbroken one", flush=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs=2, default=[70, 30], help="kills on one process and on two")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = sorted((ROOT / "docs").glob("*.md"))
        make_corpus(folder / "corpus", sources, 512)
        faults = trial(1, options.times[0], folder / "corpus", folder / "one")
        faults += trial(2, options.times[1], folder / "corpus", folder / "two")
    print("\n".join(faults))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
