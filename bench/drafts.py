"""Answers with drafts and without, in turns, in one run: `python bench/drafts.py`.

The same engine, questions and seeds on both sides, and so the same answers: only tokens per second differ. In bf16 and
fp32 sums are added in another order, and an answer may come out otherwise; that is said. First, what a step costs by
its number of rows, which is what `engine/drafts.py` stands on. A ratio is of medians, with drafts over without: above
1, drafts pay.
"""

import argparse
import platform
import time
from datetime import UTC, datetime
from statistics import median

from smallpress.cli.run import open_talk
from smallpress.cli.talk import Reply, Talk
from smallpress.engine.drafts import PromptLookup
from smallpress.engine.engine import Runner
from smallpress.engine.request import Request
from smallpress.engine.step import Sequence, Step

LIST = (
    "apples, brown bread, two litres of milk, a dozen eggs, olive oil, black pepper, rice, onions, a lemon, green tea"
)
CODE = """\
def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def variance(values):
    center = mean(values)
    total = 0.0
    for value in values:
        total += (value - center) ** 2
    return total / len(values)
"""
QUESTIONS = {
    "list": f"Repeat this list three times, word for word: {LIST}.",
    "code": f"Rename `total` to `result` and print the whole file again:\n\n{CODE}",
    "prose": "Why does the moon always show us the same side?",
    "story": "Tell me a short story about a lighthouse keeper and a whale.",
}
LENGTH = 512  # tokens before the rows whose cost is measured
ROW_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def step_seconds(runner: Runner, n_rows: int, repeats: int) -> float:
    """Median time of a step that runs and samples `n_rows` rows behind `LENGTH` others of one sequence."""
    pages = list(range((LENGTH + n_rows) // runner.page_size + 1))
    ids = [id % 1000 for id in range(LENGTH + n_rows)]
    sequence = Sequence(0, Request(tuple(ids)), len(ids), ids[: LENGTH + 1], pages=pages, draft=ids[LENGTH + 1 :])
    batch = Step([(sequence, LENGTH, n_rows)], [(sequence, 0)], []).batch(runner.page_size)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        logits = runner.run(batch)
        runner.sample(logits, batch, [sequence.request.params] * n_rows, list(range(n_rows)))
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


def answer(talk: Talk, question: str, drafts: bool) -> Reply:
    talk.engine.drafter = PromptLookup if drafts else None
    talk.messages.clear()
    list(talk.ask(question))
    return talk.last


def compare(talk: Talk, name: str, repeats: int) -> None:
    """One line: answers in turns, with drafts and without, after a warm-up that also puts the prompt into pages."""
    answer(talk, QUESTIONS[name], drafts=False)
    pairs = [[answer(talk, QUESTIONS[name], drafts) for drafts in (True, False)] for _ in range(repeats)]
    on, off = ([pair[side].tokens_per_second for pair in pairs] for side in (0, 1))
    ratios = [a / b for a, b in zip(on, off, strict=True)]
    other = "" if all(a.answer == b.answer for a, b in pairs) else ", the answers differ"
    drafted, accepted = pairs[0][0].n_drafted, pairs[0][0].n_accepted
    print(
        f"{name:8}{talk.params.temperature:4}{pairs[0][0].n_tokens:8}{accepted:6} of {drafted:<5}{median(off):10.1f}"
        f"{median(on):10.1f}{median(on) / median(off):8.2f}   {min(ratios):.2f} to {max(ratios):.2f}{other}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="catalogue name, folder or .gguf file")
    parser.add_argument("--dtype", default="auto", choices=("auto", "int8", "bfloat16", "float32"))
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    given = {"max_tokens": options.max_tokens}
    talk = open_talk(options.model, given, "chat", options.dtype, offline=True, drafts="ngram")
    talk.seed = 0
    print(datetime.now(UTC).isoformat(timespec="seconds"), platform.platform(), options.model, options.dtype)
    seconds = {n: step_seconds(talk.engine.runner, n, 4 * options.repeats) for n in ROW_COUNTS}
    print("rows".ljust(16) + "".join(f"{n:7}" for n in ROW_COUNTS))
    print("step, ms".ljust(16) + "".join(f"{seconds[n] * 1e3:7.1f}" for n in ROW_COUNTS))
    costs = [(seconds[n] - seconds[1]) / (n - 1) / seconds[1] for n in ROW_COUNTS[1:]]
    print("each row more".ljust(23) + "".join(f"{cost:7.3f}" for cost in costs), end=" of a step\n\n")
    talk.engine.release()  # what was measured has left nonsense in pages
    print("question   T  tokens  accepted         without      with   ratio   pair by pair   (tokens a second)")
    for temperature in (0.0, 0.6):
        talk.set("temperature", str(temperature))
        for name in QUESTIONS:
            compare(talk, name, options.repeats)


if __name__ == "__main__":
    main()
