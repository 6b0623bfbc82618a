"""Pairs of answers from the tasks, and how well a reward model tells them apart.

    python bench/reward_pairs.py [pairs --out pairs --n 2000 --model smollm2-135m]
    python bench/reward_pairs.py measure runs/reward/model pairs/held_out.jsonl

Without a model the answers are program-written. "wrong": the last step comes to another number, and so does the answer;
the same words, the same length. "mixed": some words in another script. "loop": its end said over
and over, cut to the length of the whole. With a model they are drawn from it, and of each question a right answer is
paired with the wrong one nearest in length. Problems of the held-out side go to held_out.jsonl, the others to
train.jsonl. Each row has its `kind`, which `measure` counts by.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from smallpress.evaluate.intervals import wilson
from smallpress.run.atomic import write_file
from smallpress.tasks.example import Example, Split, worked_completion
from smallpress.tasks.mixture import parse_mixture
from smallpress.tasks.task import find_task

TASKS = "chained_sum:3-5,addition:2,subtraction:1-2,product:1-2,word_problem:1-2,largest:3-4"
MIXED = {"is": "是", "and": "和", "then": "然后", "the": "это", "has": "есть", "left": "осталось", "more": "更多"}
DIGITS = str.maketrans("0123456789", "〇一二三四五六七八九")
SHARES = {"train": 1.0, "held_out": 0.2}
N_DRAWS, LONGEST = 8, 1.5


def wrong(text: str, example: Example, dice: Random) -> str | None:
    """With another result, of as many digits, wherever it stands: in the last step and as the answer."""
    numbers = list(re.finditer(r"\d+", text))
    last = numbers[-1][0] if numbers else ""
    if example.reference.strip() != last:
        return None
    off = str(int(last) + dice.choice([-10, -3, -2, -1, 1, 2, 3, 10]))
    if off.startswith("-") or len(off) != len(last):
        return None
    return re.sub(rf"(?<!\d){last}(?!\d)", off, text)


def mixed(text: str, dice: Random) -> str:
    """Half of the words that have a foreign one are it, and at least one number is in another script."""
    words = [MIXED.get(word, word) if dice.random() < 0.5 else word for word in text.split(" ")]
    places = [i for i, word in enumerate(words) if word.strip(".,").isdigit()]
    if places:
        place = dice.choice(places[:-1] or places)
        words[place] = words[place].translate(DIGITS)
    return " ".join(words)


def looped(text: str) -> str:
    """The first third, then its end over and over."""
    words = text.split(" ")
    head = words[: max(4, len(words) // 3)]
    tail = head[-4:]
    while len(head) < len(words):
        head += tail
    return " ".join(head[: len(words)])


def program_pairs(split: Split, n: int) -> Iterator[dict[str, str]]:
    pairs = parse_mixture(TASKS)
    for family, level in pairs:
        seen: set[str] = set()
        dice = Random(f"{split}{family}{level}")
        for example in islice(find_task(family).examples(split, 7, level), 10 * n // len(pairs)):
            if example.key in seen or len(seen) * len(pairs) >= n:
                continue
            seen.add(example.key)
            text = worked_completion(example)
            damaged = {"wrong": wrong(text, example, dice), "mixed": mixed(text, dice), "loop": looped(text)}
            kind = dice.choice(["wrong", "wrong", "mixed", "loop"])
            if damaged[kind] not in (None, text):
                yield {"prompt": example.prompt, "chosen": text, "rejected": str(damaged[kind]), "kind": kind}


def drawn_pairs(name: str, split: Split, n: int, offline: bool) -> Iterator[dict[str, str]]:
    """Of rollouts in the R1-Zero form with a worked example."""
    from smallpress.cli.open_engine import open_engine
    from smallpress.engine.request import Request, SamplingParams
    from smallpress.rl.rollout import speech
    from smallpress.run.seeds import derive_seed
    from smallpress.tasks.worked import worked_example
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    files = open_model(resolve(name, offline))
    words = speech(files.tokenizer(), "r1_zero_example", worked_example)
    engine = open_engine(files, "int8", 64, 512)
    mixture = parse_mixture(TASKS)
    for family, level in mixture:
        task = find_task(family)
        found = islice(task.examples(split, 11, level), max(1, n // len(mixture)))
        for example in {example.key: example for example in found}.values():
            params = [SamplingParams(96, 0.8, seed=derive_seed(0, example.key, g)) for g in range(N_DRAWS)]
            ids = tuple(words.encode(example))
            done = engine.generate([Request(ids, one, words.stop_ids, words.stopper(), group=0) for one in params])
            texts = {words.decode([id for id in one.ids if id not in words.stop_ids]).strip() for one in done}
            right = {text for text in texts if task.check(example, text).correct}
            for pair in nearest_pairs(sorted(right), sorted(texts - right)):
                yield {"prompt": example.prompt, "chosen": pair[0], "rejected": pair[1], "kind": "drawn"}


def nearest_pairs(right: list[str], wrong: list[str]) -> list[tuple[str, str]]:
    """The right and the wrong answer that are nearest in length, if they are near."""
    pairs = [(abs(len(a) - len(b)), a, b) for a in right for b in wrong]
    best = min(pairs, default=None)
    if best is None or max(map(len, best[1:])) > LONGEST * max(1, min(map(len, best[1:]))):
        return []
    return [best[1:]]


def make(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    for split, share in SHARES.items():
        n = round(args.n * share)
        rows = drawn_pairs(args.model, split, n, args.offline) if args.model else program_pairs(split, n)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_file(args.out / f"{split}.jsonl", "".join(lines).encode())
        print(f"{len(lines)} pairs in {args.out / f'{split}.jsonl'}")


def measure(args: argparse.Namespace) -> None:
    """Accuracy by kind, with 95 % intervals, and that of always taking the longer answer."""
    from smallpress.model.reward_model import all_scores
    from smallpress.tokenizer.whole import encode_whole
    from smallpress.weights.reward_model import load_reward_model, open_reward_model

    files = open_reward_model(args.model)
    model, tokenizer = load_reward_model(files), files.tokenizer()
    rows = [json.loads(line) for line in args.file.read_text(encoding="utf-8").splitlines()]
    texts = []
    for row in rows:
        asked = {"role": "user", "content": row["prompt"]}
        both = [[asked, {"role": "assistant", "content": row[which]}] for which in ("chosen", "rejected")]
        texts.append([encode_whole(tokenizer, messages) for messages in both])
    right, longer = defaultdict(list), defaultdict(list)
    for row, ids, (chosen, rejected) in zip(rows, texts, all_scores(model, texts, 2048), strict=True):
        for kind in ("all", row.get("kind", "all")):
            right[kind].append(chosen > rejected)
            longer[kind].append(len(ids[0]) > len(ids[1]))
    for kind, found in right.items():
        share = wilson(sum(found), len(found))
        by_length = sum(longer[kind]) / len(found)
        print(
            f"{kind:<6} {share.value:6.1%}  ({share.low:.1%} to {share.high:.1%}) of {share.n}; longer {by_length:.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(do=make, out=Path("pairs"), n=2000, model=None, offline=False)
    verbs = parser.add_subparsers()
    making = verbs.add_parser("pairs")
    making.add_argument("--out", type=Path, default=Path("pairs"))
    making.add_argument("--n", type=int, default=2000, help="of train.jsonl at most; a fifth of it are held out")
    making.add_argument("--model", help="draw the answers from it")
    making.add_argument("--offline", action="store_true")
    making.set_defaults(do=make)
    measuring = verbs.add_parser("measure")
    measuring.add_argument("model", type=Path)
    measuring.add_argument("file", type=Path)
    measuring.set_defaults(do=measure)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
