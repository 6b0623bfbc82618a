"""A ladder's report as text and as HTML without a script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smallpress.run.figure import text
from smallpress.run.report_tables import marked

Grid = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Said:
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """`tables`: title -> rows, the first of which names the columns; `pages`: paths of the stages' own reports."""

    name: str
    tables: Mapping[str, Grid]
    notes: Sequence[str]
    said: Sequence[Said]
    pages: Sequence[str]


SAME_QUESTION = "One question through the stages"


def as_markdown(report: Report) -> str:
    parts = [f"# {report.name}"]
    for title, (head, *body) in report.tables.items():
        rows = [head, ["---"] * len(head), *body]
        parts += [f"## {title}", "\n".join(f"| {' | '.join(row)} |" for row in rows)]
    parts += report.notes
    if report.said:
        parts += [f"## {SAME_QUESTION}", *(f"{one.who}\n\n{_indented(one.what)}" for one in report.said)]
    return "\n\n".join(parts) + "\n"


def _indented(words: str) -> str:
    return "\n".join(f"    {line}" for line in words.splitlines() or ["(nothing)"])


def as_html(report: Report) -> str:
    parts = [f"<h1>{text(report.name)}</h1>"]
    for title, (head, *body) in report.tables.items():
        rows = [_row("th", head), *(_row("td", cells) for cells in body)]
        parts.append(f'<h2>{text(title)}</h2><div class="card scroll"><table>{"".join(rows)}</table></div>')
    parts += [f'<p class="soft">{text(note)}</p>' for note in report.notes]
    if report.pages:
        links = "".join(f'<li><a href="{text(path)}">{text(path)}</a></li>' for path in report.pages)
        parts.append(f"<h2>Each stage</h2><ul>{links}</ul>")
    if report.said:
        cards = "".join(
            f'<div class="card thought"><h3>{text(one.who)}</h3><pre>{marked(one.what)}</pre></div>'
            for one in report.said
        )
        parts.append(f'<h2>{SAME_QUESTION}</h2><div class="thoughts">{cards}</div>')
    return "".join(parts)


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{text(cell)}</{tag}>" for cell in cells) + "</tr>"
