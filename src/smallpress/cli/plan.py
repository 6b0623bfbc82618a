"""smallpress plan"""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from smallpress.run.errors import UserError

if TYPE_CHECKING:
    from smallpress.planner.model import Planned
    from smallpress.planner.place import Place
    from smallpress.planner.plan import Plan

Activity = Literal["run", "serve", "pretrain", "sft", "distill", "grpo"]
NEW_TOKENS, PARALLEL = 256, 32
LEARNING = ("pretrain", "sft", "distill")


def plan(
    activity: Annotated[Activity | None, Parameter(help="What is to be done.")] = None,
    model: Annotated[
        str | None, Parameter(help="As for `run`, a config.json, a size such as 7B, or dim=576,layers=30,...")
    ] = None,
    recipe: Annotated[Path | None, Parameter(help="A TOML file of settings.")] = None,
    /,
    *,
    machine: Annotated[str, Parameter(help="here, or a name of the catalogue: --list shows them.")] = "here",
    machines: Annotated[Path | None, Parameter(help="A TOML file of more machines.")] = None,
    chips: Annotated[int, Parameter(help="So many of them together.")] = 1,
    layout: Annotated[
        str | None, Parameter(help="How they share the work: pipeline=16,experts=64,tensor=1,schedule=dualpipe.")
    ] = None,
    dtype: Annotated[
        Literal["auto", "int4", "int8", "fp8", "bfloat16", "float32"], Parameter(help="Of the weights that compute.")
    ] = "auto",
    optimizer: Annotated[Literal["adamw", "adamw8", "adamw16"] | None, Parameter(help="Its moments' size.")] = None,
    parallel: Annotated[int | None, Parameter(help="Sequences at once.")] = None,
    prompt: Annotated[int, Parameter(help="Tokens of a prompt.")] = 512,
    tokens: Annotated[
        float | None, Parameter(help="Of an answer; to learn from: of the whole run, such as 1e9.")
    ] = None,
    seq_len: Annotated[int | None, Parameter(help="Tokens of a training row.")] = None,
    batch_tokens: Annotated[int | None, Parameter(help="Tokens of a training step.")] = None,
    teacher: Annotated[str | None, Parameter(help="Whose answers are distilled.")] = None,
    network: Annotated[float | None, Parameter(help="GB/s that a chip sends beyond its box.")] = None,
    link: Annotated[float | None, Parameter(help="GB/s that a chip sends within its box.")] = None,
    price: Annotated[float | None, Parameter(help="Dollars an hour of a chip.")] = None,
    watts: Annotated[float | None, Parameter(help="Of a chip, its box's share included.")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="Any setting of a grpo recipe.")] = (),
    plot: Annotated[Path | None, Parameter(help="Write the memory, or the pipeline's timeline, as SVG.")] = None,
    probe: Annotated[bool, Parameter(negative="", help="Measure this machine again.")] = False,
    list_: Annotated[bool, Parameter(name="--list", negative="", help="Show the machines and models known.")] = False,
    published: Annotated[bool, Parameter(negative="", help="Published runs beside what is computed for them.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Say before a run what it takes: memory, time, energy, money, and what would fit instead.

    On this machine, whose speed is measured once and kept, or on one of the catalogue. Exits with 2 where it cannot
    fit.
    """
    if list_:
        return _list(machines, json)
    if published:
        return _published(json)
    if activity is None or (model is None and recipe is None):
        raise UserError("what is to be planned is not said", "for example: smallpress plan run smollm2-135m")
    for name, value in {"chips": chips, "prompt": prompt, "parallel": parallel or 1}.items():
        if value < 1:
            raise UserError(f"--{name} is {value}", "give at least 1")
    if tokens is not None and not tokens >= 1:
        raise UserError(f"--tokens is {tokens}", "give at least 1")
    learning = activity in LEARNING or activity == "grpo"
    changes = {"network": network, "link": link, "price": price, "watts": watts}
    place = _place(machine, machines, probe, learning, changes)
    given: dict[str, Any] = {"dtype": dtype, "optimizer": optimizer, "seq_len": seq_len, "batch_tokens": batch_tokens}
    given |= {"n_tokens": tokens, "parallel": parallel, "prompt": prompt, "teacher": teacher, "offline": offline}
    found = _plan(activity, model, recipe, place, chips, layout, set_, given)
    if plot is not None:
        _draw(found, layout, plot)
    print(json_format.dumps(found.as_json(), indent=2) if json else _told(found))
    found.require_room()


def _place(name: str, more: Path | None, again: bool, learning: bool, changes: dict[str, float | None]) -> "Place":
    from dataclasses import replace

    from smallpress.planner.machine import MEASURED, Machine, machine_named
    from smallpress.planner.place import catalogued
    from smallpress.planner.probe import this_place

    place = this_place(again, learning) if name == MEASURED else catalogued(machine_named(name, more))
    given = {key: value for key, value in changes.items() if value is not None}
    for key, value in given.items():
        if not value >= 0 or (key != "price" and value == 0):
            raise UserError(f"--{key} is {value}", "give a number above 0")
    changed = Machine(**(place.machine.model_dump() | given))
    return replace(place, machine=changed) if place.is_here else catalogued(changed)


def _plan(
    activity: str,
    model: str | None,
    recipe: Path | None,
    place: "Place",
    chips: int,
    layout: str | None,
    overrides: tuple[str, ...],
    given: dict[str, Any],
) -> "Plan":
    from smallpress.planner.model import planned_model

    if activity == "grpo":
        return _grpo(model, recipe, place, overrides, given, chips, layout)
    if recipe is None and model is not None and model.endswith(".toml"):
        recipe, model = Path(model), None
    planned = _model_of(recipe) if model is None and recipe is not None else None
    if planned is None:
        if model is None:
            raise UserError("no model is named", f"smallpress plan {activity} MODEL")
        planned = planned_model(model, given["offline"])
    if activity in LEARNING:
        return _learn(activity, planned, recipe, place, chips, layout, given)
    return _serve(activity, planned, place, chips, layout, given)


def _model_of(recipe: Path) -> "Planned | None":
    """What a recipe names: the model that it begins with, or the shape of one that is made, with a vocabulary of 32,000
    where that comes with the corpus."""
    from smallpress.model.config import ModelConfig
    from smallpress.planner.model import Planned, planned_model
    from smallpress.run.settings import read_toml, settings_from

    tree = read_toml(recipe)
    if isinstance(shape := tree.get("shape"), dict):
        shape = {"vocab_size": 32_000, "norm_eps": 1e-6, "rope_theta": 1e4} | shape
        return Planned(recipe.stem, settings_from(ModelConfig, shape, f"{recipe}: shape"), {})
    word = shape if isinstance(shape, str) else tree.get("model")
    return planned_model(word) if isinstance(word, str) else None


def _serve(
    activity: str, planned: "Planned", place: "Place", chips: int, layout: str | None, given: dict[str, Any]
) -> "Plan":
    from smallpress.cli.foresight import computed_format
    from smallpress.planner.lengths import all_of
    from smallpress.planner.serving import Serving, plan_serving

    n = given["parallel"] or (PARALLEL if activity == "serve" else 1)
    lengths = all_of(given["n_tokens"] or NEW_TOKENS)
    format = computed_format(given["dtype"], planned, n)
    asked = Serving(format, n, given["prompt"], lengths, n, activity)
    if chips == 1:
        return plan_serving(planned, place, asked)
    from smallpress.planner.cluster import layout_from
    from smallpress.planner.fleet import plan_fleet

    spread = layout_from(layout or f"experts={chips}", planned.config, chips).experts
    return plan_fleet(planned, place, asked, chips, spread)


def _learn(
    activity: str,
    planned: "Planned",
    recipe: Path | None,
    place: "Place",
    chips: int,
    layout: str | None,
    given: dict[str, Any],
) -> "Plan":
    from dataclasses import replace

    from smallpress.planner.learning import plan_learning
    from smallpress.planner.model import planned_model
    from smallpress.planner.recipe import learned, written
    from smallpress.run.settings import read_toml

    asked = learned(activity, read_toml(recipe) if recipe else {}, given)
    if chips > 1:
        from smallpress.planner.cluster import layout_from, plan_cluster

        return plan_cluster(planned, place, asked, layout_from(layout or "", planned.config, chips))
    if not given["teacher"]:
        return plan_learning(planned, place, asked)
    teacher = planned_model(given["teacher"], given["offline"])
    return plan_learning(planned, place, replace(asked, asked=written(asked.n_tokens, given["prompt"])), teacher)


def _grpo(
    model: str | None,
    recipe: Path | None,
    place: "Place",
    overrides: tuple[str, ...],
    given: dict[str, Any],
    chips: int,
    layout: str | None,
) -> "Plan":
    from smallpress.planner.grpo import plan_grpo
    from smallpress.planner.model import planned_model
    from smallpress.planner.recipe import rehearsed
    from smallpress.rl.settings import GRPOSettings
    from smallpress.run.settings import load_settings

    if recipe is None and model is not None and model.endswith(".toml"):
        recipe, model = Path(model), None
    named = [f"model={json_format.dumps(model)}"] if model else []
    least = [] if recipe else ['tasks=["chained_sum:3"]', "steps=100"]
    settings = load_settings(GRPOSettings, recipe, [*least, *named, *overrides])
    planned, asked = planned_model(settings.model, given["offline"]), rehearsed(settings)
    if chips == 1:
        return plan_grpo(planned, place, asked)
    from smallpress.planner.cluster import layout_from
    from smallpress.planner.reinforce import plan_stages, stage_of

    spread = layout_from(layout or "", planned.config, chips)
    return plan_stages(planned, place.machine, {"grpo": stage_of(asked, spread.experts)}, chips, spread)


def _told(plan: "Plan") -> str:
    from smallpress.cli.foresight import joules
    from smallpress.cli.table import table
    from smallpress.run.progress import clock_time

    whole = f"{plan.n_chips} x {plan.machine.title}" if plan.n_chips > 1 else plan.machine.title
    lines = [f"{plan.activity} {plan.model} on {whole}", ""]
    memory = [[name, f"{value / 1e9:,.2f} GB"] for name, value in plan.memory.items() if value]
    verdict = "fits in" if plan.fits else "does not fit in"
    memory.append(["together", f"{plan.peak_memory / 1e9:,.2f} GB, {verdict} {plan.room / 1e9:,.2f} GB"])
    lines += [table(memory), ""]
    rows = [["", "time", "tokens", "FLOPs", "waits for"]]
    for phase in plan.phases:
        waits = max(phase.cost, key=lambda cause: phase.cost[cause]) if phase.cost else ""
        rows.append([phase.name, clock_time(phase.seconds), f"{phase.tokens:,.0f}", f"{phase.flops:.2e}", waits])
    rows.append(["together", clock_time(plan.seconds), f"{plan.tokens:,.0f}", f"{plan.flops:.2e}", plan.bottleneck])
    lines += [table(rows), ""]
    lines += [table([[name, f"{value:,.2f}"] for name, value in plan.figures.items()])]
    cost = f"{joules(plan.energy)}, {plan.chip_hours:,.2f} chip hours"
    lines.append(cost + (f", {plan.money:,.2f} dollars" if plan.machine.price else ""))
    lines += list(plan.notes)
    if plan.machine.unconfirmed:
        lines.append(f"unconfirmed figures of {plan.machine.title}: {', '.join(plan.machine.unconfirmed)}")
    if plan.remedies:
        lines.append("it would fit with: " + "; or ".join(plan.remedies))
    return "\n".join(lines)


def _list(more: Path | None, json: bool) -> None:
    from smallpress.cli.table import table
    from smallpress.planner.machine import machines
    from smallpress.planner.model import known_models

    known = machines(more)
    if json:
        print(json_format.dumps({name: one.model_dump() for name, one in known.items()}, indent=2))
        return
    rows = [["machine", "GB", "GB/s", "bf16 T/s", "W", "$/h", "source"]]
    for name, one in known.items():
        shown = {"memory": one.memory, "bandwidth": one.bandwidth, "peaks": one.peak("bfloat16") / 1e12}
        shown |= {"watts": one.watts, "price": one.price}
        marked = [f"{value:g}{'?' * (figure in one.unconfirmed)}" for figure, value in shown.items()]
        rows.append([name, *marked, one.source])
    print(table(rows))
    print("\n?: unconfirmed, no document was at hand for this figure")
    print(f"\nmodels: {', '.join(known_models())}")


def _published(json: bool) -> None:
    from smallpress.cli.table import table
    from smallpress.planner.published import rows

    found = rows()
    if json:
        print(json_format.dumps([row.as_json() for row in found], indent=2))
        return
    cells = [["run", "inputs", "unit", "published", "computed", "ratio"]]
    for row in found:
        cells.append(
            [row.name, row.inputs, row.unit, f"{row.published:,.6g}", f"{row.computed:,.4g}", f"{row.ratio:.2f}"]
        )
    print(table(cells))


def _draw(plan: "Plan", layout: str | None, path: Path) -> None:
    from smallpress.planner.drawing import memory_drawing, timeline_drawing
    from smallpress.run.atomic import write_file

    write_file(path, (timeline_drawing(plan) if plan.timeline else memory_drawing(plan)).encode())
    print(f"drawn in {path}")
