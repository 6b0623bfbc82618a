"""SVAMP: 1,000 one-step word problems varied from one another (Patel et al. 2021, arXiv 2103.07191)."""

from smallpress.benchmarks.benchmark import MathsBenchmark
from smallpress.tasks.example import Example
from smallpress.tasks.files import svamp_problem
from smallpress.tasks.records import Record


class SVAMP(MathsBenchmark):
    name = "svamp"
    file = 'SVAMP.json: a list of objects with "Body", "Question", "Equation" and "Answer"'
    prompt = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."

    def problem(self, record: Record, where: str) -> Example:
        read = svamp_problem(record, where)
        return self.ask(read.prompt, read.reference, meta=read.meta)
