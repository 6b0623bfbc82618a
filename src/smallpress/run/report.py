"""A run as one page: what it gained, how it got there, what it wrote, and on what machine.

`report.html` needs no network and no script, and its content security policy forbids both, since the texts a model
wrote stand in it. Read are, each only where it is there:

    metrics.jsonl    one line a step; a curve for every key, the known ones (`CHARTS`) first
    result.json      before and after with intervals, as `smallpress.evaluate.compare` returns it
    samples/*.jsonl  {"step", "prompt", "completion", "reward", "rewards": {name: value}, "reference"} a line
    run.json         settings, versions, machine, commit
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from math import isfinite
from pathlib import Path

from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError
from smallpress.run.figure import (
    DARK,
    LIGHT,
    STYLE,
    Axes,
    Series,
    line_chart,
    number,
    stack_chart,
    standalone,
    text,
)
from smallpress.run.report_source import Row, metrics_of, read_lines, read_object
from smallpress.run.report_tables import gains_table, is_gain, settings_lists, share, thoughts

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Chart:
    """A card with curves: `keys` are names or patterns of metrics, the part a `*` stood for names the curve."""

    title: str
    says: str
    keys: tuple[str, ...]
    percent: bool = False
    from_zero: bool = True
    stacked: bool = False
    smooth: bool = True


CHARTS = (
    Chart("Reward", "mean over the rollouts of a step", ("reward",)),
    Chart("Reward by part", "mean of each part before they are weighed", ("rewards/*/mean",)),
    Chart(
        "Groups that teach nothing",
        "share of groups whose rollouts all earned the same",
        ("frac_reward_zero_std",),
        True,
    ),
    Chart(
        "Pairs",
        "share in which the chosen answer scores higher than the rejected one",
        ("eval/reward_accuracy", "reward_accuracy", "eval/longer_wins"),
        True,
    ),
    Chart("Length", "mean tokens of a completion", ("completions/mean_length",)),
    Chart("Cut off", "share of completions that reached the token limit", ("completions/clipped_ratio",), True),
    Chart("Entropy", "of the next token, in nats; a fall to zero means the policy stopped exploring", ("entropy",)),
    Chart("KL", "from the reference model, in nats a token", ("kl",)),
    Chart("Clipped", "share of tokens whose ratio left the trust region", ("clip_ratio/*_mean",), True),
    Chart(
        "Sampler gap",
        "between the log-probabilities of sampler and policy",
        ("sampler_gap", "sampler_gap/*", "sampling/sampling_logp_difference/*"),
    ),
    Chart("Gradient norm", "before clipping", ("grad_norm",)),
    Chart("Loss", "of the policy; its size says little, its jumps do", ("loss",), from_zero=False),
    Chart("Bits a byte", "of held-out text, whatever the tokenizer", ("eval/bits_per_byte",), from_zero=False),
    Chart("Busiest expert", "its load over the mean one, of the router where that is largest", ("load/max_over_mean",)),
    Chart("Learning rate", "", ("lr", "learning_rate"), smooth=False),
    Chart("Seconds a step", "by phase", ("seconds/*",), stacked=True),
)


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a run folder and return its path. Raises UserError where a file cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "give the folder of a run")
    name = folder.resolve().name
    path = folder / "report.html"
    write_file(path, page(name, f"<h1>{text(name)}</h1>{drawn(folder)}").encode("utf-8"))
    return path


def drawn(folder: Path) -> str:
    """All of a run that its files tell so far, as HTML without a script. Raises UserError as `write_report`."""
    rows = metrics_of(folder)
    result = read_object(folder / "result.json")
    samples = [row for path in sorted((folder / "samples").glob("*.jsonl")) for row in read_lines(path)]
    body = (
        _headline(rows, result),
        _tiles(rows),
        gains_table(result),
        _accuracy_charts(rows),
        _training_charts(rows),
        thoughts(samples),
        settings_lists(read_object(folder / "run.json")),
        "<footer>Written by smallpress. Points are steps as measured, lines a centred Gaussian mean of them, "
        "bands 95 % intervals.</footer>",
    )
    return "".join(body)


def accuracy_figure(folder: str | Path, x: str = "step", title: str = "", note: str = "", width: int = 860) -> str:
    """Held-out accuracy of each family with its interval as one SVG file's text, over `x` = "step" or "minutes"."""
    rows = metrics_of(Path(folder))
    axes = Axes(x, percent=True, top=1.0, width=width, height=420, title=title, note=note)
    svg = line_chart(_family_series(rows, x) or _overall_series(rows, x), axes)
    if not svg:
        raise UserError(f"{folder}: metrics.jsonl holds no held-out accuracy", "run with evaluation switched on")
    return standalone(svg)


def report_style() -> str:
    """What `drawn` is shown with, but for the colours."""
    return STYLE + files("smallpress.run").joinpath("report.css").read_text("utf-8")


def page(title: str, body: str) -> str:
    colours = f":root{{{LIGHT}--back:#f6f7f9}}@media(prefers-color-scheme:dark){{:root{{{DARK}--back:#0d1014}}}}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{colours}{report_style()}</style></head><body><main>{body}</main></body></html>\n"
    )


_EVALUATED = re.compile("eval/(.*/)?(accuracy|low|high)")


def _headline(rows: Sequence[Row], result: Row) -> str:
    measured = _finite(rows, "eval/accuracy")
    if is_gain(result):
        before, after = share(result["before"]), share(result["after"])
    elif len(measured) > 1:
        before, after = (number(round(accuracy, 3), percent=True) for accuracy in (measured[0], measured[-1]))
    else:
        return f'<p class="lead">{len(rows)} steps so far.</p>'
    return f'<p class="lead">Held-out accuracy: {before} before, <b>{after}</b> after.</p>'


