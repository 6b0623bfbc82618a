"""Problems from a file of the user's: GSM8K, SVAMP, and plain JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.check import Checked
from smallpress.tasks.dice import Dice
from smallpress.tasks.example import Example, Split, split_of
from smallpress.tasks.records import cause, read_text, string, text_or_number
from smallpress.tasks.records import json_lines as record_lines

QUESTION_AND_ANSWER = (("question", "answer"), ("problem", "answer"), ("prompt", "answer"))

_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")


def gsm8k(path: str | Path) -> list[Example]:
    """GSM8K's JSON lines: the reference stands after "#### "; the working before it becomes `meta["thought"]`.

    `meta["steps"]` counts the calculator marks <<48/2=24>>, which are left out of the working.
    """
    return [gsm8k_problem(record, where) for where, record in record_lines(Path(path))]


def svamp(path: str | Path) -> list[Example]:
    """SVAMP's JSON list. `meta["steps"]` counts the operations of its equation, `meta["kind"]` is its type."""
    path = Path(path)
    try:
        records = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {cause(error)}", "give SVAMP.json, or JSON lines in a .jsonl") from None
    if not isinstance(records, list) or not records:
        raise UserError(f"{path} is not a list of problems", "give SVAMP.json, or JSON lines in a .jsonl")
    return [svamp_problem(record, f"{path}, problem {n}") for n, record in enumerate(records, start=1)]


def json_lines(path: str | Path) -> list[Example]:
    """JSON lines of question/answer, problem/answer or prompt/answer; GSM8K lines are recognised by their "#### "."""
    return [_problem(record, where) for where, record in record_lines(Path(path))]


def read_problems(path: str | Path) -> list[Example]:
    """A file by its ending: .json is SVAMP's form, anything else JSON lines. Raises UserError naming file and line."""
    return svamp(path) if Path(path).suffix == ".json" else json_lines(path)


class FileTask(Checked):
    """The problems of one file as a task with the one level 1: each split's problems, shuffled anew every round."""

    levels = (1,)

    def __init__(self, problems: list[Example], name: str = "file"):
        self.name = name
        self._sides: dict[Split, list[Example]] = {
            side: [problem for problem in problems if split_of(problem.key) == side] for side in ("train", "held_out")
        }

    @classmethod
    def read(cls, path: str | Path) -> FileTask:
        """Raises UserError as the readers do."""
        return cls(read_problems(path), Path(path).stem)

    def problems(self, split: Split) -> list[Example]:
        """All problems of one split, in the file's order."""
        return list(self._sides[split])

    def examples(self, split: Split, seed: int, level: int = 1) -> Iterator[Example]:
        """Endless. Raises UserError for another level than 1, or where no problem falls into the split."""
        if level not in self.levels:
            raise UserError(f"{self.name} has no level {level}", "a file has level 1 only")
        if not self._sides[split]:
            raise UserError(f"{self.name} has no problem in its {split} split", "give a file with more problems")
        return self._endless(split, Dice(derive_seed("tasks", "file", split, seed)))

    def _endless(self, split: Split, dice: Dice) -> Iterator[Example]:
        while True:
            yield from dice.shuffled(self._sides[split])


def file_key(question: str) -> str:
    """The key of a question from a file: a hash of its words without case and white space at the ends."""
    words = " ".join(question.casefold().split())
    return "file:" + blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


# One record ----------------------------------------------------------------------------------------------------------


def _example(prompt: str, reference: str, family: str, meta: dict[str, Any]) -> Example:
    return Example(prompt, reference, family, 1, file_key(prompt), meta)


def _problem(record: dict[str, Any], where: str) -> Example:
    for question, answer in QUESTION_AND_ANSWER:
        if question in record and answer in record:
            if isinstance(record[answer], str) and "#### " in record[answer]:
                return gsm8k_problem(record, where, question)
            return _example(string(record, question, where), text_or_number(record, answer, where), "file", {})
    raise UserError(
        f"{where} has only {', '.join(map(repr, list(record)[:6])) or 'nothing'}",
        "each line needs " + " or ".join(f"{question!r} and {answer!r}" for question, answer in QUESTION_AND_ANSWER),
    )


def gsm8k_problem(record: dict[str, Any], where: str, question: str = "question") -> Example:
    """One record of GSM8K; `where` it stands is for the error."""
    prompt, solution = string(record, question, where), string(record, "answer", where)
    working, mark, reference = solution.rpartition("#### ")
    if not mark or not reference.strip():
        raise UserError(f"{where} has no '#### ' with an answer after it", "give a GSM8K file")
    steps = len(_CALCULATOR_MARK.findall(working))
    thought = _CALCULATOR_MARK.sub("", working).strip()
    return _example(prompt, reference.strip(), "gsm8k", {"steps": steps, "thought": thought})


def svamp_problem(record: Any, where: str) -> Example:
    """One record of SVAMP; `where` it stands is for the error."""
    if not isinstance(record, dict):
        raise UserError(f"{where} is no object", "give SVAMP.json")
    body, question = string(record, "Body", where).strip(), string(record, "Question", where).strip()
    if body[-1] not in ".?!,":
        body, question = body + ",", question[:1].lower() + question[1:]
    steps = len(re.findall(r"[-+*/] ", string(record, "Equation", where)))
    meta = {"steps": steps, "kind": string(record, "Type", where)}
    return _example(f"{body} {question}", text_or_number(record, "Answer", where), "svamp", meta)


READERS: dict[str, Callable[[str | Path], list[Example]]] = {"gsm8k": gsm8k, "svamp": svamp, "jsonl": json_lines}
