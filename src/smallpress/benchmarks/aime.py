"""AIME: 15 problems a contest, each answer a whole number from 0 to 999 (Mathematical Association of America)."""

from smallpress.benchmarks.benchmark import MathsBenchmark
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string, text_or_number


class AIME(MathsBenchmark):
    name = "aime"
    file = 'JSON lines or CSV of "problem" (or "Question") and "answer" (or "Answer")'
    prompt = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    max_tokens = 32768

    def problem(self, record: Record, where: str) -> Example:
        named = {str(key).casefold(): value for key, value in record.items()}
        question = "question" if "question" in named and "problem" not in named else "problem"
        reference = text_or_number(named, "answer", where)
        return self.ask(string(named, question, where), reference.lstrip("0") or "0")
