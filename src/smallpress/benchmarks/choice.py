"""Multiple choice, asked for a letter: what MMLU, GPQA and the like share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from smallpress.benchmarks.benchmark import Benchmark
from smallpress.tasks import answers
from smallpress.tasks.example import Example

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER = re.compile(
    r"(?:the )?(?:answer|option|choice)?(?: is)?\s*:?\s*\(?([A-Za-z])(?:\)|\.|:|\s|$)(.*)", re.IGNORECASE
)
_IN_TEXT = re.compile(r"(?:answer|option|choice)(?: is)?:?\s*\**\(?([A-Z])\b", re.IGNORECASE)


class ChoiceBenchmark(Benchmark):
    """The reference is a letter; `meta["choices"]` the texts it stands among."""

    def fault(self, example: Example, answer: str) -> str | None:
        return None if letter_of(answer, example.meta["choices"]) == example.reference else f"not {example.reference}"

    def read_lenient(self, example: Example, text: str) -> str | None:
        """The last letter said to be the answer, else the last line."""
        found = _IN_TEXT.findall(text[-answers.READ_CHARS :])
        return str(found[-1]).upper() if found else answers.extract_lenient(text, number=False)


def letter_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter an answer means: the letter itself, with its choice's text behind it or not, or the text alone.

    >>> letter_of("(b) a whale", ["a cat", "a whale"]), letter_of("A whale.", ["a cat", "a whale"])
    ('B', 'B')
    >>> letter_of("A or B", ["a cat", "a whale"]), letter_of("B) a cat", ["a cat", "a whale"])
    (None, None)
    """
    said = answers.clean(answer)
    for letter, choice in zip(LETTERS, choices, strict=False):
        if _plain(said) == _plain(choice):
            return letter
    match = _LETTER.fullmatch(said)
    if match is None:
        return None
    letter, rest = match[1].upper(), match[2]
    at = LETTERS.index(letter)
    if at >= len(choices) or (_plain(rest) and _plain(rest) != _plain(choices[at])):
        return None
    return letter


def listed(choices: Sequence[str]) -> str:
    """The choices, each on a line behind its letter.

    >>> listed(["a cat", "a whale"])
    'A) a cat\\nB) a whale'
    """
    return "\n".join(f"{letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def _plain(text: str) -> str:
    return " ".join(answers.clean(text).casefold().rstrip(".").split())
