"""CMATH: 600 word problems in Chinese, of six school years (Wei et al. 2023, arXiv 2306.16636)."""

from smallpress.benchmarks.benchmark import MathsBenchmark
from smallpress.tasks.chinese import in_digits
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string, text_or_number


class CMATH(MathsBenchmark):
    """The level is the school year; of the set with distractors, one more than the distractors' number."""

    name = "cmath"
    file = 'cmath_dev.jsonl or distractor.jsonl: JSON lines of "input" and "golden"'
    prompt = "{question}\n\n请逐步推理，并将最终答案写在 \\boxed{} 中。"

    def problem(self, record: Record, where: str) -> Example:
        level = record.get("grade", record.get("distractor", 0) + 1 if isinstance(record.get("distractor"), int) else 1)
        steps = record.get("reasoning_step")
        meta = {"steps": steps} if isinstance(steps, int) else {}
        reference = text_or_number(record, "golden", where)
        return self.ask(
            string(record, "input", where), reference, level=level if isinstance(level, int) else 1, meta=meta
        )

    def plain(self, text: str) -> str:
        return in_digits(text)
