"""A plan as a picture: what fills the memory, and the pipeline's timeline."""

from smallpress.planner.plan import Bar, Plan
from smallpress.run.figure import standalone, text

WIDTH, LEFT, ROW = 900, 120, 24
COLOURS = {"F": "s0", "B": "s1", "I": "s1", "W": "s2", "F+B": "s3"}
NAMES = {
    "F": "forward",
    "B": "backward",
    "I": "gradient of inputs",
    "W": "gradient of weights",
    "F+B": "forward beside backward",
}
MOST_BATCHES = 48
"""Micro-batches drawn; more could not be told apart."""


def memory_drawing(plan: Plan) -> str:
    """A bar for each part, to the scale of what there is."""
    parts = [(name, value) for name, value in plan.memory.items() if value > 0]
    most = max(plan.room, plan.peak_memory)
    rows = [*parts, ("together", plan.peak_memory)]
    height = 60 + ROW * len(rows) + 30
    drawn = [_title(f"{plan.activity} {plan.model}: memory on {plan.machine.title}")]
    for i, (name, value) in enumerate(rows):
        y, width = 48 + i * ROW, value / most * (WIDTH - LEFT - 120)
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{text(name)}</text>')
        drawn.append(f'<rect class="area s{i % 8}" x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}"/>')
        drawn.append(f'<text class="ink" x="{LEFT + width + 6:.1f}" y="{y + 15}">{value / 1e9:.2f} GB</text>')
    room = LEFT + plan.room / most * (WIDTH - LEFT - 120)
    drawn.append(f'<path class="base" d="M{room:.1f} 44V{height - 26}"/>')
    drawn.append(f'<text x="{room:.1f}" y="{height - 10}" text-anchor="middle">{plan.room / 1e9:.2f} GB free</text>')
    return _whole(drawn, height, "memory by part")


def timeline_drawing(plan: Plan) -> str:
    """A row for each rank, a box for each piece of work, gaps where it waits."""
    bars = [bar for bar in plan.timeline if bar.batch < MOST_BATCHES]
    end, n_ranks = max(bar.end for bar in bars), 1 + max(bar.rank for bar in bars)
    height = 70 + ROW * n_ranks + 40
    drawn = [_title(f"{plan.activity} {plan.model}: a step on {n_ranks} stages, {end:.2f} seconds drawn")]
    drawn += [_legend(i, kind) for i, kind in enumerate(dict.fromkeys(bar.kind for bar in bars))]
    for rank in range(n_ranks):
        drawn.append(f'<text x="{LEFT - 8}" y="{86 + rank * ROW}" text-anchor="end">stage {rank}</text>')
    drawn += [_box(bar, end) for bar in bars]
    return _whole(drawn, height, "pipeline timeline")


def _box(bar: Bar, end: float) -> str:
    scale = (WIDTH - LEFT - 20) / end
    x, width, y = LEFT + bar.begin * scale, (bar.end - bar.begin) * scale, 70 + bar.rank * ROW
    kind = COLOURS.get(bar.kind, "s4")
    title = f"<title>{text(f'{bar.kind}{bar.batch}: {bar.begin:.3f} to {bar.end:.3f} s')}</title>"
    where = f'x="{x:.2f}" y="{y}" width="{max(0.3, width - 0.5):.2f}" height="{ROW - 5}"'
    return f'<rect class="area {kind}" {where}>{title}</rect>'


def _legend(i: int, kind: str) -> str:
    x = LEFT + 155 * i
    box = f'<rect class="area {COLOURS.get(kind, "s4")}" x="{x}" y="40" width="14" height="14"/>'
    return f'{box}<text x="{x + 20}" y="52">{text(NAMES.get(kind, kind))}</text>'


def _title(words: str) -> str:
    return f'<text class="ink" x="14" y="24" style="font-size:16px;font-weight:600">{text(words)}</text>'


def _whole(drawn: list[str], height: int, label: str) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return standalone(f'<svg {size} role="img" aria-label="{label}">{"".join(drawn)}</svg>')
