"""BIG-Bench Hard: 27 tasks of reasoning, 6,511 questions (Suzgun et al. 2022, arXiv 2210.09261)."""

import re
from pathlib import Path

from smallpress.benchmarks.benchmark import Benchmark
from smallpress.benchmarks.choice import letter_of
from smallpress.tasks import answers
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string

_CHOICES = re.compile(r"^\(([A-Z])\) (.*)$", re.MULTILINE)


class BBH(Benchmark):
    """Answers are a letter, a word, a number, sorted words or brackets; all are compared as text or number."""

    name = "bbh"
    file = "the folder of its JSON files, or one of them"
    prompt = "{question}\n\nPlease reason step by step, and put your final answer between <answer> and </answer>."

    def problem(self, record: Record, where: str) -> Example:
        part = Path(where.rpartition(", ")[0]).name.partition(".")[0]
        question, reference = string(record, "input", where), string(record, "target", where)
        choices = [text for _, text in _CHOICES.findall(question)] if re.fullmatch(r"\([A-Z]\)", reference) else []
        return self.ask(question, reference, part, meta={"choices": choices})

    def fault(self, example: Example, answer: str) -> str | None:
        choices = example.meta["choices"]
        if choices:
            right = letter_of(answer, choices) == example.reference.strip("()")
        else:
            right = answers.equal(answer.replace(",", " "), example.reference) or answers.equal(
                answer, example.reference
            )
        return None if right else f"not {example.reference}"
