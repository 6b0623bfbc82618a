"""HumanEval: 164 functions to complete from their docstrings (Chen et al. 2021, arXiv 2107.03374)."""

from smallpress.benchmarks.code import CodeBenchmark
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string


class HumanEval(CodeBenchmark):
    name = "humaneval"
    file = 'HumanEval.jsonl.gz: JSON lines of "prompt", "test", "entry_point" and "canonical_solution"'
    prompt = (
        "Complete this Python function. Answer with one block of code that holds the whole function and the imports "
        "it needs.\n\n```python\n{question}\n```"
    )

    def problem(self, record: Record, where: str) -> Example:
        keys = ("prompt", "test", "entry_point")
        start, test, entry_point = (string(record, key, where) for key in keys)
        meta = {"start": start, "test": test, "entry_point": entry_point}
        return self.ask(start, string(record, "canonical_solution", where), meta=meta)

    def program(self, example: Example, code: str) -> str:
        """The given start stands first, so that its imports and the functions it defines are there."""
        meta = example.meta
        return f"{meta['start']}\n    pass\n\n\n{code}\n\n\n{meta['test']}\n\n\ncheck({meta['entry_point']})\n"
