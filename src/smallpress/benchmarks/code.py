"""Programs as answers: the code is taken out of the completion here, and judged by running tests elsewhere."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Protocol

from smallpress.benchmarks.benchmark import Benchmark
from smallpress.tasks import answers
from smallpress.tasks.check import CheckerError
from smallpress.tasks.example import Example, Reading, Verdict

MAX_CODE_CHARS = 100_000
_BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL | re.IGNORECASE
)


class RunTests(Protocol):
    """Runs a program where it can do no harm."""

    def __call__(self, program: str) -> str | None:
        """What went wrong, None where the program ended well. Raises CheckerError where it could not be run."""
        ...


class CodeBenchmark(Benchmark):
    """A completion is right where the program of its code and the question's tests ends well."""

    max_tokens = 2048

    def __init__(self, run_tests: RunTests | None = None) -> None:
        self.run_tests = run_tests

    @abstractmethod
    def program(self, example: Example, code: str) -> str:
        """The code with its tests behind it."""

    def check(self, example: Example, completion: str, reading: Reading = "strict", opened: bool = False) -> Verdict:
        """Strict takes code only from a block; lenient the whole answer where there is no block."""
        well_formed = answers.format_ok(completion, opened)
        code = extract_code(completion)
        if code is None and reading == "lenient":
            code = completion.rpartition("</think>")[2]
        if code is None or not code.strip():
            return Verdict(False, None, well_formed, "no code")
        if len(code) > MAX_CODE_CHARS:
            return Verdict(False, None, well_formed, "too long")
        try:
            if self.run_tests is None:
                raise CheckerError("there is no sandbox to run code in")
            fault = self.run_tests(self.program(example, code))
        except CheckerError as error:
            return Verdict(False, code, well_formed, str(error), error=True)
        return Verdict(fault is None, code, well_formed, fault or "right")


def extract_code(completion: str) -> str | None:
    """The last closed block of code after the thinking.

    >>> extract_code("<think>```\\n1\\n```</think>\\n```python\\nx = 2\\n```")
    'x = 2\\n'
    """
    text = completion.rpartition("</think>")[2]
    blocks = _BLOCK.findall(text[-2 * MAX_CODE_CHARS :])
    return str(blocks[-1]) if blocks else None
