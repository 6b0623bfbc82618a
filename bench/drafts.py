"""Answers with drafts and without, in turns, in one run: `python bench/drafts.py`.

`--drafts mtp`: by a model's own modules of multi-token prediction, where it has them; else by what stands in the
prompt. Equal engines, the same questions and seeds on both sides, and so the same answers: only tokens per second
differ. In bf16 and fp32 sums are added in another order, and an answer may come out otherwise; that is said. First,
what a step costs by its number of rows, which is what `engine/drafts.py` stands on. A ratio is of medians, with drafts
over without: above 1, drafts pay.
"""

import argparse
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from smallpress.cli.run import open_talk
from smallpress.cli.talk import Reply, Talk
from smallpress.engine import step as steps
from smallpress.engine.drafts import Pace
from smallpress.engine.engine import Runner
from smallpress.engine.request import Request

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
LENGTH = 512  # tokens before the rows whose cost is measured, where so many fit
ROW_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def step_seconds(runner: Runner, n_rows: int, repeats: int) -> float:
    """Median time of a step that runs and samples `n_rows` rows behind others of one sequence."""
    length = min(LENGTH, runner.n_pages * runner.page_size - max(ROW_COUNTS))
    pages = list(range(-(-(length + n_rows) // runner.page_size)))
    ids = [id % 1000 for id in range(length + n_rows)]
    sequence = steps.Sequence(0, Request(tuple(ids)), len(ids), ids[: length + 1], pages=pages, draft=ids[length + 1 :])
    batch = steps.Step([(sequence, length, n_rows)], [(sequence, 0)], []).batch(runner.page_size)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        logits = runner.run(batch)
        runner.sample(logits, batch, [sequence.request.params] * n_rows, list(range(n_rows)))
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


def answer(talk: Talk, question: str) -> Reply:
    talk.messages.clear()
    list(talk.ask(question))
    return talk.last


def compare(sides: Sequence[Talk], name: str, question: str, repeats: int) -> None:
    """One line: answers in turns, with drafts and without, after a warm-up that also puts the prompt into pages."""
    for talk in sides:
        answer(talk, question)
    pairs = [[answer(talk, question) for talk in sides] for _ in range(repeats)]
    on, off = ([pair[side].tokens_per_second for pair in pairs] for side in (0, 1))
    ratios = [a / b for a, b in zip(on, off, strict=True)]
    other = "" if all(a.answer == b.answer for a, b in pairs) else ", the answers differ"
    first = pairs[0][0]
    print(
        f"{name:8}{sides[0].params.temperature:4}{first.n_tokens:8}{first.n_accepted:6} of {first.n_drafted:<5}"
        f"{median(off):10.1f}"
        f"{median(on):10.1f}{median(on) / median(off):8.2f}   {min(ratios):.2f} to {max(ratios):.2f}{other}",
        flush=True,
    )


def costs_of_rows(talk: Talk, repeats: int) -> None:
    seconds = {n: step_seconds(talk.engine.runner, n, repeats) for n in ROW_COUNTS}
    print("rows".ljust(16) + "".join(f"{n:7}" for n in ROW_COUNTS))
    print("step, ms".ljust(16) + "".join(f"{seconds[n] * 1e3:7.1f}" for n in ROW_COUNTS))
    costs = [(seconds[n] - seconds[1]) / (n - 1) / seconds[1] for n in ROW_COUNTS[1:]]
    print("each row more".ljust(23) + "".join(f"{cost:7.3f}" for cost in costs), end=" of a step\n\n")
    talk.engine.release()  # what was measured has left nonsense in pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="catalogue name, folder or .gguf file")
    parser.add_argument("--dtype", default="auto", choices=("auto", "int8", "bfloat16", "float32"))
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--drafts", default="ngram", choices=("ngram", "mtp"))
    parser.add_argument("--length", type=int, help="draft so many ids a step, whether that pays or not")
    parser.add_argument("--ask", nargs="+", default=[], metavar="TEXT", help="instead of the questions here")
    options = parser.parse_args()
    given = {"max_tokens": options.max_tokens}
    if options.length:
        Pace.length = lambda pace, n_rows: options.length
    sides = [
        open_talk(options.model, given, "chat", options.dtype, offline=True, drafts=drafts)
        for drafts in (options.drafts, "off")
    ]
    print(datetime.now(UTC).isoformat(timespec="seconds"), platform.platform(), options.model, options.dtype)
    costs_of_rows(sides[1], 4 * options.repeats)
    print("question   T  tokens  accepted         without      with   ratio   pair by pair   (tokens a second)")
    asked = {f"{i + 1}": text for i, text in enumerate(options.ask)} or QUESTIONS
    for temperature in (0.0, 0.6):
        for talk in sides:
            talk.seed = 0
            talk.set("temperature", str(temperature))
        for name, question in asked.items():
            compare(sides, name, question, options.repeats)


if __name__ == "__main__":
    main()
