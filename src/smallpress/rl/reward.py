"""From a finished rollout to a number, part by part; each part is logged under its own name."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from smallpress.tasks.answers import has_answer_tag
from smallpress.tasks.example import Example, Verdict
from smallpress.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Judged:
    """A rollout as the reward parts see it."""

    task: Task | None  # None: nothing can check it
    example: Example
    text: str
    n_tokens: int
    max_tokens: int
    verdict: Verdict  # strict: the answer in its tags or box


def accuracy(rollout: Judged) -> float:
    """1 for the right answer, in the asked form or not at all (DeepSeek-R1, section 2.2)."""
    return float(rollout.verdict.correct)


def loose_accuracy(rollout: Judged) -> float:
    """1 for the right answer however it is marked: a dense help for models too weak to find the form by chance."""
    assert rollout.task is not None
    return float(rollout.task.check(rollout.example, rollout.text, "lenient").correct)


def format_(rollout: Judged) -> float:
    """1 for thinking and answer, each in its tags and nothing else."""
    return float(rollout.verdict.well_formed)


def answer_tag(rollout: Judged) -> float:
    """1 for any complete answer tag: the first half of the form."""
    return float(has_answer_tag(rollout.text))


_TAG = re.compile(r"</?\w+>")
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\d_\u4e00-\u9fff]+")


def language(rollout: Judged) -> float:
    """Words of the question's script over all words (DeepSeek-R1, section 2.3.2)."""
    return language_share(rollout.example.prompt, rollout.text)


def language_share(question: str, text: str) -> float:
    """Han characters count one word each, tags such as <think> none. A text without words changes nothing: 1.

    >>> language_share("What is 2 + 2?", "<think> two \u52a0 two </think> four")
    0.75
    """
    words = _WORD.findall(_TAG.sub(" ", text))
    chinese = any(_is_han(char) for char in question)
    same = sum(_is_han(word) if chinese else word.isascii() for word in words)
    return same / len(words) if words else 1.0


def _is_han(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff"


OVERLONG_WINDOW = 0.2  # of max_tokens, as DAPO's 4,096 of 20,480


def overlong(rollout: Judged) -> float:
    """DAPO's soft punishment (eq. 13): 0, falling to -1 over the last fifth of the allowed length."""
    window = OVERLONG_WINDOW * rollout.max_tokens
    return min(0.0, (rollout.max_tokens - window - rollout.n_tokens) / window)


NEED_REFERENCE = frozenset({"accuracy", "loose_accuracy"})
"""Parts that a rollout of a general prompt has not."""

PARTS: dict[str, Callable[[Judged], float]] = {
    "accuracy": accuracy,
    "loose_accuracy": loose_accuracy,
    "format": format_,
    "answer_tag": answer_tag,
    "language": language,
    "overlong": overlong,
}
