"""Curves as SVG text: a line, band and stack chart that needs no script, no font and no network.

Colours are CSS classes (`s0` .. `s7`, `ink`, `grid`), so one drawing serves a light and a dark page. Numbers that are
not finite are left out instead of spoiling the scale.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, exp, floor, inf, isfinite, log10
from typing import TypeVar

Point = tuple[float, float]
T = TypeVar("T")

N_COLOURS = 8
MIN_SMOOTHED = 8
MAX_POINTS = 500
"""More points than this are thinned evenly: the eye cannot tell them apart and the page stays small."""
MAX_DOTS = 40

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LIGHT = ("#2563eb", "#d9620b", "#15803d", "#7c3aed", "#c0265f", "#0e7490", "#8a6400", "#57606a")
_DARK = ("#74a7ff", "#ff9f52", "#4cc38a", "#b794ff", "#ff7ab0", "#4fd1e0", "#e3b341", "#9da7b3")


def _palette(colours: Sequence[str], ink: str, soft: str, rule: str, paper: str) -> str:
    series = "".join(f"--s{i}:{colour};" for i, colour in enumerate(colours))
    return f"{series}--ink:{ink};--soft:{soft};--rule:{rule};--paper:{paper};"


LIGHT = _palette(_LIGHT, ink="#1b1f24", soft="#5c6570", rule="#e3e6ea", paper="#ffffff")
DARK = _palette(_DARK, ink="#e8ebef", soft="#9aa4b0", rule="#2c333c", paper="#14181d")
STYLE = (
    "svg text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif;fill:var(--soft)}"
    "svg .ink{fill:var(--ink)}svg .end{font-weight:600;fill:var(--c)}svg .grid{stroke:var(--rule)}"
    "svg .base{stroke:var(--soft);stroke-opacity:.55}svg .line{fill:none;stroke:var(--c);stroke-width:2;"
    "stroke-linejoin:round;stroke-linecap:round}svg .raw{fill:none;stroke:var(--c);stroke-width:3.4;"
    "stroke-linecap:round;stroke-opacity:.28}svg .dot{fill:var(--c);stroke:var(--paper);stroke-width:1.2}"
    "svg .band{fill:var(--c);fill-opacity:.11}svg .area{fill:var(--c);fill-opacity:.72}"
    + "".join(f".s{i}{{--c:var(--s{i})}}" for i in range(N_COLOURS))
)


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. `low` and `high`, where given, are as long as `points` and bound its interval."""

    name: str
    points: Sequence[Point]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    smooth: bool = True

    def finite(self) -> list[Point]:
        return [(x, y) for x, y in self.points if isfinite(x) and isfinite(y)]

    @property
    def smooths(self) -> bool:
        return self.smooth and len(self.finite()) >= MIN_SMOOTHED

    def curve(self) -> list[Point]:
        """What is drawn as a line: few enough points, smoothed where that is asked for."""
        return smoothed(self.finite()) if self.smooths else _thinned(self.finite())


