"""Training on many chips: what each does, what it sends, what of that is hidden, and what the pipeline idles.

A step on a chip = the pipeline's timeline (schedules.py) of its micro-batches, each with its share of arithmetic, of
all-to-all between experts and of all-reduce between slices of a matrix, and then the exchange of gradients and weights
between copies of the model, as far as the backward pass does not hide it.
"""

from dataclasses import dataclass, replace

from smallpress.model.config import MLA, ModelConfig, MoE
from smallpress.model.sizes import parameters, training_flops
from smallpress.planner.learning import Learned
from smallpress.planner.machine import SHARES, Machine
from smallpress.planner.memory import WIDTH, Parts, head_bytes, saved_values
from smallpress.planner.model import Planned
from smallpress.planner.place import Place
from smallpress.planner.plan import Phase, Plan
from smallpress.planner.rates import BUBBLE, LINK, MEMORY, Cost, Rates, times
from smallpress.planner.remedies import SPARE, three
from smallpress.planner.schedules import SCHEDULES, TWO_WAYS, Lasts, Timeline, timeline
from smallpress.planner.work import Learning, with_mtp
from smallpress.run.errors import UserError
from smallpress.run.settings import Settings, settings_from

COMMUNICATING = 20 / 132
"""Of a chip's units, those that send and receive while the others multiply (DeepSeek-V3, section 3.2.2)."""
MOST_SIMULATED = 64
"""Micro-batches drawn and simulated; more repeat the middle of the timeline."""


class Layout(Settings):
    """How `chips` share the work: `pipeline` stages, each matrix in `tensor` slices, experts over `experts` chips, the
    rest copies. `chunks`: thin stages a chip holds under the interleaved schedule. `shard`: states are spread over the
    copies, "states" (ZeRO-1) or "all" (weights too, gathered for each pass). `overlap`: all-to-all runs beside
    arithmetic. `sync_every` steps between exchanges of copies, in `sync_bits`. `recompute`: norms, activations and what
    is made from latents are computed again."""

    chips: int
    pipeline: int = 1
    tensor: int = 1
    experts: int = 1
    schedule: str = "1f1b"
    chunks: int = 1
    shard: str = "states"
    overlap: bool = False
    sync_every: int = 1
    sync_bits: int = 16
    recompute: bool = True

    @property
    def copies(self) -> int:
        return self.chips // (self.pipeline * self.tensor)


def layout_from(words: str, config: ModelConfig, chips: int) -> Layout:
    """From "pipeline=16,experts=64,schedule=dualpipe". Raises UserError for what does not divide."""
    pairs = dict(word.partition("=")[::2] for word in words.split(",") if word)
    layout = settings_from(Layout, pairs | {"chips": chips}, "--layout")
    if layout.schedule not in SCHEDULES:
        raise UserError(f"there is no schedule {layout.schedule!r}", f"choose one of {', '.join(SCHEDULES)}")
    for name in ("pipeline", "tensor", "experts", "chunks", "sync_every", "sync_bits"):
        if getattr(layout, name) < 1:
            raise UserError(f"{name} is {getattr(layout, name)}", "give at least 1")
    if chips % (layout.pipeline * layout.tensor):
        raise UserError(f"{chips} chips are no multiple of pipeline x tensor", "choose other numbers")
    if (layout.chunks > 1) != (layout.schedule == "interleaved"):
        raise UserError(f"{layout.chunks} chunks with {layout.schedule}", "give schedule=interleaved,chunks=2 or more")
    if layout.pipeline > config.n_layers:
        raise UserError(f"{layout.pipeline} stages for {config.n_layers} layers", "give at most one a layer")
    if layout.copies % layout.experts:
        raise UserError(f"{layout.experts} chips of experts do not divide {layout.copies} copies", "choose another")
    if layout.schedule in TWO_WAYS and layout.pipeline % 2:
        raise UserError(f"{layout.schedule} needs an even number of stages", "give pipeline=2, 4, 8, ...")
    return layout


@dataclass(frozen=True, slots=True)
class Volumes:
    """Bytes that one chip sends for a token of a layer, forward and backward, and for an exchange of copies."""

    experts_network: float
    experts_link: float
    tensor_link: float
    exchange: float


