"""GPQA: questions of graduate level with four choices (Rein et al. 2023, arXiv 2311.12022)."""

from random import Random

from smallpress.benchmarks.choice import LETTERS, ChoiceBenchmark, listed
from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string

WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


class GPQA(ChoiceBenchmark):
    """The file names the right answer first, so each question's choices are shuffled, always in the same way."""

    name = "gpqa"
    file = 'gpqa_diamond.csv: "Question", "Correct Answer" and "Incorrect Answer 1" to 3'
    prompt = "{question}\n\nPlease reason step by step, and put the letter of your final answer within \\boxed{}."
    max_tokens = 32768

    def problem(self, record: Record, where: str) -> Example:
        question, right = string(record, "Question", where), string(record, "Correct Answer", where).strip()
        choices = [right, *(string(record, key, where).strip() for key in WRONG)]
        Random(derive_seed("gpqa", question)).shuffle(choices)
        reference = LETTERS[choices.index(right)]
        return self.ask(f"{question.strip()}\n\n{listed(choices)}", reference, meta={"choices": choices})
