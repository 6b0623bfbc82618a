"""Programs as answers: the code is taken out of the completion here, and its tests are run in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from smallpress.benchmarks.benchmark import Benchmark
from smallpress.tasks import answers
from smallpress.tasks.check import CheckerError
from smallpress.tasks.code_files import CodeFile, program
from smallpress.tasks.code_tests import CodeVerdict, UnitTests, run_tests
from smallpress.tasks.example import Example, Reading, Verdict
from smallpress.tasks.sandbox import Limits

MAX_CODE_CHARS = 100_000
_BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL | re.IGNORECASE
)


RunTests = Callable[[str, UnitTests, Limits], CodeVerdict]
"""Runs a program and its tests where they can do no harm. Raises CheckerError where it could not be done."""


class CodeBenchmark(Benchmark):
    """A completion is right where its code passes the question's tests, in a sandbox."""

    max_tokens = 2048

    def __init__(self, run_tests: RunTests = run_tests) -> None:
        self.run_tests = run_tests

    def asked(self, problem: Example) -> Example:
        """The problem in the benchmark's prompt."""
        return replace(problem, prompt=self.prompt.replace("{question}", problem.prompt))

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
            verdict = self.run_tests(program(example, code), UnitTests(**example.meta["tests"]), CodeFile.limits)
        except CheckerError as error:
            return Verdict(False, code, well_formed, str(error), error=True)
        return Verdict(verdict.passed, code, well_formed, "right" if verdict.passed else verdict.reason)


def extract_code(completion: str) -> str | None:
    """The last closed block of code after the thinking.

    >>> extract_code("<think>```\\n1\\n```</think>\\n```python\\nx = 2\\n```")
    'x = 2\\n'
    """
    text = completion.rpartition("</think>")[2]
    blocks = _BLOCK.findall(text[-2 * MAX_CODE_CHARS :])
    return str(blocks[-1]) if blocks else None
