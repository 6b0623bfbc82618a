"""GSM8K: 1,319 grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168)."""

from smallpress.benchmarks.benchmark import MathsBenchmark
from smallpress.tasks.example import Example
from smallpress.tasks.files import gsm8k_problem
from smallpress.tasks.records import Record


class GSM8K(MathsBenchmark):
    name = "gsm8k"
    file = 'test.jsonl: JSON lines of "question" and "answer", the answer ending in "#### " and a number'
    prompt = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."

    def problem(self, record: Record, where: str) -> Example:
        read = gsm8k_problem(record, where)
        return self.ask(read.prompt, read.reference, meta=read.meta)
