"""What is measured of a stage's model: the same held-out problems every time, and more than whether they are right.

A model is asked in the forms of its stage; each form is read strictly and leniently. What later stages are compared
with, the untrained model and R1-Zero, stands for itself by its best form and reading, which errs against the ladder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final, Literal

from pydantic import Field

from smallpress.corpus.filters import R1_READABLE, Readable
from smallpress.engine.engine import Engine
from smallpress.evaluate.evaluate import Shown, ask, judge
from smallpress.evaluate.intervals import Frozen
from smallpress.evaluate.problems import Problems
from smallpress.evaluate.result import Result, Sampling, read_json, validated
from smallpress.rl.reward import language_share
from smallpress.tokenizer.tokenizer import Tokenizer

SCHEMA: Final = "smallpress.measured/1"


class Way(Frozen):
    """One form of asking, greedily. `language`: mean share of an answer's words that are of the question's script;
    `readable`: share of the answers that are finished and that no filter finds hard to read."""

    strict: Result
    lenient: Result
    language: float
    readable: float

    @property
    def better(self) -> Result:
        """Of the two readings; the strict one where they tie."""
        return max(self.strict, self.lenient, key=lambda one: one.overall.accuracy.value)


class Measured(Frozen):
    schema_: Literal["smallpress.measured/1"] = Field(default=SCHEMA, alias="schema")
    model: str
    ways: tuple[Way, ...] = Field(min_length=1)

    @property
    def best(self) -> Way:
        """The form with the highest accuracy in either reading; the first of those that tie."""
        return max(self.ways, key=lambda way: way.better.overall.accuracy.value)

    @property
    def seconds(self) -> float:
        return sum(way.strict.seconds for way in self.ways)


def measured(
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Problems,
    forms: Sequence[str],
    max_tokens: int,
    model: str,
    shown: Shown,
    on_answer: Callable[[], None] = lambda: None,
) -> Measured:
    ways = []
    for form in forms:
        asked = ask(engine, tokenizer, problems.examples, form, Sampling(max_tokens=max_tokens), shown, on_answer)
        strict, lenient = (judge(asked, problems.tasks, reading, model) for reading in ("strict", "lenient"))
        ways.append(way_of(strict, lenient))
    return Measured(model=model, ways=tuple(ways))


def way_of(strict: Result, lenient: Result, rules: Readable = R1_READABLE) -> Way:
    """The texts are the same in both readings."""
    said = [(problem.prompt, answer) for problem in strict.problems for answer in problem.answers]
    return Way(
        strict=strict,
        lenient=lenient,
        language=fmean(language_share(prompt, answer.text) for prompt, answer in said),
        readable=fmean(not answer.truncated and rules.fault(answer.text) is None for _, answer in said),
    )


def read_measured(path: Path) -> Measured | None:
    """What was measured, None where nothing was yet. Raises UserError naming the file."""
    return validated(Measured, read_json(path), path) if path.exists() else None
