"""A GRPO step on this machine, ours and TRL's, in one run: `python bench/grpo_step.py`.

Two processes stay alive and take turns, one step each, so that both meet the machine's good and bad minutes alike; the
one that waits uses no core. The same weights, prompts, reward, group size and temperature on both sides; the first step
of each is a warm-up. In the form `exact` every rollout is `--max-tokens` long and every group is trained on: the same
work. In the form `natural` a rollout ends where the model ends it, and each side may leave out what teaches nothing.

Every ratio is the peer over ours: above 1, ours is faster or smaller. `--settings` tries the peer's settings instead.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from grpo.environment import ROOT, model_folder, peers_python
from grpo.workload import Workload, make_workload

SIDES = ROOT / "bench" / "grpo"
ROWS = {
    "step": "step (s)",
    "generation": "generation (s)",
    "rest": "the rest (s)",
    "peak_memory": "peak memory (MiB)",
    "mean_length": "mean completion (tokens)",
    "rollouts_trained": "rollouts trained on",
    "mean_reward": "mean reward",
}
RATIOS = ("step", "generation", "rest", "peak_memory")


class Side:
    """A process that does one step when told, and says what it cost. Its chatter goes to a log beside the results."""

    def __init__(self, name: str, command: list[str | Path], log: Path):
        self.name, self.log = name, log
        # No hub is asked for anything.
        env = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with log.open("w") as chatter:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=chatter, text=True, env=env
            )
        self.introduction: dict = {}

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def step(self) -> dict:
        if not self.introduction:
            self.introduction = self._hear()
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._gone()
        return self._hear()

    def _hear(self) -> dict:
        line = self.process.stdout.readline()
        return json.loads(line) if line else self._gone()

    def _gone(self) -> dict:
        last = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        raise SystemExit("\n".join([f"the side {self.name} ended before its work was done; see {self.log}", *last]))


def summary(steps: list[dict], n_rollouts: int) -> dict[str, float]:
    """Medians over the counted steps; memory is the most the process ever held."""
    return {
        "step": median(step["seconds"] for step in steps),
        "generation": median(step["generation"] for step in steps),
        "rest": median(step["seconds"] - step["generation"] for step in steps),
        "peak_memory": max(step["peak_memory_mib"] for step in steps),
        "mean_length": median(step["completion_tokens"] / n_rollouts for step in steps),
        "rollouts_trained": median(step["rollouts_trained"] for step in steps),
        "mean_reward": median(step["mean_reward"] for step in steps),
    }


def same_work(workload: Workload, ours: list[dict], peer: list[dict]) -> None:
    """Refuse a comparison of unequal work."""
    for n, (a, b) in enumerate(zip(ours, peer, strict=True)):
        counts = ["prompt_tokens"] + (["completion_tokens", "rollouts_trained"] if workload.exact else [])
        for count in counts:
            if a[count] != b[count]:
                raise SystemExit(f"no comparison: in step {n} our {count} are {a[count]}, the peer's {b[count]}")


def take_turns(workload: Workload, ours: Side, peer: Side) -> tuple[list[dict], list[dict]]:
    """The steps of both, warm-ups included."""
    done: tuple[list[dict], list[dict]] = ([], [])
    for n in range(len(workload.steps)):
        for side, steps in zip((ours, peer), done, strict=True):
            steps.append(side.step())
            label = f"step {n}" if n else "warm-up"
            print(f"{label}: {side.name} {steps[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
        same_work(workload, *done)
    return done


def compare(workload: Workload, ours: Side, peer: Side) -> dict:
    ours_steps, peer_steps = take_turns(workload, ours, peer)
    ours_counted, peer_counted = ours_steps[1:], peer_steps[1:]
    a, b = summary(ours_counted, workload.n_rollouts), summary(peer_counted, workload.n_rollouts)
    pairs = [theirs["seconds"] / mine["seconds"] for mine, theirs in zip(ours_counted, peer_counted, strict=True)]
    return {
        "ratios": {name: round(b[name] / a[name], 3) for name in RATIOS},
        "step_ratio_range": [round(min(pairs), 3), round(max(pairs), 3)],
        "ours": {**ours.introduction, "medians": a, "warm_up": ours_steps[0], "steps": ours_counted},
        "peer": {**peer.introduction, "medians": b, "warm_up": peer_steps[0], "steps": peer_counted},
    }


def print_comparison(result: dict) -> None:
    ours, peer = result["ours"], result["peer"]
    name = f"trl {peer['versions']['trl']}"
    print(f"{'medians of ' + str(len(ours['steps'])) + ' steps':28}{'smallpress':>12}{name:>12}{'ratio':>8}")
    for row, label in ROWS.items():
        ratio = f"{result['ratios'][row]:8.2f}" if row in RATIOS else ""
        print(f"{label:28}{ours['medians'][row]:12.2f}{peer['medians'][row]:12.2f}{ratio}")
    low, high = result["step_ratio_range"]
    print(f"ratio of a step, pair by pair: {low:.2f} to {high:.2f}; the peer's setting: {peer['setting']}")


def try_settings(names: list[str], start_peer, workload: Workload) -> dict:
    """The peer alone, one setting after another, for choosing its best."""
    found = {}
    print(f"{'setting':24}{'step (s)':>10}{'generation':>12}{'the rest':>10}{'peak MiB':>10}", flush=True)
    for name in names:
        try:
            with start_peer(name) as side:
                steps = [side.step() for _ in workload.steps]
        except SystemExit as failure:
            print(f"{name:24}{str(failure).splitlines()[-1][:100]:>10}", flush=True)
            continue
        found[name] = {**side.introduction, "medians": summary(steps[1:], workload.n_rollouts), "steps": steps}
        m = found[name]["medians"]
        print(f"{name:24}{m['step']:10.1f}{m['generation']:12.1f}{m['rest']:10.1f}{m['peak_memory']:10.0f}", flush=True)
    return {"settings": found}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="catalogue name, folder or .gguf file")
    parser.add_argument("--form", choices=("exact", "natural"), default="exact")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each side, after a warm-up")
    parser.add_argument("--prompts", type=int, default=8, help="in a step; each is answered 8 times")
    parser.add_argument("--max-tokens", type=int, default=64, help="of a completion")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--setting", default="best", help="the peer's, see grpo/trl_side.py")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="try these settings of the peer instead")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench", help="folder of results and logs")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sides end with it
    options.out.mkdir(parents=True, exist_ok=True)
    python = peers_python()
    folder = model_folder(options.model, python, options.out)
    exact = options.form == "exact"
    workload = make_workload(options.steps, exact, options.temperature, options.prompts, options.max_tokens)
    questions = options.out / "grpo_step.workload.json"
    workload.save(questions)

    def start_peer(setting: str) -> Side:
        command = [python, SIDES / "trl_side.py", questions, folder, "--turns", "--setting", setting]
        return Side("trl", command, options.out / f"grpo_step.trl.{setting}.log")

    if options.settings:
        result = try_settings(options.settings, start_peer, workload)
    else:
        ours = Side(
            "smallpress",
            [sys.executable, SIDES / "ours_side.py", questions, folder, "--turns"],
            options.out / "grpo_step.ours.log",
        )
        with ours, start_peer(options.setting) as peer:
            result = compare(workload, ours, peer)
        print_comparison(result)
    result |= {
        "bench": "grpo_step",
        "form": options.form,
        "prompts": options.prompts,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }
    path = options.out / f"grpo_step.{'settings' if options.settings else options.form}.json"
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
