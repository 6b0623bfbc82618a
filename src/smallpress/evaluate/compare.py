"""Two evaluations of the same questions: before, after, and the difference of each question with its interval."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

from pydantic import Field

from smallpress.evaluate.intervals import Estimate, Frozen, mean_share, paired_difference
from smallpress.evaluate.result import BOOTSTRAP_SEED, Problem, Result, identity, steps_name
from smallpress.run.errors import UserError

COMPARISON_SCHEMA: Final = "smallpress.comparison/1"


class Change(Frozen):
    """Accuracy before and after, and the mean of the differences question by question: a paired interval."""

    before: Estimate
    after: Estimate
    difference: Estimate


class Comparison(Change):
    """What `result.json` of a run folder holds; the report draws its table of gains from it."""

    schema_: Literal["smallpress.comparison/1"] = Field(default=COMPARISON_SCHEMA, alias="schema")
    before_label: str
    after_label: str
    problem_set: str
    by_family: dict[str, Change]
    by_level: dict[str, Change]
    by_steps: dict[str, Change]


def compare(before: Result, after: Result) -> Comparison:
    """Raises UserError where the two did not answer the same questions: their difference would mean nothing."""
    check_same_questions(before.problem_set, after.problem_set)
    pairs = list(zip(_in_order(before), _in_order(after), strict=True))
    whole = _change(pairs)
    return Comparison(
        before=whole.before,
        after=whole.after,
        difference=whole.difference,
        before_label=before.label,
        after_label=after.label,
        problem_set=before.problem_set,
        by_family=_grouped(pairs, lambda problem: problem.family),
        by_level=_grouped(pairs, lambda problem: f"{problem.family}:{problem.level}"),
        by_steps=_grouped([pair for pair in pairs if pair[0].steps is not None], steps_name),
    )


def check_same_questions(before: str, after: str) -> None:
    """Two names of `problem_set`; UserError where they differ."""
    if before != after:
        raise UserError(
            "the two evaluations asked different questions",
            "evaluate both with the same --tasks, --n and --seed, or the same --data",
        )


def _in_order(result: Result) -> list[Problem]:
    return sorted(result.problems, key=identity)


def _grouped(pairs: Sequence[tuple[Problem, Problem]], name: Callable[[Problem], str]) -> dict[str, Change]:
    groups: dict[str, list[tuple[Problem, Problem]]] = {}
    for pair in pairs:
        groups.setdefault(name(pair[0]), []).append(pair)
    return {key: _change(group) for key, group in groups.items()}


def _change(pairs: Sequence[tuple[Problem, Problem]]) -> Change:
    before, after = [one.share for one, _ in pairs], [other.share for _, other in pairs]
    return Change(
        before=mean_share(before, BOOTSTRAP_SEED),
        after=mean_share(after, BOOTSTRAP_SEED),
        difference=paired_difference(before, after, BOOTSTRAP_SEED),
    )
