"""MBPP: 974 short Python tasks, of which 11 to 510 are the test set (Austin et al. 2021, arXiv 2108.07732)."""

from pathlib import Path

from smallpress.benchmarks.code import CodeBenchmark
from smallpress.run.errors import UserError
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, read_records, string

TEST_IDS = range(11, 511)


class MBPP(CodeBenchmark):
    """As in the paper, the prompt shows the tests, which give the function's name."""

    name = "mbpp"
    file = 'mbpp.jsonl: JSON lines of "task_id", "text" (or "prompt"), "code" and "test_list"'
    prompt = (
        "{question}\n\nAnswer with one block of Python code that holds the function and the imports it needs. "
        "It has to pass these tests:\n\n```python\n{tests}\n```"
    )

    def problem(self, record: Record, where: str) -> Example:
        tests = record.get("test_list")
        if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
            raise UserError(f'{where} has no "test_list"', f"give {self.file}")
        setup = record.get("test_setup_code", "\n".join(record.get("test_imports", ())))
        question = string(record, "prompt" if "prompt" in record else "text", where)
        asked = self.ask(question, string(record, "code", where), meta={"tests": tests, "setup": setup})
        prompt = asked.prompt.replace("{tests}", "\n".join(tests))
        return Example(prompt, asked.reference, asked.family, asked.level, asked.key, asked.meta)

    def read(self, path: str | Path) -> list[Example]:
        """The test set only, where the file holds the other tasks too."""
        read = [(record.get("task_id"), self.problem(record, where)) for where, record in read_records(path)]
        test = [problem for task_id, problem in read if task_id in TEST_IDS]
        return test or [problem for _, problem in read]

    def program(self, example: Example, code: str) -> str:
        return "\n".join([str(example.meta["setup"]), code, *example.meta["tests"]]) + "\n"
