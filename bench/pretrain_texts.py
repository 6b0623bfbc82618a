"""Texts for runs/pretrain.sh out of the data sets beside the repository: `python bench/pretrain_texts.py FOLDER`.

Conversations (`talk.jsonl`) and text to pretrain on, no question in both: GSM8K's first 1,500 training problems as text
and the next 1,500 as talk; Exercism's Python tasks with their solutions; the files of the other sets as they are; and
three packages of this Python's source. Printed: the command that trains on them.
"""

import asyncio
import email
import http
import json
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_lines(items: list[dict]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    problems = rows(DATA / "gsm8k" / "train.jsonl")[:3000]
    as_text = "\n\n".join(f"{one['question']}\n{one['answer']}" for one in problems[:1500])
    talk = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ((one["question"], one["answer"]) for one in problems[1500:])
    ]
    tasks = [
        {"text": "\n\n".join((one["instructions"], "\n".join(one["solution"].values())))}
        for one in rows(DATA / "exercism-python" / "practice.jsonl")
    ]
    (folder / "math.txt").write_text(as_text + "\n", encoding="utf-8")
    (folder / "talk.jsonl").write_text(as_lines(talk), encoding="utf-8")
    (folder / "python.jsonl").write_text(as_lines(tasks), encoding="utf-8")
    files = [folder / "math.txt", DATA / "tinyshakespeare" / "input.txt", folder / "python.jsonl"]
    files += sorted((DATA / "chinese-poetry").glob("*.json"))
    files += [Path(package.__file__).parent for package in (asyncio, email, http)]
    fields = "--field text --field content --field paragraphs --split blank"
    print(f"runs/pretrain.sh {folder / 'talk.jsonl'} {fields} {' '.join(map(str, files))}")


if __name__ == "__main__":
    main()
