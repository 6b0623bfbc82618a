"""What every long command says of itself: its plan before it starts, and the plan beside what was measured at the end.

plan = foresee_grpo(files, settings, ...)     # or foresee_sft, foresee_distill, foresee_serving, foresee_learning
announce(plan)                                # prints it; UserError with the remedies where it cannot fit
...
print_beside(plan, {SECONDS: 12.3})           # peak memory is added
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from smallpress.cli.table import table
from smallpress.planner.memory import CACHE, in_all
from smallpress.run.progress import clock_time

if TYPE_CHECKING:
    from smallpress.engine.engine import Engine
    from smallpress.model.config import ModelConfig
    from smallpress.planner.learning import Learned
    from smallpress.planner.model import Planned
    from smallpress.planner.place import Place
    from smallpress.planner.plan import Plan
    from smallpress.planner.recipe import SampleSizes
    from smallpress.planner.serving import Serving
    from smallpress.rl.settings import GRPOSettings
    from smallpress.train.data import Data
    from smallpress.train.distill_settings import DistillSettings
    from smallpress.train.settings import TrainSettings
    from smallpress.weights.load import ModelFiles

PEAK, SECONDS = "peak memory", "seconds a step"
"""Figures by name."""
BUSY = "this machine was busy when it was measured; smallpress plan run MODEL --probe does it again"
REHEARSED = 16
"""Tokens of a rehearsed answer."""
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
    else:
        costs += [f"      {name} {value:,.4g}" for name, value in plan.figures.items()]
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


def print_beside(plan: "Plan", measured: Mapping[str, float]) -> None:
    """`beside`, and the most memory this process has held, on stderr."""
    from smallpress.run.machine import peak_resident

    print(f"\n{beside(plan, {**measured, PEAK: peak_resident()})}", file=sys.stderr)


def together(plans: "Sequence[Plan]") -> "Plan":
    """Of several models in one server: their memory in one program. Caches that would fill more than there is are no
    reason to refuse: few servers fill them; they are cut, and it is said."""
    first, memory = plans[0], dict[str, float]()
    for plan in plans:
        for name, value in plan.memory.items():
            memory[name] = value if name == "program" else memory.get(name, 0.0) + value
    figures = first.figures
    if len(plans) > 1:
        figures = {f"{plan.model}: {name}": value for plan in plans for name, value in plan.figures.items()}
    whole = replace(first, model=", ".join(plan.model for plan in plans), memory=memory, figures=figures)
    over = in_all(memory) - first.room
    if not 0 < over < memory[CACHE]:
        return whole
    note = f"full caches would come to {memory[CACHE] / 1e9:.2f} GB, more than there is: bound them with --context"
    return replace(whole, memory=memory | {CACHE: memory[CACHE] - over}, remedies=(), notes=(note, *whole.notes))


def print_engine_beside(plan: "Plan", engine: "Engine") -> None:
    """The speeds of a plan of answering beside what an engine has done."""
    stats = engine.stats()
    if stats.new_tokens:
        print_beside(plan, {"tokens a second, prompts included": stats.tokens_per_second})


def rehearse_serving(plan: "Plan", engine: "Engine", n_prompt: int) -> None:
    """One request for real: its prompt of `n_prompt` tokens, and a few tokens of its answer."""
    from time import perf_counter

    from smallpress.engine.request import Request, SamplingParams

    n_prompt = min(n_prompt, engine.capacity - REHEARSED - 1)
    ids = tuple(1 + i % (engine.runner.vocab_size - 1) for i in range(n_prompt))
    engine.submit(Request(ids, SamplingParams(max_tokens=REHEARSED + 1, temperature=0.0)))
    began, n_new = perf_counter(), 0
    while not n_new:
        n_new = len(engine.step())
    first = perf_counter()
    while engine.busy:
        n_new += len(engine.step())
    ended = perf_counter()
    measured = {"prefill tokens a second": n_prompt / (first - began), "seconds to the first token": first - began}
    print_beside(plan, measured | {"decode tokens a second, one sequence": (n_new - 1) / (ended - first)})


def foresee_grpo(
    files: "ModelFiles", settings: "GRPOSettings", n_prompt: float, n_shared: float, judge_bytes: float = 0.0
) -> "Plan":
    """The plan of a GRPO run here, its settings resolved: no "auto" in them. Time and memory are of this machine as
    the store's probe knows it; where there is none yet, time is roughly that of its kind: nothing waits for a probe."""
    from smallpress.planner.grpo import plan_grpo
    from smallpress.planner.model import planned_files
    from smallpress.planner.recipe import rehearsed

    place = _place(learning=True)
    asked = replace(rehearsed(settings, n_prompt, n_shared), judge_bytes=judge_bytes)
    return _noted(plan_grpo(planned_files(settings.model, files), place, asked), place)


