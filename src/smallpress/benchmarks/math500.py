"""MATH-500: 500 competition problems of five levels (Hendrycks et al. 2021, arXiv 2103.03874; Lightman et al. 2023)."""

import re

from smallpress.benchmarks.benchmark import MathsBenchmark
from smallpress.tasks.answers import answers_given
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string


class Math500(MathsBenchmark):
    name = "math500"
    file = 'JSON lines of "problem" with "answer", or a "solution" that boxes it; "level" and "subject" where known'
    prompt = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    max_tokens = 32768

    def problem(self, record: Record, where: str) -> Example:
        level = re.search(r"[1-5]", str(record.get("level", "")))
        boxed = answers_given(record["solution"]) if isinstance(record.get("solution"), str) else []
        reference = boxed[-1] if "answer" not in record and boxed else string(record, "answer", where)
        return self.ask(string(record, "problem", where), reference, level=int(level[0]) if level else 1)
