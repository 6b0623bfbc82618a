"""HumanEval: 164 functions to complete from their docstrings (Chen et al. 2021, arXiv 2107.03374)."""

from smallpress.benchmarks.code import CodeBenchmark
from smallpress.tasks.code_files import humaneval_problem
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record


class HumanEval(CodeBenchmark):
    name = "humaneval"
    file = 'HumanEval.jsonl.gz: JSON lines of "prompt", "test", "entry_point" and "canonical_solution"'
    prompt = "{question}\n\nAnswer with one block of code that holds the whole function and the imports it needs."

    def problem(self, record: Record, where: str) -> Example:
        return self.asked(humaneval_problem(record, where))
