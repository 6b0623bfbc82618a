"""Questions of one's own: JSON lines with an answer that is a number, a formula or a text."""

from smallpress.benchmarks.benchmark import MathsBenchmark
from smallpress.run.errors import UserError
from smallpress.tasks.example import Example
from smallpress.tasks.files import QUESTION_AND_ANSWER
from smallpress.tasks.records import Record, string, text_or_number


class Jsonl(MathsBenchmark):
    """Beside the two, a record may hold "level", "steps" and "part", and "rating", its difficulty."""

    name = "jsonl"
    file = 'JSON lines of "question", "problem" or "prompt", and "answer"'
    prompt = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."

    def problem(self, record: Record, where: str) -> Example:
        for question, answer in QUESTION_AND_ANSWER:
            if question in record and answer in record:
                numbers = {key: record[key] for key in ("level", "steps", "rating") if type(record.get(key)) is int}
                level, part = numbers.pop("level", 1), record.get("part")
                return self.ask(
                    string(record, question, where),
                    text_or_number(record, answer, where),
                    part=part if isinstance(part, str) else "",
                    level=level,
                    meta=numbers,
                )
        raise UserError(f"{where} has no question with an answer", f"give {self.file}")