def volumes(config: ModelConfig, machine: Machine, layout: Layout, dtype: str) -> Volumes:
    """Dispatch in the dtype of the products, combine in bf16, both ways of a pass; an all-reduce of n chips sends
    2 (n - 1) / n of its array."""
    network = link = 0.0
    if isinstance(config.ffn, MoE) and layout.experts > 1:
        sent = 2 * config.dim * (WIDTH[dtype] + 2.0)
        boxes = max(1, layout.experts // machine.chips_in_box)
        network = sent * boxes_met(config.ffn, boxes) * (boxes - 1) / boxes
        in_box = min(layout.experts, machine.chips_in_box)
        link = sent * config.ffn.n_active_experts * (in_box - 1) / in_box
    n = layout.tensor
    tensor = 4 * 2 * (n - 1) / n * config.dim * 2.0
    held = chip_parameters(config, layout)
    exchange = 2 * held * layout.sync_bits / 8 / layout.sync_every
    return Volumes(network, link, tensor, exchange * (layout.copies > 1))


def boxes_met(ffn: MoE, boxes: int) -> float:
    """How many boxes a token's experts lie in: at most its active groups where groups lie on boxes (node-limited
    routing), else as even and independent choices give.

    >>> boxes_met(MoE(n_routed_experts=256, n_active_experts=8, moe_inter_dim=1, n_groups=8, n_active_groups=4), 8)
    4.0
    """
    free = boxes * (1 - (1 - 1 / boxes) ** ffn.n_active_experts)
    return min(free, float(ffn.n_active_groups)) if ffn.n_groups >= boxes > 1 and ffn.n_groups > 1 else free


def chip_parameters(config: ModelConfig, layout: Layout) -> float:
    """Held by one chip: its stage, its slice, its experts."""
    sizes, routed = parameters(config), routed_parameters(config)
    total = sizes.total + sizes.mtp
    return ((total - routed) / layout.tensor + routed / layout.experts) / layout.pipeline


def routed_parameters(config: ModelConfig) -> float:
    ffn = config.ffn
    if not isinstance(ffn, MoE):
        return 0.0
    n = config.n_layers - len(ffn.dense_layers) + (config.mtp.n_modules if config.mtp else 0)
    return n * ffn.n_routed_experts * 3.0 * config.dim * ffn.moe_inter_dim


def plan_cluster(planned: Planned, place: Place, asked: Learned, layout: Layout) -> Plan:
    config, machine = planned.config, place.machine
    drawn, cost = step_cost(config, place.rates, machine, asked, layout)
    n_steps = asked.n_steps / SHARES[machine.kind].up
    flops = asked.n_tokens / asked.seq_len * training_flops(config, asked.seq_len)
    memory, room = cluster_memory(config, asked, layout, place.program[True]), SPARE * machine.memory * 1e9
    seconds = sum(cost.values())

    def fits(other: ModelConfig) -> bool:
        return sum(cluster_memory(other, asked, layout, place.program[True]).values()) <= room

    settings = []
    more = layout.model_copy(update={"shard": "all"})
    if layout.shard != "all" and sum(cluster_memory(config, asked, more, 1e9).values()) <= room:
        settings.append("--layout shard=all")
    needed = sum(memory.values())
    return Plan(
        activity=asked.activity,
        model=planned.name,
        machine=machine,
        n_chips=layout.chips,
        memory=memory,
        room=room,
        phases=(Phase("training", times(n_steps, cost), asked.n_tokens, flops),),
        figures={
            "seconds a step": seconds,
            "steps": asked.n_steps,
            "chip hours a trillion tokens": layout.chips
            * seconds
            * 1e12
            / asked.batch_tokens
            / 3600
            / SHARES[machine.kind].up,
            "model FLOP/s a chip, 10^12": flops / asked.n_steps / seconds / layout.chips / 1e12,
        },
        remedies=() if needed <= room else three(settings, needed, config, machine.kind, fits),
        timeline=drawn.bars if layout.pipeline > 1 else (),
    )


def step_cost(
    config: ModelConfig, rates: Rates, machine: Machine, asked: Learned, layout: Layout
) -> tuple[Timeline, Cost]:
    """The pipeline's timeline, and seconds of a step by what they wait for."""
    share, n_micro = SHARES[machine.kind].link, micro_batches(asked, layout)
    sent = volumes(config, machine, layout, asked.dtype)
    tokens = asked.at_once
    whole = with_mtp(config, Learning(config, rates, asked.dtype), tokens, asked.seq_len)
    arithmetic = times(1 / (layout.pipeline * layout.tensor), whole)
    layers = (config.n_layers + (config.mtp.n_modules if config.mtp else 0)) / layout.pipeline
    between = tokens * layers / share / 1e9
    experts = between * max(sent.experts_network / machine.network, sent.experts_link / max(machine.link, 1e-9))
    slices = between * sent.tensor_link / max(machine.link, 1e-9)
    if layout.overlap and layout.experts > 1:
        arithmetic = times(1 / (1 - COMMUNICATING), arithmetic)
        hidden = min(experts, sum(arithmetic.values()))
        experts -= hidden
    busy = sum(arithmetic.values()) + experts + slices
    lasts = Lasts(busy / 3, busy / 3, busy / 3, send=tokens * config.dim * 2 / (machine.network * 1e9 * share))
    n_drawn = min(n_micro, max(MOST_SIMULATED // layout.pipeline, 2) * layout.pipeline)
    drawn = timeline(layout.schedule, layout.pipeline, n_drawn, _each_way(lasts, layout), layout.chunks)
    exchange = sent.exchange / (machine.network * 1e9 * share)
    if layout.shard == "all":
        exchange *= 1.5  # weights are gathered for both passes
    exposed = max(0.0, exchange - busy * n_micro / 2) if layout.sync_every == 1 else exchange
    n_bytes = chip_parameters(config, layout) / layout.copies * 28 * (layout.copies if layout.shard == "none" else 1)
    moved = rates.optimizer_step(chip_parameters(config, layout) / layout.copies, n_bytes, "adamw")
    cost = times(n_micro, arithmetic) | {
        LINK: n_micro * (experts + slices) + exposed,
        BUBBLE: drawn.bubble,
    }
    cost[MEMORY] = cost.get(MEMORY, 0.0) + sum(moved.values())
    return drawn, cost


def micro_batches(asked: Learned, layout: Layout) -> int:
    """Of each pipeline in a step."""
    n = max(1, round(asked.batch_tokens / layout.copies / asked.at_once))
    if layout.schedule in TWO_WAYS and n < 2 * layout.pipeline:
        least = 2 * layout.pipeline * layout.copies * asked.at_once
        what = f"{layout.schedule} has {n} micro-batches for {layout.pipeline} stages"
        raise UserError(what, f"give at least {least:.3g} tokens a step, or another schedule")
    if layout.schedule == "interleaved" and n % layout.pipeline:
        what = f"{n} micro-batches are no multiple of {layout.pipeline} stages"
        raise UserError(what, "give other tokens a step, or schedule=1f1b")
    return n


def _each_way(lasts: Lasts, layout: Layout) -> Lasts:
    """With several stages a rank each takes its part of the time."""
    n = 2 if layout.schedule == "dualpipev" else layout.chunks
    return replace(lasts, forward=lasts.forward / n, inputs=lasts.inputs / n, weights=lasts.weights / n)


def cluster_memory(config: ModelConfig, asked: Learned, layout: Layout, program: float) -> Parts:
    """Of the fullest chip, the first stage: as many micro-batches in flight as stages, one more with DualPipe, which
    holds two stages."""
    held = chip_parameters(config, layout) * (2 if layout.schedule == "dualpipe" else 1)
    spread = layout.copies if layout.shard in ("states", "all") else 1
    gathered = layout.copies if layout.shard == "all" else 1
    in_flight = float(layout.pipeline if layout.schedule in ("1f1b", "zerobubble") else layout.pipeline + 1)
    if layout.schedule == "interleaved":
        in_flight = layout.pipeline + (layout.pipeline - 1) / layout.chunks
    layers = config.n_layers / layout.pipeline
    each = sum(kept_values(config, layer, layout) for layer in range(config.n_layers)) / config.n_layers
    width = WIDTH[asked.dtype]
    moments = {"adamw": 8.0, "adamw16": 4.0, "adamw8": 2.0}[asked.optimizer]
    return {
        "program": program,
        "weights": held * width / gathered + 4 * held / spread,
        "gradients": 4 * held / gathered,
        "optimizer state": moments * held / spread,
        "activations": in_flight * asked.at_once * layers * each * width / layout.tensor,
        "logits": head_bytes(config, "bfloat16") / layout.tensor / layout.pipeline,
    }


def kept_values(config: ModelConfig, layer: int, layout: Layout) -> float:
    """As memory.saved_values; with `recompute` without norms' results, activations, and what comes of latents."""
    if not layout.recompute:
        return saved_values(config, layer)
    attention, ffn = config.attention, config.ffn_of(layer)
    if isinstance(attention, MLA):
        inside = (attention.q_lora_rank or 0) + attention.cache_shape[1] + attention.n_heads * attention.v_head_dim
    else:
        inside = 2 * (attention.n_heads + attention.n_kv_heads) * attention.head_dim
    if isinstance(ffn, MoE):
        width = (ffn.n_active_experts + ffn.n_shared_experts) * ffn.moe_inter_dim
        return 2 * config.dim + inside + 2 * width + ffn.n_active_experts * config.dim
    return 2 * config.dim + inside + 2 * ffn.inter_dim


def best_layout(config: ModelConfig, place: Place, asked: Learned, chips: int) -> Layout:
    """The fastest that fits, of those with slices within a box, stages in powers of two, 1F1B or zero bubble, and
    states or all sharded. UserError where none fits."""
    found: list[tuple[float, int, Layout]] = []
    room, most = SPARE * place.machine.memory * 1e9, 16
    for tensor in (1, 2, 4, 8):
        for pipeline in (1, 2, 4, 8, 16):
            for schedule, shard in (("1f1b", "states"), ("zerobubble", "states"), ("1f1b", "all")):
                if pipeline > min(most, config.n_layers) or chips % (pipeline * tensor):
                    continue
                if tensor > place.machine.chips_in_box or (shard == "all" and pipeline > 1):
                    continue
                layout = Layout(chips=chips, pipeline=pipeline, tensor=tensor, schedule=schedule, shard=shard)
                if asked.batch_tokens < layout.copies * asked.at_once:
                    continue
                if sum(cluster_memory(config, asked, layout, place.program[True]).values()) > room:
                    continue
                _, cost = step_cost(config, place.rates, place.machine, asked, layout)
                found.append((sum(cost.values()), len(found), layout))
    if not found:
        raise UserError(f"{chips} chips hold no copy of it", "give more chips, or smaller micro-batches")
    return min(found)[2]
