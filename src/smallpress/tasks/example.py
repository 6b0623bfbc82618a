"""The three words every task speaks: an Example is asked, a Verdict is found, a Split keeps them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

Split = Literal["train", "held_out"]
Reading = Literal["strict", "lenient"]

HELD_OUT_ONE_IN = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its reference answer.

    `key` names the problem apart from its wording: two examples with one key are the same problem to a model
    that remembers, so the key alone decides the split. `meta` holds `steps` (how many reasoning steps the
    problem needs; each family says what one step is), `thought` (program-written working) and what the family's
    checker needs; everything in it can be written as JSON.
    """

    prompt: str
    reference: str
    family: str
    level: int
    key: str
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The checker's finding. `answer` is what was read as the answer, None where there is none.

    `well_formed` is about the form alone (see `answers.format_ok`); `reason` is a short sentence for logs.
    `error`: the checker came to no finding, so that the answer is neither right nor wrong.
    """

    correct: bool
    answer: str | None
    well_formed: bool
    reason: str
    error: bool = False


def split_of(key: str) -> Split:
    """The side a problem lies on, for ever: one key in five is held out.

    >>> split_of("3+4"), split_of("1+4")
    ('train', 'held_out')
    """
    digest = blake2b(key.encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "little") % HELD_OUT_ONE_IN == 0 else "train"


def worked_completion(example: Example) -> str:
    """A correct completion in the R1-Zero form, from the family's program-written working.

    Raises KeyError for an example whose source gives no working (`meta` has no `thought`).
    """
    return f"<think> {example.meta['thought']} </think> <answer> {example.reference} </answer>"
