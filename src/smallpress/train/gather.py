"""Questions to a teacher, answers into a file, and of those the ones worth learning.

answers.jsonl   every answer as it came, a line each, on the disk before the next is counted: what a stopped run
                has paid for is not asked again
data.jsonl      those that passed, as conversations for `smallpress sft`, and the other conversations mixed in
"""

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Protocol

from smallpress.corpus.conversations import Message, read_conversations, read_rows
from smallpress.corpus.filters import Measured
from smallpress.corpus.json_files import texts_in
from smallpress.run.atomic import write_file
from smallpress.run.errors import disk_error
from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example
from smallpress.tasks.mixture import parse_mixture
from smallpress.tasks.task import find_task
from smallpress.tokenizer.thinking import CLOSE, OPEN
from smallpress.train.distill_settings import DistillSettings

ANSWERS, DATA = "answers.jsonl", "data.jsonl"


@dataclass(frozen=True, slots=True)
class Question:
    """`example` where a program can check the answer."""

    messages: tuple[Message, ...]
    example: Example | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    finished: bool
    prompt_tokens: int
    completion_tokens: int


class Teacher(Protocol):
    def answers(self, asked: list[tuple[Question, int]]) -> Generator[tuple[int, Answer], None, None]:
        """(place in `asked`, answer) as they come; the number is that of the draw."""
        ...


def with_thinking(text: str, thinking: str | None) -> str:
    """One text, as the student is to write it."""
    return text if thinking is None or OPEN in text else f"{OPEN}\n{thinking.strip()}\n{CLOSE}\n\n{text}"


def questions(settings: DistillSettings) -> list[Question]:
    """Those of the tasks, in turns and from the side that is trained on, no problem twice; then those of the files."""
    found: list[Question] = []
    pairs = parse_mixture(",".join(settings.tasks)) if settings.tasks else []
    share = -(-settings.n_questions // max(1, len(pairs)))
    for name, level in pairs:
        stream = find_task(name).examples("train", derive_seed(settings.seed, "distill", name, level), level)
        keys: dict[str, Example] = {}
        for example in islice(stream, 20 * share):  # a level may have few problems
            keys.setdefault(example.key, example)
            if len(keys) == share:
                break
        found += [Question(({"role": "user", "content": one.prompt},), one) for one in keys.values()]
    found = found[: settings.n_questions] if pairs else found
    for file in settings.prompts:
        for conversation in read_conversations(Path(file)):
            messages = list(conversation.messages)
            while messages and messages[-1]["role"] == "assistant":
                messages.pop()
            if messages:
                found.append(Question(tuple(messages)))
    return found


def gather(
    folder: Path,
    asked: list[Question],
    answers_each: int,
    teacher: Teacher,
    on_answer: Callable[[], object],
    minutes: float | None = None,
) -> None:
    """Ask what answers.jsonl does not hold yet; for at most so many minutes, those of earlier sittings included.

    Raises UserError where the teacher or the disk refuses.
    """
    path = folder / ANSWERS
    rows = stored(path)
    began = time.perf_counter() - seconds_asked(rows)
    done = {(row["question"], row["draw"]) for row in rows}
    for _ in done:
        on_answer()
    missing = [(i, n) for n in range(answers_each) for i in _mingled(len(asked)) if (i, n) not in done]

    def over() -> bool:
        return minutes is not None and time.perf_counter() - began >= 60 * minutes

    answers = teacher.answers([(asked[i], n) for i, n in missing])
    try:
        with open(path, "a", encoding="utf-8") as file, closing(answers):
            for place, answer in () if over() else answers:
                i, n = missing[place]
                row = {"question": i, "draw": n, "text": answer.text, "finished": answer.finished}
                row |= {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
                row["seconds"] = round(time.perf_counter() - began, 3)
                file.write(json.dumps(row, ensure_ascii=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
                on_answer()
                if over():
                    break
    except OSError as error:
        raise disk_error(error, f"writing {path}") from error


def _mingled(n: int) -> list[int]:
    """0 .. n - 1 in an order of their own: an asking that time cuts short has some of every kind."""
    places = list(range(n))
    Random(derive_seed("order of asking", n)).shuffle(places)
    return places


def seconds_asked(rows: Iterable[dict[str, Any]]) -> float:
    """What the asking has taken when the newest of these answers came."""
    return max((float(row.get("seconds", 0.0)) for row in rows), default=0.0)


def stored(path: Path) -> list[dict[str, Any]]:
    """The answers on the disk; a last line that a kill cut short is cut off the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        write_file(path, whole)
    return [row for _, row in read_rows(path)]


def sift(folder: Path, settings: DistillSettings, asked: list[Question]) -> Counter[str]:
    """Write data.jsonl from answers.jsonl; how many were kept, and how many dropped for which reason.

    The other conversations are added to what was kept, so that they are `others_share` of the whole: of 3 answers and
    a share of 0.25 one. Of more the seed draws; of fewer all are taken.
    """
    measured = Measured(_texts(settings.filters.measured))
    counts: Counter[str] = Counter()
    kept: dict[int, list[str]] = defaultdict(list)
    for row in sorted(stored(folder / ANSWERS), key=lambda row: (row["question"], row["draw"])):
        question, text = asked[row["question"]], row["text"].strip()
        why = _fault(settings, question, text, row["finished"], measured)
        if why is None and text in kept[row["question"]]:
            why = "the same as another"
        if why is None and len(kept[row["question"]]) == settings.keep_each:
            why = f"more than {settings.keep_each} of a question"
        counts[why or "kept"] += 1
        if why is None:
            kept[row["question"]].append(text)
    lines = []
    for i, texts in sorted(kept.items()):
        for text in texts:
            messages = [*asked[i].messages, {"role": "assistant", "content": text}]
            lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    others = _others(settings, len(lines), measured)
    if others:
        counts["other conversations, mixed in"] = len(others)
    lines += [json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in others]
    write_file(folder / DATA, "".join(lines).encode("utf-8", "replace"))
    return counts


def _fault(settings: DistillSettings, question: Question, text: str, finished: bool, measured: Measured) -> str | None:
    filters, example = settings.filters, question.example
    if not finished:
        return "cut off"
    if why := filters.readable.fault(text):
        return why
    if example is not None and (filters.correct or filters.well_formed):
        verdict = find_task(example.family).check(example, text, settings.reading)
        if filters.correct and not verdict.correct:
            return "wrong"
        if filters.well_formed and not verdict.well_formed:
            return "not in the form asked for"
    asked = str(question.messages[-1]["content"])
    return measured.shares(asked) or measured.shares(text)


def _others(settings: DistillSettings, n_own: int, measured: Measured) -> list[list[Message]]:
    """Conversations of the files beside `n_own` answers; none that shares words with what is measured."""
    known = [
        list(conversation.messages)
        for file in settings.others
        for conversation in read_conversations(Path(file))
        if not any(measured.shares(str(message["content"])) for message in conversation.messages)
    ]
    n = min(len(known), round(n_own * settings.others_share / (1 - settings.others_share)))
    chosen = Random(derive_seed(settings.seed, "others")).sample(range(len(known)), n)
    return [known[i] for i in sorted(chosen)]


def _texts(files: Iterable[str]) -> Iterator[str]:
    """Every text of a file of any shape."""
    for file in files:
        for _, row in read_rows(Path(file)):
            yield from texts_in(row)
