"""The work both sides of the GRPO benchmark do, and how they report it. Standard library only: it runs in two venvs.

A side is a process: `SIDE.py WORKLOAD.json MODEL_FOLDER [--turns]`. It answers with JSON lines on standard output: who
it is, then one line a training step. With `--turns` it waits for a line on standard input before every step, so that
two sides can take turns on one machine, step by step, and meet the same weather.
"""

import argparse
import json
import os
import random
import re
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

TEMPLATE = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>.\n"
    "User: What is 4 + 7 + 5?\n"
    "Assistant: <think> 4 + 7 is 11. 11 + 5 is 16. </think> <answer> 16 </answer>\n"
    "User: {question}\n"
    "Assistant:"
)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Question:
    prompt: str
    reference: str


@dataclass(frozen=True, slots=True)
class Workload:
    """`steps[0]` is the warm-up and does not count. `exact`: the end of text does not end a rollout, so that every
    rollout has `max_tokens` tokens and every step costs the same."""

    steps: tuple[tuple[Question, ...], ...]
    group_size: int
    max_tokens: int
    temperature: float
    lr: float
    exact: bool
    seed: int

    @property
    def n_rollouts(self) -> int:
        """Rollouts in one step."""
        return len(self.steps[0]) * self.group_size

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Workload":
        fields = json.loads(path.read_text(encoding="utf-8"))
        steps = tuple(tuple(Question(**question) for question in step) for step in fields.pop("steps"))
        return cls(steps=steps, **fields)


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step. Seconds of wall time, generation being a part of the whole; counts over all rollouts of the step.

    `prompt_tokens` counts a prompt once for each of its rollouts; `rollouts_trained` went through the update.
    """

    seconds: float
    generation: float
    prompt_tokens: int
    completion_tokens: int
    rollouts_trained: int
    mean_reward: float


def make_workload(
    n_steps: int, exact: bool, temperature: float, n_prompts: int = 8, max_tokens: int = 64, seed: int = 0
) -> Workload:
    """`n_steps` counted steps and a warm-up, of prompts of about 150 tokens: sums of two to four numbers."""
    rng = random.Random(seed)

    def question() -> Question:
        terms = [rng.randint(1, 20) for _ in range(rng.randint(2, 4))]
        return Question(TEMPLATE.format(question=f"What is {' + '.join(map(str, terms))}?"), str(sum(terms)))

    steps = tuple(tuple(question() for _ in range(n_prompts)) for _ in range(n_steps + 1))
    return Workload(
        steps, group_size=8, max_tokens=max_tokens, temperature=temperature, lr=1e-5, exact=exact, seed=seed
    )


def reward(completion: str, reference: str) -> float:
    """1 for the right answer in its tags, 0.1 for tags around another one, else 0.

    >>> reward("<think> 2 + 2 </think> <answer> 4 </answer>", "4"), reward("<answer>5</answer>", "4"), reward("4", "4")
    (1.0, 0.1, 0.0)
    """
    answers = ANSWER.findall(completion)
    if not answers:
        return 0.0
    return 1.0 if answers[-1].strip() == reference else 0.1


class Turns:
    """A side's end of the conversation: `introduce`, then `wait`, `report`, `wait`, `report`...

    Standard output is kept for the JSON lines; whatever libraries print goes to standard error.
    """

    def __init__(self, taking_turns: bool):
        self.taking_turns = taking_turns
        self.out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)

    def introduce(self, side: str, setting: str, versions: dict[str, str], threads: int) -> None:
        self._say({"side": side, "setting": setting, "versions": versions, "threads": threads})

    def wait(self) -> None:
        """Return when it is this side's turn; leave quietly when the other end has gone."""
        if self.taking_turns and not sys.stdin.readline():
            raise SystemExit(0)

    def report(self, step: StepReport) -> None:
        # Linux counts ru_maxrss in KiB, macOS in bytes.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        self._say(asdict(step) | {"peak_memory_mib": round(peak, 1)})

    def _say(self, line: dict) -> None:
        self.out.write(json.dumps(line) + "\n")


def side_parser(description: str) -> argparse.ArgumentParser:
    """The command line every side shares."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("workload", type=Path, help="JSON file written by grpo_step.py")
    parser.add_argument("model", type=Path, help="Hugging Face folder")
    parser.add_argument("--turns", action="store_true", help="wait for a line on standard input before every step")
    return parser
