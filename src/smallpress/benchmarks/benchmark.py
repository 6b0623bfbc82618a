"""What a benchmark is: a reader of its file, a prompt, and a checker. Each stands in one file beside this one.

The protocol is DeepSeek-R1's (arXiv 2501.12948, appendix D.1): zero-shot, the answer asked for in a box.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from smallpress.run.errors import UserError
from smallpress.tasks import maths
from smallpress.tasks.check import Checked
from smallpress.tasks.example import Example
from smallpress.tasks.files import file_key
from smallpress.tasks.records import Record, read_records
from smallpress.tasks.verifier import MathVerify


class Benchmark(Checked, ABC):
    """`prompt` holds {question}; `file` says in words what `read` takes; `max_tokens` is
    its protocol's longest answer.

    `levels` name what the file says of difficulty, where it says anything; `Example.family` is the benchmark's name,
    with a slash and the part's name where it has parts.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    prompt: ClassVar[str]
    max_tokens: ClassVar[int] = 1024

    @abstractmethod
    def problem(self, record: Record, where: str) -> Example:
        """One question. Raises UserError naming where it stands and what it lacks."""

    def read(self, path: str | Path) -> list[Example]:
        """Every question of a file or a folder, those that stand in it twice once. Raises UserError."""
        problems = [self.problem(record, where) for where, record in read_records(path)]
        if not problems:
            raise UserError(f"{path} holds no question of {self.name}", f"give {self.file}")
        return list({problem.key: problem for problem in problems}.values())

    def ask(
        self, question: str, reference: str, part: str = "", level: int = 1, meta: Mapping[str, Any] | None = None
    ) -> Example:
        """The question in the benchmark's prompt. `meta` gets `steps` and `rating` where the file says them."""
        family = f"{self.name}/{part}" if part else self.name
        prompt = self.prompt.replace("{question}", question.strip())
        known = {**(meta or {}), "question": question.strip()}
        return Example(prompt, reference.strip(), family, level, file_key(prompt), known)


class MathsBenchmark(Benchmark):
    """Answers are mathematics; `verifier`, where there is one, judges what our own path leaves open."""

    def __init__(self, verifier: MathVerify | None = None) -> None:
        self.verifier = verifier
        self.n_undecided = 0

    def fault(self, example: Example, answer: str) -> str | None:
        answer, reference = self.plain(answer), self.plain(example.reference)
        same = maths.same(answer, reference)
        if same is None:
            self.n_undecided += 1
            same = self.verifier is not None and self.verifier.same(answer, reference)
        return None if same else f"not {example.reference}"

    def plain(self, text: str) -> str:
        """The text of an answer as it is compared."""
        return text
