"""MBPP: 974 short Python tasks, of which 11 to 510 are the test set (Austin et al. 2021, arXiv 2108.07732)."""

from pathlib import Path

from smallpress.benchmarks.code import CodeBenchmark
from smallpress.tasks.code_files import mbpp_problem
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record

TEST_IDS = range(11, 511)


class MBPP(CodeBenchmark):
    """As in the paper, the prompt shows the tests, which give the function's name."""

    name = "mbpp"
    file = 'mbpp.jsonl: JSON lines of "task_id", "text", "code" and "test_list"'
    prompt = "{question}\n\nAnswer with one block of Python code that holds the function and the imports it needs."

    def problem(self, record: Record, where: str) -> Example:
        return self.asked(mbpp_problem(record, where))

    def read(self, path: str | Path) -> list[Example]:
        """The test set only, where the file holds the other tasks too."""
        problems = super().read(path)
        return [problem for problem in problems if problem.meta["task_id"] in TEST_IDS] or problems
