"""A run killed at many points and resumed, against the same run left alone: python kills.py RECIPE FOLDER

Starting a process takes seconds for importing torch, so this one imports it once and forks: each child is the command
line, with SIGKILL waiting at the n-th operation on the disk, the n-th step of the engine or of the optimizer, or after
some milliseconds. Prints one JSON object: what was tried, and what came out otherwise than in the unbroken run.
"""

import builtins
import gc
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import torch

from smallpress.cli.main import run
from smallpress.engine.engine import Engine
from smallpress.optim.master import MasterWeights
from smallpress.rl import trainer
from smallpress.rl.run import Run
from smallpress.run.folder import RunFolder
from smallpress.run.metrics import read_metrics

DISK = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "write", "truncate", "ftruncate")


class Countdown:
    """Ends this process at the n-th tick, so suddenly that nothing can be tidied up. Switched off it does not count."""

    def __init__(self, n: int):
        self.n, self.on = n, True

    def tick(self) -> bool:
        self.n -= self.on
        return self.on and self.n == -1

    def __call__(self) -> None:
        if self.tick():
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_each(owner: object, name: str, tick: Callable[[], None]) -> None:
    """Replace the function `name` of `owner` by one that ticks first."""
    real = getattr(owner, name)

    def ticking(*args, **kwargs):
        tick()
        return real(*args, **kwargs)

    setattr(owner, name, ticking)


class HalfWritten:
    """A new file: its opening and its first write are points, and at the latter half of the data reaches the disk."""

    def __init__(self, file, countdown: Countdown):
        self.file, self.countdown, self.fresh = file, countdown, True
        countdown()

    def write(self, data):
        if self.fresh and self.countdown.tick():
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            die()
        self.fresh = False
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def on_disk(n: int) -> Countdown:
    countdown, real = Countdown(n), builtins.open
    for name in DISK:
        before_each(os, name, countdown)

    def opened(file, mode="r", *args, **kwargs):
        found = real(file, mode, *args, **kwargs)
        return HalfWritten(found, countdown) if mode == "xb" else found

    builtins.open = opened
    return countdown


def in_save(n: int) -> Countdown:
    """Every operation on the disk from the first of a checkpoint to the last of removing an older one."""
    countdown, save = on_disk(n), Run._save
    countdown.on = False

    def saving(run: Run) -> None:
        countdown.on = True
        save(run)
        countdown.on = False

    Run._save = saving
    return countdown


def in_engine(n: int) -> Countdown:
    countdown = Countdown(n)
    before_each(Engine, "step", countdown)
    return countdown


def in_update(n: int) -> Countdown:
    """Before the gradient, between its parts and the step, within the step, and before its weights are used."""
    countdown = Countdown(n)
    for owner, name in ((trainer, "accumulate"), (MasterWeights, "step"), (MasterWeights, "publish")):
        before_each(owner, name, countdown)
    before_each(Engine, "update_weights", countdown)
    return countdown


