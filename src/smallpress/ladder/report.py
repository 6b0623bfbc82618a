"""One report of a ladder: a table of its stages, of the families they were asked about, and one question through all.

report.md has it as text, report.html the same with the curve over the stages and a link to each stage's own report.
metrics.jsonl has a row a stage, so that whatever reads runs (`smallpress watch`) reads a ladder too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smallpress.evaluate.compare import compare
from smallpress.evaluate.result import Result, save_json
from smallpress.evaluate.tables import estimate_cells, percent
from smallpress.ladder.drawing import Report, Said, as_html, as_markdown
from smallpress.ladder.measure import Measured, Way
from smallpress.ladder.stages import BASE, ZERO, Stage
from smallpress.ladder.state import Standing
from smallpress.run.atomic import write_file
from smallpress.run.metrics import MetricsLog
from smallpress.run.report import drawn, page

HOUR = 3600.0
UNTRAINED = "untrained"


@dataclass(frozen=True, slots=True)
class Price:
    """What an hour of the machine takes, as the planner knows it."""

    machine: str
    watts: float
    dollars: float


@dataclass(frozen=True, slots=True)
class Row:
    """A model as it was asked in one way. `result` is the reading that counts; `seconds` of its whole stage."""

    name: str
    way: Way
    result: Result
    seconds: float
    stage: Stage | None = None
    counts: bool = True  # among the ways its model was asked, the one it is compared by


def rows_of(standing: Standing) -> list[Row]:
    """All that is measured so far: the base and R1-Zero at their best of forms and readings, the others strictly."""
    rows = []
    if (base := standing.measured(BASE)) is not None:
        rows.append(Row(UNTRAINED, base.best, base.best.better, base.seconds))
    for stage in standing.stages:
        found = standing.measured(stage.key)
        if found is None:
            break
        seconds = standing.seconds(stage) + found.seconds
        if stage.key == ZERO:
            rows += _zero_rows(stage, found, seconds)
        else:
            way = found.ways[0]
            rows.append(Row(stage.name, way, way.strict, seconds, stage))
    return rows


def _zero_rows(stage: Stage, found: Measured, seconds: float) -> list[Row]:
    """A row for each form it was asked in, its best first."""
    ways = sorted(found.ways, key=lambda way: way is not found.best)
    return [Row(stage.name, way, way.better, seconds, stage, counts=way is found.best) for way in ways]


def write_ladder_report(standing: Standing, price: Price) -> Path:
    """Write report.md and report.html from what is measured; the latter's path."""
    rows, out = rows_of(standing), standing.out
    counted = [row for row in rows if row.counts]
    _write_metrics(counted, out)
    if standing.is_done(standing.stages[-1]):
        save_json(out / "result.json", compare(counted[0].result, counted[-1].result))
    pages = [f"{row.name}/report.html" for row in counted if row.stage is not None]
    report = Report(
        name=out.resolve().name,
        tables={"Stages": stage_grid(rows, price), "Accuracy by family": family_grid(counted)},
        notes=_notes(rows, price),
        said=one_question(counted),
        pages=[path for path in pages if (out / path).exists()],
    )
    write_file(out / "report.md", as_markdown(report).encode())
    write_file(out / "report.html", page(report.name, as_html(report) + drawn(out)).encode())
    return out / "report.html"


HEAD = [
    "stage", "asked in", "accuracy", "95 %", "lenient", "over untrained", "over R1-Zero", "well-formed", "one language",
    "readable", "tokens", "minutes", "kWh", "dollars",
]  # fmt: skip


def stage_grid(rows: Sequence[Row], price: Price) -> list[list[str]]:
    """A line a row, gains on the same problems in points with their paired 95 % intervals."""
    base = next((row for row in rows if row.name == UNTRAINED), None)
    zero = next((row for row in rows if row.stage is not None and row.stage.key == ZERO), None)
    grid = [list(HEAD)]
    for row in rows:
        overall, hours = row.result.overall, row.seconds / HOUR if row.counts else 0.0
        cost = [f"{60 * hours:.1f}", f"{price.watts * hours / 1000:.4f}", f"{price.dollars * hours:.2f}"]
        grid.append(
            [
                row.name,
                f"{row.result.form}, {row.result.reading}",
                *estimate_cells(overall.accuracy),
                percent(row.way.lenient.overall.accuracy.value),
                _gain(base, row),
                _gain(zero, row) if row.stage is not None else "",
                percent(overall.well_formed_share),
                percent(row.way.language),
                percent(row.way.readable),
                f"{overall.mean_tokens:.1f}",
                *(cost if row.counts else ["", "", ""]),
            ]
        )
    return grid


def _gain(before: Row | None, after: Row) -> str:
    if before is None or before is after or before.name == after.name:
        return ""
    value, interval = estimate_cells(compare(before.result, after.result).difference, signed=True)
    return f"{value} ({interval})"


def family_grid(rows: Sequence[Row]) -> list[list[str]]:
    grid = [["family", "n", *(row.name for row in rows)]]
    for family in rows[0].result.by_family if rows else ():
        shares = [row.result.by_family[family].accuracy for row in rows]
        grid.append([family, str(shares[0].n), *(percent(share.value) for share in shares)])
    return grid


def _notes(rows: Sequence[Row], price: Price) -> list[str]:
    notes = ["Greedy answers to the same held-out problems; gains are in points, with 95 % intervals of the pairs."]
    if any(row.name == UNTRAINED for row in rows):
        notes.append(
            "The untrained model was asked in every form and read strictly and leniently, R1-Zero in its own form and "
            "as a chat; what is compared with is the best of each, the others are asked as a chat and read strictly."
        )
    given = next((row.stage.given for row in rows if row.stage is not None and row.stage.given), None)
    if given is not None:
        notes.append(f"R1-Zero is {given}, made elsewhere: its line has the cost of measuring it alone.")
    notes.append(
        "Readable: finished, no loops, one script, no broken tags, no paragraph over 150 words, no code block. "
        f"Energy and money at {price.watts:.0f} W and {price.dollars:g} dollars an hour: {price.machine}."
    )
    return notes


def one_question(rows: Sequence[Row]) -> list[Said]:
    """Of the held-out problems that the last row has right, the one that most others have wrong, and what each said."""
    if len(rows) < 2:
        return []
    answered = [{(problem.family, problem.key): problem for problem in row.result.problems} for row in rows]

    def worth(key: tuple[str, str]) -> tuple[bool, int, int]:
        right = [problems[key].answers[0].correct for problems in answered]
        return right[-1], -sum(right), answered[-1][key].steps or 0

    key = max(answered[-1], key=worth)
    asked = answered[-1][key]
    said = [Said(f"The question, whose answer is {asked.reference}", asked.prompt)]
    for row, problems in zip(rows, answered, strict=True):
        answer = problems[key].answers[0]
        said.append(Said(row.name if answer.correct else f"{row.name}, wrong", answer.text.strip()))
    return said


def _write_metrics(rows: Sequence[Row], out: Path) -> None:
    minutes = 0.0
    with MetricsLog(out / "metrics.jsonl") as log:
        log.truncate_after(-1)
        for step, row in enumerate(rows):
            minutes += row.seconds / 60
            more = {"eval/language": row.way.language, "eval/readable": row.way.readable}
            log.write(step, row.result.metrics() | more | {"seconds/stage": row.seconds, "minutes": minutes})