def foresee_learning(activity: str, name: str, config: "ModelConfig", asked: Mapping[str, Any]) -> "Plan":
    """The plan of pretrain, or of any learning from rows of tokens, here. `asked`: n_tokens of the whole run, and as
    far as they are known batch_tokens of a step, seq_len, micro_tokens at once, dtype, optimizer; see
    planner.learning.Learned."""
    from smallpress.planner.learning import plan_learning
    from smallpress.planner.model import Planned
    from smallpress.planner.recipe import learned

    place = _place(learning=True)
    return _noted(plan_learning(Planned(name, config, {}), place, learned(activity, {}, asked)), place)


def foresee_sft(
    files: "ModelFiles",
    settings: "TrainSettings",
    n_steps: int,
    data: "Data",
    changed: "Callable[[Learned], Learned]" = lambda asked: asked,
) -> "Plan":
    """The plan of supervised training here on data read, DPO and adapters with it; `settings` resolved. `changed`: what
    else a step does, as in distillation."""
    from smallpress.planner.learning import plan_learning
    from smallpress.planner.model import planned_files
    from smallpress.planner.recipe import supervised

    place, planned = _place(learning=True), planned_files(settings.model, files)
    asked = changed(supervised(settings, files.config, n_steps, sizes_of(data)))
    return _noted(plan_learning(planned, place, asked), place)


def sizes_of(data: "Data") -> "SampleSizes":
    from smallpress.planner.recipe import SampleSizes
    from smallpress.train.data import samples_of, total_tokens

    samples = [sample for item in data.items for sample in samples_of(item)]
    n_all, n_trained = total_tokens(samples)
    held_out, _ = total_tokens(sample for item in data.held_out for sample in samples_of(item))
    n_items = len(data.items)
    longest = max(len(sample.ids) for sample in samples)
    return SampleSizes(n_items, n_all / len(samples), longest, n_trained / n_all, held_out, len(samples) // n_items)


def foresee_distill(
    files: "ModelFiles", settings: "DistillSettings", n_questions: int, n_prompt: float, teacher: "ModelFiles | None"
) -> "Plan":
    """The plan of a distillation here before anything is asked; `teacher`: one that runs on this machine."""
    from smallpress.planner.learning import plan_learning
    from smallpress.planner.model import planned_files
    from smallpress.planner.recipe import distilled

    place, planned = _place(learning=True), planned_files(settings.model, files)
    taught_by = None if teacher is None else teacher.config
    asked = distilled(settings, files.config, taught_by, n_questions, n_prompt)
    if teacher is None:
        return _noted(plan_learning(planned, place, asked), place)
    whose = planned_files(settings.teacher, teacher)
    if asked.asked is not None:
        asked = replace(asked, asked=bounded(asked.asked, "auto", whose, place))
    return _noted(plan_learning(planned, place, asked, whose), place)


def foresee_serving(name: str, files: "ModelFiles", dtype: str, asked: "Serving", price: float = 0.0) -> "Plan":
    """The plan of answering here, in what `dtype` means for this model and within the share of memory that the engine
    gives its cache. Of a server, whose requests nobody knows, it is of memory, speeds and, the machine at `price` an
    hour, of what a million tokens cost."""
    from smallpress.planner.model import planned_files
    from smallpress.planner.serving import plan_serving

    place, planned = _place(), planned_files(name, files)
    place = replace(place, machine=place.machine.model_copy(update={"price": price}))
    plan = _noted(plan_serving(planned, place, bounded(asked, dtype, planned, place)), place)
    return replace(plan, phases=()) if asked.activity == "serve" else plan


def bounded(asked: "Serving", dtype: str, planned: "Planned", place: "Place") -> "Serving":
    """As cli/open_engine.py opens it."""
    from smallpress.cli.open_engine import SHARE_OF_MEMORY

    format = computed_format(dtype, planned, asked.n_running)
    return replace(asked, format=format, most_cache=SHARE_OF_MEMORY * place.free)


def computed_format(dtype: str, planned: "Planned", n_running: int) -> str:
    """auto: a 4-bit file's own bits for few requests, as open_engine.py has it, else what it chooses here."""
    from smallpress.cli.open_engine import FEW, number_format

    if dtype != "auto":
        return dtype
    four = sum(n for format, n in planned.stored.items() if format.startswith("Q4"))
    return "int4" if n_running <= FEW and four > sum(planned.stored.values()) / 2 else number_format()


def _place(learning: bool = False) -> "Place":
    from smallpress.planner.probe import known_place

    return known_place(learning)


def _noted(plan: "Plan", place: "Place") -> "Plan":
    notes = [ROUGH] * place.is_rough + [BUSY] * place.is_busy
    return replace(plan, notes=(*plan.notes, *notes))
