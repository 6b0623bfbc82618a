"""Results as rows of words, for whoever prints them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smallpress.evaluate.compare import Change, Comparison
from smallpress.evaluate.intervals import Estimate
from smallpress.evaluate.result import Result, Summary


@dataclass(frozen=True, slots=True)
class Grid:
    """`rows[0]` names the columns."""

    title: str
    rows: Sequence[Sequence[str]]


def result_grid(result: Result) -> Grid:
    """One row for all questions, then by family, level and steps, without rows that would repeat another."""
    sampled = result.sampling.samples > 1
    k = max(result.overall.pass_at)
    head = ["questions", "n", "greedy" if result.sampling.greedy else "pass@1", "95 % interval"]
    head += [f"pass@{k}", f"cons@{k}"] if sampled else []
    groups: list[Mapping[str, Summary]] = [{"all": result.overall}]
    groups += [result.by_family] if len(result.by_family) > 1 else []
    groups += [{name: one for name, one in result.by_level.items() if _adds(name, one, result)}]
    groups += [part for part in (result.by_steps, result.by_length) if len(part) > 1]
    groups += [result.by_seen]
    rows = [_cells(name, summary, result) for group in groups for name, summary in group.items()]
    head += ["tokens", *_if_any(result, "thinking", "errors"), "cut off", "well-formed"]
    return Grid(_title(result), [head, *rows])


def _title(result: Result) -> str:
    """What was measured, and in a line each what else there is to say."""
    lines = [result.label]
    if result.rating is not None:
        rating, one = result.rating, result.rating.rating
        end = "; only a bound, since all or none were solved" if rating.bounded else ""
        lines.append(
            f"rating {one.value:.0f} ({one.low:.0f} to {one.high:.0f}) by the difficulty of {one.n} problems, above "
            f"{rating.percentile:.1f} % of Codeforces' users{end}"
        )
    if result.checker:
        lines.append(f"judged by {result.checker}")
    return "\n".join(lines)


def _if_any(result: Result, thinking: str, errors: str) -> list[str]:
    """The first where something was thought, the second where a checker came to no finding."""
    return [thinking] * (result.overall.mean_thinking > 0) + [errors] * (result.overall.error_share > 0)


def comparison_grid(comparison: Comparison) -> Grid:
    parts = (comparison.by_family, comparison.by_level, comparison.by_steps)
    groups: list[Mapping[str, Change]] = [{"all": comparison}, *(part for part in parts if len(part) > 1)]
    return Grid(
        f"before: {comparison.before_label}; after: {comparison.after_label}",
        [
            ["questions", "n", "before", "95 % interval", "after", "95 % interval", "gain", "95 % interval"],
            *(_change_cells(name, change) for group in groups for name, change in group.items()),
        ],
    )


def baseline_grid(results: Sequence[Result], best: int) -> Grid:
    """One row a way of asking and reading; the baseline is marked."""
    rows = [["form", "sampling", "reading", "accuracy", "95 % interval", "tokens", "cut off", "well-formed", ""]]
    for i, result in enumerate(results):
        one = result.overall
        shares = [percent(one.truncated_share), percent(one.well_formed_share)]
        how = [result.form, str(result.sampling), result.reading]
        mark = "baseline" if i == best else ""
        rows.append([*how, *estimate_cells(one.accuracy), f"{one.mean_tokens:.1f}", *shares, mark])
    return Grid(f"{results[best].model}, {len(results[best].problems)} questions, every way of asking", rows)


def percent(share: float) -> str:
    """
    >>> percent(0.625)
    '62.5 %'
    """
    return f"{100 * share:.1f} %"


def estimate_cells(estimate: Estimate, signed: bool = False) -> tuple[str, str]:
    """Value and interval; a difference with its sign, in points.

    >>> estimate_cells(Estimate(value=0.5, low=0.25, high=0.75, n=8))
    ('50.0 %', '25.0 to 75.0')
    """
    if signed:
        return f"{100 * estimate.value:+.1f}", f"{100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}"
    return percent(estimate.value), f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _cells(name: str, summary: Summary, result: Result) -> list[str]:
    cells = [name, str(summary.accuracy.n), *estimate_cells(summary.accuracy)]
    if result.sampling.samples > 1:
        consensus = summary.consensus
        cells += [percent(summary.pass_at[max(summary.pass_at)]), percent(consensus.value) if consensus else ""]
    cells += [f"{summary.mean_tokens:.1f}"]
    cells += _if_any(result, f"{summary.mean_thinking:.1f}", percent(summary.error_share))
    return [*cells, percent(summary.truncated_share), percent(summary.well_formed_share)]


def _change_cells(name: str, change: Change) -> list[str]:
    before, after = estimate_cells(change.before), estimate_cells(change.after)
    return [name, str(change.before.n), *before, *after, *estimate_cells(change.difference, signed=True)]


def _adds(level: str, summary: Summary, result: Result) -> bool:
    """Whether a level is not its family's only one."""
    return summary.accuracy.n < result.by_family[level.rpartition(":")[0]].accuracy.n