@dataclass(frozen=True, slots=True)
class Axes:
    """What stands around the curves. `top` fixes the y axis to 0..top; `percent` writes 0.5 as 50 %."""

    x_label: str = "step"
    percent: bool = False
    top: float | None = None
    from_zero: bool = True
    width: int = 520
    height: int = 230
    title: str = ""
    note: str = ""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) from at or below `low` to at or above `high`.

    >>> ticks(0.0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low if high > low else abs(high) or 1.0
    rough = span / about
    power = 10.0 ** floor(log10(rough))
    stride = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    first, last = floor(low / stride + 1e-9), ceil(high / stride - 1e-9)
    return [round(i * stride, 12) for i in range(first, max(last, first + 1) + 1)]


def number(value: float, percent: bool = False) -> str:
    """A number as short as it can be read.

    >>> number(0.0), number(0.62, percent=True), number(1e-5), number(12800), number(0.125)
    ('0', '62 %', '1e-5', '12.8k', '0.125')
    """
    if percent:
        return f"{100 * value:.3g} %"
    size = abs(value)
    if size >= 10_000_000 or 0 < size < 0.001:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 10_000:
        return f"{value / 1000:.5g}k"
    return f"{value:.4g}"


def text(words: object) -> str:
    """Escaped for HTML, SVG and their attributes; characters that XML forbids become U+FFFD.

    >>> text('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(words)))


def smoothed(points: Sequence[Point]) -> list[Point]:
    """A Gaussian mean centred on each point, so the curve does not lag as a running average does; thinned.

    Its width is a 25th of the points, between 1 and 15 of them; fewer than 8 points are left as they are.
    """
    n = len(points)
    if n < MIN_SMOOTHED:
        return list(points)
    width = min(15.0, max(1.0, n / 25))
    reach = ceil(2.5 * width)
    kernel = [exp(-0.5 * (offset / width) ** 2) for offset in range(-reach, reach + 1)]
    out = []
    for i in _thinned(range(n)):
        first, last = max(0, i - reach), min(n, i + reach + 1)
        weights = kernel[first - i + reach : last - i + reach]
        total = sum(weight * y for weight, (_, y) in zip(weights, points[first:last], strict=True))
        out.append((points[i][0], total / sum(weights)))
    return out


class _Frame:
    """Maps data to pixels and draws the axes."""

    def __init__(self, axes: Axes, xs: Iterable[float], ys: Iterable[float], right: float) -> None:
        xs, ys = [x for x in xs if isfinite(x)] or [0.0, 1.0], [y for y in ys if isfinite(y)] or [0.0, 1.0]
        low, high = min(ys), max(ys)
        if axes.top is not None:
            low, high = 0.0, axes.top
        elif axes.from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        self.axes = axes
        self.y_ticks = ticks(low, high, about=4 if axes.height < 300 else 5)
        self.y_low, self.y_high = self.y_ticks[0], self.y_ticks[-1]
        self.x_low, self.x_high = min(xs), max(xs)
        if 0 < self.x_low <= self.x_high / 10:
            self.x_low = 0.0
        self.y_labels = [number(tick, axes.percent) for tick in self.y_ticks]
        self.left = 18 + 7.0 * max(map(len, self.y_labels))
        self.right = axes.width - max(right, 16.0)
        self.top = 10 + (30 if axes.title else 0) + (22 if axes.note else 0)
        self.bottom = axes.height - 40

    def x(self, value: float) -> float:
        if self.x_high == self.x_low:
            return (self.left + self.right) / 2
        return self.left + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - self.left)

    def y(self, value: float) -> float:
        value = min(max(value, self.y_low), self.y_high)
        return self.bottom - (value - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)

    def path(self, points: Iterable[Point]) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)

    def draw(self) -> str:
        parts = []
        for tick, label in zip(self.y_ticks, self.y_labels, strict=True):
            y = self.y(tick)
            kind = "base" if tick == max(self.y_low, 0.0) else "grid"
            parts.append(f'<path class="{kind}" d="M{self.left:.1f} {y:.1f}H{self.right:.1f}"/>')
            parts.append(f'<text x="{self.left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        inside = [tick for tick in ticks(self.x_low, self.x_high, 6) if self.x_low <= tick <= self.x_high]
        for tick in inside or [self.x_low]:
            x = self.x(tick)
            parts.append(f'<path class="base" d="M{x:.1f} {self.bottom:.1f}v5"/>')
            parts.append(f'<text x="{x:.1f}" y="{self.bottom + 18:.1f}" text-anchor="middle">{number(tick)}</text>')
        middle = (self.left + self.right) / 2
        parts.append(
            f'<text x="{middle:.1f}" y="{self.axes.height - 5}" text-anchor="middle">{text(self.axes.x_label)}</text>'
        )
        if self.axes.title:
            parts.append(
                f'<text class="ink" x="14" y="24" style="font-size:16px;font-weight:600">{text(self.axes.title)}</text>'
            )
        if self.axes.note:
            parts.append(f'<text x="14" y="44">{text(self.axes.note)}</text>')
        return "".join(parts)


def line_chart(series: Sequence[Series], axes: Axes) -> str:
    """Lines with their raw points behind, interval bands, and each curve's name at its end instead of a legend."""
    kept = [one for one in series if one.finite()]
    if not kept:
        return ""
    ys = [y for one in kept for _, y in one.finite()]
    ys += [bound for one in kept for bound in (*one.low, *one.high)]
    curves = [one.curve() for one in kept]
    ends = [
        f"{one.name} {number(float(f'{curve[-1][1]:.3g}'), axes.percent)}".strip()
        for one, curve in zip(kept, curves, strict=True)
    ]
    frame = _Frame(axes, [x for one in kept for x, _ in one.finite()], ys, right=20 + 7.6 * max(map(len, ends)))
    bands, raws, lines = [], [], []
    for i, (one, curve) in enumerate(zip(kept, curves, strict=True)):
        colour, points = f"s{i % N_COLOURS}", one.finite()
        if one.low and one.high:
            bands.append(_band(frame, one, colour))
        if one.smooths:
            dots = "".join(f"M{frame.x(x):.1f} {frame.y(y):.1f}h0" for x, y in _thinned(points))
            raws.append(f'<path class="raw {colour}" d="{dots}"/>')
        elif len(points) <= MAX_DOTS:
            lines += [_dot(frame, one, axes, colour, point) for point in points]
        dashes = ' stroke-dasharray="6 5"' if i >= N_COLOURS else ""
        lines.insert(0, f'<path class="line {colour}"{dashes} d="{frame.path(curve)}"/>')
    heights = _spread([frame.y(curve[-1][1]) for curve in curves], frame)
    labels = [
        f'<text class="end s{i % N_COLOURS}" x="{frame.right + 8:.1f}" y="{y + 4:.1f}">{text(label)}</text>'
        for i, (label, y) in enumerate(zip(ends, heights, strict=True))
    ]
    return _svg(axes, kept, "".join([frame.draw(), *bands, *raws, *lines, *labels]))


def stack_chart(series: Sequence[Series], axes: Axes) -> str:
    """Areas on top of each other, first lowest: parts that add up to a whole, such as the seconds of a step."""
    kept = [one for one in series if one.finite()]
    if not kept:
        return ""
    xs = sorted({x for one in kept for x, _ in one.curve()})
    floor_of = dict.fromkeys(xs, 0.0)
    layers = []
    for one in kept:
        own = dict(one.curve())
        roof = {x: floor_of[x] + max(0.0, own.get(x, 0.0)) for x in xs}
        layers.append((dict(floor_of), roof))
        floor_of = roof
    frame = _Frame(axes, xs, list(floor_of.values()), right=20 + 7.6 * max(len(one.name) for one in kept))
    parts, heights = [], []
    for i, (bottom, roof) in enumerate(layers):
        outline = [(x, roof[x]) for x in xs] + [(x, bottom[x]) for x in reversed(xs)]
        parts.append(f'<path class="area s{i % N_COLOURS}" d="{frame.path(outline)}Z"/>')
        heights.append(frame.y((roof[xs[-1]] + bottom[xs[-1]]) / 2))
    for i, y in enumerate(_spread(heights, frame)):
        name = text(kept[i].name)
        parts.append(f'<text class="end s{i % N_COLOURS}" x="{frame.right + 8:.1f}" y="{y + 4:.1f}">{name}</text>')
    return _svg(axes, kept, frame.draw() + "".join(parts))


def range_row(ranges: Sequence[tuple[float, float, float]], width: int = 260, height: int = 44) -> str:
    """Shares in 0..1 as (value, low, high), one under the other on one line from 0 to 100 %: before, then after."""

    def x(share: float) -> float:
        return 6 + min(max(share, 0.0), 1.0) * (width - 12)

    parts = [f'<path class="grid" d="M{x(share):.1f} 0V{height}"/>' for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for i, (value, low, high) in enumerate(ranges):
        y = height / 2 + 11 * (i - (len(ranges) - 1) / 2)
        colour = "s7" if i == 0 and len(ranges) > 1 else "s0"
        parts.append(f'<path class="line {colour}" stroke-opacity=".6" d="M{x(low):.1f} {y:.1f}H{x(high):.1f}"/>')
        parts.append(f'<circle class="dot {colour}" cx="{x(value):.1f}" cy="{y:.1f}" r="4.5"/>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'


def range_scale(width: int = 260) -> str:
    """The numbers over the column of `range_row`."""
    marks = "".join(
        f'<text x="{6 + share * (width - 12):.1f}" y="12" text-anchor="{anchor}">{number(share, percent=True)}</text>'
        for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    return f'<svg viewBox="0 0 {width} 16" width="{width}" height="16" role="img">{marks}</svg>'


def standalone(svg: str) -> str:
    """An SVG file by itself: with its style, both colour schemes and a background, for a README or a paper."""
    style = f":root{{{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}{STYLE}"
    head, body = svg.split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    paper = '<rect width="100%" height="100%" rx="8" style="fill:var(--paper)"/>'
    return f"{head}><style>{style}</style>{paper}{body}\n"


def _svg(axes: Axes, series: Sequence[Series], body: str) -> str:
    label = text(f"{axes.title or 'curves'}: {', '.join(one.name for one in series)} over {axes.x_label}")
    size = f'viewBox="0 0 {axes.width} {axes.height}" width="{axes.width}" height="{axes.height}"'
    return f'<svg {size} role="img" aria-label="{label}">{body}</svg>'


def _dot(frame: _Frame, series: Series, axes: Axes, colour: str, point: Point) -> str:
    title = text(f"{series.name} at {axes.x_label} {number(point[0])}: {number(point[1], axes.percent)}")
    where = f'cx="{frame.x(point[0]):.1f}" cy="{frame.y(point[1]):.1f}"'
    return f'<circle class="dot {colour}" {where} r="3.6"><title>{title}</title></circle>'


def _band(frame: _Frame, series: Series, colour: str) -> str:
    rows = [
        (x, low, high)
        for (x, _), low, high in zip(series.points, series.low, series.high, strict=True)
        if isfinite(x) and isfinite(low) and isfinite(high)
    ]
    if not rows:
        return ""
    outline = [(x, high) for x, _, high in rows] + [(x, low) for x, low, _ in reversed(rows)]
    return f'<path class="band {colour}" d="{frame.path(outline)}Z"/>'


def _thinned(points: Sequence[T]) -> list[T]:
    if len(points) <= MAX_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def _spread(heights: Sequence[float], frame: _Frame, gap: float = 15.0) -> list[float]:
    """Label heights moved apart until none overlaps, in their order, kept inside the frame where they fit."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    out = list(heights)
    above = -inf
    for i in order:
        out[i] = above = max(out[i], above + gap)
    below = max(frame.bottom, frame.top + gap * (len(order) - 1)) + gap
    for i in reversed(order):
        out[i] = below = min(out[i], below - gap)
    return out
