"""The course of every check: find the answer, refuse a hedge, compare."""

from __future__ import annotations

from typing import Protocol

from smallpress.tasks import answers
from smallpress.tasks.exact import read_number
from smallpress.tasks.example import Example, Reading, Verdict


class CheckerError(Exception):
    """The checker could not judge: the answer is neither right nor wrong. The message says why."""


class Checker(Protocol):
    def check(self, example: Example, completion: str, reading: Reading = "strict", opened: bool = False) -> Verdict:
        """A wrong answer is a Verdict; an exception is a bug of the checker. `opened`: the prompt ended in <think>."""
        ...


class Checked:
    """What a task is judged by; a family whose answers are no plain numbers or words replaces the last two."""

    def check(self, example: Example, completion: str, reading: Reading = "strict", opened: bool = False) -> Verdict:
        """Read the completion's answer and judge it. `opened`: the prompt ended in `<think>`.

        Strict takes an answer only from its tag or box. Lenient, for measuring models that never learnt the form,
        also takes what looks like the answer in plain text, before any turn of the user's that the model invents.
        """
        well_formed = answers.format_ok(completion, opened)
        text = answers.until_next_turn(completion) if reading == "lenient" else completion
        given = answers.answers_given(text)
        if not given and reading == "lenient":
            plain = self.read_lenient(example, text)
            given = [plain] if plain is not None else []
        if not given:
            return Verdict(False, None, well_formed, "no answer")
        if not answers.agree(given):
            return Verdict(False, given[-1], well_formed, "several answers that differ")
        try:
            fault = self.fault(example, given[-1])
        except CheckerError as error:
            return Verdict(False, given[-1], well_formed, str(error), error=True)
        return Verdict(fault is None, given[-1], well_formed, fault or "right")

    def fault(self, example: Example, answer: str) -> str | None:
        """What is wrong with an answer, None where it is right. Raises CheckerError where that cannot be said."""
        return None if answers.equal(answer, example.reference) else f"not {example.reference}"

    def read_lenient(self, example: Example, text: str) -> str | None:
        """The answer of a completion without tag or box: the last number, or the last line, as the reference is."""
        return answers.extract_lenient(text, number=read_number(example.reference) is not None)
