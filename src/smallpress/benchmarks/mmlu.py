"""MMLU: 14,042 questions of four choices from 57 subjects (Hendrycks et al. 2021, arXiv 2009.03300)."""

from pathlib import Path

from smallpress.benchmarks.choice import LETTERS, ChoiceBenchmark, listed
from smallpress.run.errors import UserError
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string


class MMLU(ChoiceBenchmark):
    """Also MMLU-Pro, CMMLU and other sets of that shape, with up to 26 choices."""

    name = "mmlu"
    file = 'JSON lines of "question", "choices" (or "options") and "answer", a letter or an index from 0; "subject"'
    prompt = "{question}\n\nPlease reason step by step, and put the letter of your final answer within \\boxed{}."

    def problem(self, record: Record, where: str) -> Example:
        choices = record.get("choices", record.get("options"))
        if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices) or len(choices) < 2:
            raise UserError(f'{where} has no "choices"', f"give {self.file}")
        letter = record.get("answer")
        letter = LETTERS[letter] if type(letter) is int and 0 <= letter < len(LETTERS) else str(letter).strip()
        if letter not in list(LETTERS[: len(choices)]):
            raise UserError(f'{where}: "answer" is {record.get("answer")!r}, none of the choices', f"give {self.file}")
        part = record.get("subject", record.get("category", ""))
        question = f"{string(record, 'question', where)}\n\n{listed(choices)}"
        return self.ask(question, letter, Path(str(part)).name, meta={"choices": choices})