def _tiles(rows: Sequence[Row]) -> str:
    """The run in four numbers, those that were logged."""
    if not rows:
        return ""
    minutes, rewards = _minutes(rows), _finite(rows, "reward")[-10:]
    tiles = [("steps", number(rows[-1]["step"]))]
    if minutes:
        spent = minutes[-1]
        tiles.append(("time", f"{spent / 60:.1f} h" if spent >= 120 else f"{spent:.0f} min"))
    if rewards:
        tiles.append(("mean reward lately", number(float(f"{sum(rewards) / len(rewards):.3g}"))))
    if lengths := _finite(rows, "completions/mean_length"):
        tiles.append(("tokens a completion", f"{lengths[-1]:.0f}"))
    if counts := _finite(rows, "num_tokens"):
        tiles.append(("tokens sampled", number(float(f"{counts[-1]:.3g}"))))
    cards = "".join(
        f'<div class="card tile"><b>{text(value)}</b><span>{text(name)}</span></div>' for name, value in tiles
    )
    return f'<div class="tiles">{cards}</div>'


def _accuracy_charts(rows: Sequence[Row]) -> str:
    axes = Axes(percent=True, top=1.0, width=1040, height=300)
    cards = []
    if svg := line_chart(_overall_series(rows, "step"), axes):
        cards.append(_card("Held-out accuracy", "all problems", svg, wide=True))
    if svg := line_chart(_family_series(rows, "step"), replace(axes, height=420)):
        cards.append(_card("Held-out accuracy by family", "with 95 % intervals over problems", svg, wide=True))
    return f'<h2>How well it answers</h2><div class="charts">{"".join(cards)}</div>' if cards else ""


def _training_charts(rows: Sequence[Row]) -> str:
    """The known charts, then, folded away, one for every other key that was logged."""
    used = {"step", *(key for row in rows for key in row if _EVALUATED.fullmatch(key))}
    cards = []
    for chart in CHARTS:
        series = _series_of(chart, rows)
        used |= {key for row in rows for key in row if _matches(chart, key)}
        axes = Axes(percent=chart.percent, from_zero=chart.from_zero)
        if svg := (stack_chart if chart.stacked else line_chart)(series, axes):
            cards.append(_card(chart.title, chart.says, svg))
    rest = sorted({key for row in rows for key in row} - used)
    others = [line_chart([Series("", _points(rows, key))], Axes(from_zero=False)) for key in rest]
    folded = "".join(_card(key, "", svg) for key, svg in zip(rest, others, strict=True) if svg)
    if folded:
        folded = (
            f'<details><summary>everything else that was logged</summary><div class="charts">{folded}</div></details>'
        )
    return f'<h2>How it learned</h2><div class="charts">{"".join(cards)}</div>{folded}' if cards or folded else ""


def _card(title: str, says: str, svg: str, wide: bool = False) -> str:
    return (
        f'<div class="card chart{" wide" if wide else ""}"><h3>{text(title)}</h3><p>{text(says)}&nbsp;</p>{svg}</div>'
    )


def _matches(chart: Chart, key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in chart.keys)


def _series_of(chart: Chart, rows: Sequence[Row]) -> list[Series]:
    """The curves of a chart; the parts of a stack largest first."""
    found = []
    for pattern in chart.keys:
        head, _, tail = pattern.partition("*")
        for key in sorted({key for row in rows for key in row if fnmatchcase(key, pattern)}):
            name = key.removeprefix(head).removesuffix(tail) if "*" in pattern else ""
            found.append(Series(name, _points(rows, key), smooth=chart.smooth))
    return sorted(found, key=lambda one: -sum(y for _, y in one.finite())) if chart.stacked else found


def _finite(rows: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in rows if key in row and isfinite(row[key])]


def _points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in rows if key in row]


def _overall_series(rows: Sequence[Row], x: str) -> list[Series]:
    return [_with_interval(rows, "eval/", "", x)] if any("eval/accuracy" in row for row in rows) else []


def _family_series(rows: Sequence[Row], x: str) -> list[Series]:
    """Families from eval/<family>/accuracy, the best at the end first."""
    keys = {key for row in rows for key in row if fnmatchcase(key, "eval/*/accuracy")}
    series = [
        _with_interval(rows, key.removesuffix("accuracy"), key.split("/")[1].replace("_", " "), x) for key in keys
    ]
    return sorted(series, key=lambda one: (-one.points[-1][1], one.name))


def _with_interval(rows: Sequence[Row], prefix: str, name: str, x: str) -> Series:
    """One accuracy over steps or minutes; its band only where every evaluation logged both bounds."""
    places = [row["step"] for row in rows] if x == "step" else _minutes(rows)
    if not places:
        raise UserError("the run logged no seconds/*, so minutes are unknown", 'draw over "step"')
    kept = [(place, row) for place, row in zip(places, rows, strict=True) if f"{prefix}accuracy" in row]
    points = [(place, row[f"{prefix}accuracy"]) for place, row in kept]
    low, high = ([row[f"{prefix}{end}"] for _, row in kept if f"{prefix}{end}" in row] for end in ("low", "high"))
    bounded = len(low) == len(high) == len(points)
    return Series(name, points, low if bounded else (), high if bounded else (), smooth=False)


def _minutes(rows: Sequence[Row]) -> list[float]:
    """Working time up to each row's end, from seconds/*, pauses between runs left out; [] where none was logged."""
    spent, out = 0.0, []
    for row in rows:
        spent += sum(value for key, value in row.items() if key.startswith("seconds/") and isfinite(value)) / 60
        out.append(spent)
    return out if spent > 0 else []
