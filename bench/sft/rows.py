"""The work both sides of the SFT benchmark do. Standard library only: it runs in two venvs."""

import json
import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: seconds of wall time, and the tokens of the samples in it, padding not counted."""

    seconds: float
    tokens: int
    loss: float


def make_rows(n: int, seed: int = 0) -> list[dict]:
    """Questions of one to eight sums and their worked answers: samples of about 70 to 450 tokens."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        asked, worked = [], []
        for _ in range(rng.randint(1, 8)):
            terms = [rng.randint(1, 20) for _ in range(rng.randint(3, 5))]
            asked.append(f"What is {' + '.join(map(str, terms))}?")
            total, steps = terms[0], []
            for term in terms[1:]:
                steps.append(f"{total} + {term} = {total + term}.")
                total += term
            worked.append(f"<think> {' '.join(steps)} </think> <answer> {total} </answer>")
        rows.append(
            {
                "prompt": [{"role": "user", "content": "\n".join(asked)}],
                "completion": [{"role": "assistant", "content": "\n".join(worked)}],
            }
        )
    return rows


def save(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def load(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