def call(
    words: list[object], log: Path, prepare: Callable[[], object] = lambda: None, after: float | None = None
) -> int:
    """The command line in a child; its exit code, -9 where it was killed. `after` so many seconds it is, from here."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            for target in (sys.stdout, sys.stderr):
                target.flush()
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), target.fileno())
            prepare()
            code = run([str(word) for word in words])
        finally:
            sys.stdout.flush()
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Trials:
    def __init__(self, recipe: Path, folder: Path):
        self.recipe, self.folder, self.log = recipe, folder, folder / "log"
        self.n_kills, self.faults = 0, list[str]()
        self.base, unbroken = folder / "base", folder / "unbroken"
        began = time.perf_counter()
        assert self.begin(unbroken) == 0, self.log.read_text()
        self.seconds, self.wanted = time.perf_counter() - began, contents(unbroken)

    def begin(self, path: Path, **how) -> int:
        return call(["grpo", self.recipe, "--out", path], self.log, **how)

    def go_on(self, path: Path, **how) -> int:
        return call(["resume", path], self.log, **how) if (path / "run.json").exists() else self.begin(path, **how)

    def check(self, path: Path, code: int, what: str) -> None:
        """After the last resume: all is there, and as in the unbroken run."""
        found = contents(path)
        differing = [name for name, content in self.wanted.items() if found.get(name) != content]
        left = [str(item) for item in path.rglob(".*.tmp-*")]
        if code or differing or left:
            self.faults.append(f"{what}: exit code {code}, differing {differing}, left over {left}")
        shutil.rmtree(path)

    def at_points(self, name: str, install: Callable[[int], Countdown], points: list[int], fresh: bool) -> None:
        """Kill at each of the points, of a fresh run or of one that goes on from the base; then finish it."""
        for n in points:
            path = self.folder / f"{name}-{n}"
            if not fresh:
                shutil.copytree(self.base, path)
            code = (self.begin if fresh else self.go_on)(path, prepare=lambda n=n: install(n))
            if code != -signal.SIGKILL:
                self.faults.append(f"{name} {n}: it was not killed but ended with {code}")
            self.n_kills += 1
            self.check(path, self.go_on(path), f"{name} {n}")

    def count(self, install: Callable[[int], Countdown], fresh: bool) -> int:
        """How many points a run has, by a countdown that never ends."""
        path, counted = self.folder / "counted", self.folder / "count"

        def prepare():
            countdown, end = install(10**9), os._exit

            def tell(code):
                fd = os.open(counted, os.O_RDWR | os.O_CREAT)
                os.pwrite(fd, str(10**9 - countdown.n).encode(), 0)
                end(code)

            os._exit = tell

        if not fresh:
            shutil.copytree(self.base, path)
        self.check(path, (self.begin if fresh else self.go_on)(path, prepare=prepare), "counting")
        found = int(counted.read_text())
        counted.unlink()
        return found

    def as_processes(self, n: int) -> None:
        """As at_moments, with nothing forked: processes as a person starts them, killed once they are at work."""
        chance, path = random.Random(1), self.folder / "processes"
        for i in range(n):
            words = ["resume", path] if i else ["grpo", self.recipe, "--out", path]
            command = [sys.executable, "-m", "smallpress.cli.main", *words]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as one:
                one.stderr.readline()
                time.sleep(chance.uniform(0.0, self.seconds))
                one.kill()
            self.n_kills += one.returncode == -signal.SIGKILL
        self.check(path, self.go_on(path), "processes")

    def at_moments(self, n: int) -> None:
        """Kill one run after the other at random moments, and once let it end."""
        chance, path = random.Random(0), self.folder / "moments"
        for _ in range(n):
            self.n_kills += self.go_on(path, after=chance.uniform(0.0, self.seconds)) == -signal.SIGKILL
        self.check(path, self.go_on(path), "random moments")


def contents(path: Path) -> dict[str, object]:
    """All that a run must have twice alike: the state at its end, the model, what it said and measured."""
    if not (path / "run.json").exists():
        return {}
    newest = RunFolder.open(path).checkpoints.newest()
    state = json.loads((newest.path / "state.json").read_bytes()) if newest else {}
    rows = [[item for item in row.items() if not timed(item[0])] for row in read_metrics(path / "metrics.jsonl")]
    found = {"step": newest and newest.step, "state": {k: v for k, v in state.items() if not timed(k)}, "metrics": rows}
    files = [newest.path / "tensors.safetensors"] if newest else []
    files += sorted(item for folder in ("model", "samples") for item in (path / folder).glob("*"))
    found |= {str(file.relative_to(path)): file.read_bytes() for file in files}
    for name in ("before", "after", "result"):
        file = path / f"{name}.json"
        found[name] = without_seconds(json.loads(file.read_bytes())) if file.exists() else None
    return found


def timed(key: str) -> bool:
    return key.startswith("seconds") or key == "minutes"


def without_seconds(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_seconds(inner) for key, inner in value.items() if not timed(key)}
    return [without_seconds(inner) for inner in value] if isinstance(value, list) else value


LATE = ["jinja2.sandbox", "numpy.ma"] + [
    f"smallpress.{name}"
    for name in (
        "cli.resume",
        "engine.native_runner",
        "engine.torch_runner",
        "evaluate.baseline",
        "evaluate.problems",
        "evaluate.tables",
        "tokenizer.sandbox",
        "weights.export",
        "weights.reference",
    )
]


def import_what_comes_late(folder: Path) -> None:
    """The verbs import when they are called, and torch when an optimizer first steps: here, once for all children."""
    for name in LATE:
        importlib.import_module(name)
    with redirect_stderr(io.StringIO()):
        run(["resume", str(folder / "no-run")])
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    torch.optim.AdamW([parameter], fused=True).step()
    gc.freeze()  # No child looks through what is the parent's: that would copy it all.


def main(recipe: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    import_what_comes_late(folder)
    trials = Trials(recipe, folder)
    n_engine = trials.count(in_engine, fresh=True)
    n_updates = trials.count(in_update, fresh=True)
    trials.at_points("engine", in_engine, spread(n_engine, 20), fresh=True)
    trials.at_points("update", in_update, spread(n_updates, 10), fresh=True)

    # The base is the run when it has begun the steps that lead to its last checkpoint: four updates are done.
    trials.begin(trials.base, prepare=lambda: before_each(trainer, "accumulate", Countdown(4)))
    n_save = trials.count(in_save, fresh=False)
    n_disk = trials.count(on_disk, fresh=False)
    trials.at_points("save", in_save, list(range(n_save)), fresh=False)
    trials.at_points("disk", on_disk, spread(n_disk, 24), fresh=False)
    trials.at_moments(8)
    trials.as_processes(2)
    print(json.dumps({"n_kills": trials.n_kills, "n_save": n_save, "faults": trials.faults}))


def spread(n: int, wanted: int) -> list[int]:
    """So many points of 0 .. n - 1, evenly."""
    return sorted({i * n // wanted for i in range(wanted)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
