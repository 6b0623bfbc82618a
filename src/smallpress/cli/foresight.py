"""What every long command says of itself: its plan before it starts, and the plan beside what was measured at the end.

plan = foresee_grpo(files, settings, ...)     # or any planner.plan.Plan
announce(plan)                                # prints it; UserError with the remedies where it cannot fit
...
print(beside(plan, {"seconds a step": 12.3, "peak memory": 3.4e9}))
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from smallpress.cli.table import table
from smallpress.run.progress import clock_time

if TYPE_CHECKING:
    from smallpress.model.config import ModelConfig
    from smallpress.planner.plan import Plan
    from smallpress.rl.settings import GRPOSettings
    from smallpress.weights.load import ModelFiles

PEAK = "peak memory"
ROUGH = "rough: this machine's speed is not measured yet; smallpress plan run MODEL does it, once"


def announce(plan: "Plan", stream: TextIO | None = None) -> None:
    """Two lines on stderr: memory, time, energy and money. Raises UserError, with what would fit, where it does not."""
    plan.require_room()
    print(summary(plan), file=stream or sys.stderr)


def summary(plan: "Plan") -> str:
    parts = ", ".join(f"{name} {value / 1e9:.2f}" for name, value in largest_parts(plan.memory))
    costs = [f"plan: {plan.peak_memory / 1e9:.2f} of {plan.room / 1e9:.2f} GB ({parts})"]
    if plan.seconds:
        shares = ", ".join(f"{phase.name} {clock_time(phase.seconds)}" for phase in plan.phases)
        money = f", {plan.money:,.2f} dollars" if plan.machine.price else ""
        waits = f"it waits for {plan.bottleneck}"
        costs.append(f"      {clock_time(plan.seconds)} ({shares}), {joules(plan.energy)}{money}; {waits}")
    return "\n".join([*costs, *(f"      {note}" for note in plan.notes)])


def largest_parts(memory: Mapping[str, float], n: int = 4) -> list[tuple[str, float]]:
    """The largest parts, the rest as one."""
    ranked = sorted(memory.items(), key=lambda item: -item[1])
    rest = sum(value for _, value in ranked[n:])
    return ranked[:n] + ([("the rest", rest)] if rest else [])


def joules(energy: float) -> str:
    """
    >>> joules(7200.0), joules(7.2e9)
    ('0.002 kWh', '2,000 kWh')
    """
    hours = energy / 3.6e6
    return f"{hours:.3f} kWh" if hours < 1 else f"{hours:,.0f} kWh"


def beside(plan: "Plan", measured: Mapping[str, float]) -> str:
    """A table of what was foreseen and what came; names as in `plan.figures`, and "peak memory" in bytes."""
    foreseen = dict(plan.figures) | {PEAK: plan.peak_memory}
    rows = [["", "plan", "measured", "ratio"]]
    for name, value in measured.items():
        if name in foreseen and value > 0:
            scale, unit = (1e9, " GB") if name == PEAK else (1.0, "")
            ratio = f"{foreseen[name] / value:.2f}"
            rows.append([name, f"{foreseen[name] / scale:,.2f}{unit}", f"{value / scale:,.2f}{unit}", ratio])
    return table(rows)


def foresee_grpo(files: "ModelFiles", settings: "GRPOSettings", n_prompt: float, n_shared: float) -> "Plan":
    """The plan of a GRPO run here, its settings resolved: no "auto" in them. Time and memory are of this machine as
    the store's probe knows it; where there is none yet, time is roughly that of its kind: nothing waits for a probe."""
    from smallpress.planner.grpo import plan_grpo
    from smallpress.planner.model import planned_files
    from smallpress.planner.probe import known_place
    from smallpress.planner.recipe import rehearsed

    place = known_place()
    plan = plan_grpo(planned_files(settings.model, files), place, rehearsed(settings, n_prompt, n_shared))
    return _with_note(plan, place.is_rough)


def foresee_learning(activity: str, name: str, config: "ModelConfig", asked: Mapping[str, Any]) -> "Plan":
    """The plan of pretrain, sft or distill here. `asked`: n_tokens of the whole run, and as far as they are known
    batch_tokens of a step, seq_len, micro_tokens at once, dtype, optimizer; see planner.learning.Learned."""
    from smallpress.planner.learning import plan_learning
    from smallpress.planner.model import Planned
    from smallpress.planner.probe import known_place
    from smallpress.planner.recipe import learned

    place = known_place()
    return _with_note(plan_learning(Planned(name, config, {}), place, learned(activity, {}, asked)), place.is_rough)


def _with_note(plan: "Plan", is_rough: bool) -> "Plan":
    return replace(plan, notes=(*plan.notes, ROUGH)) if is_rough else plan
