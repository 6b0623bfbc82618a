"""pretrain, sft and distill on one machine: rows of tokens through the model and back, AdamW, and who reads along."""

from dataclasses import dataclass, replace

from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.model.sizes import parameters, training_flops
from smallpress.planner.grpo import CHECKING
from smallpress.planner.memory import (
    ALLOCATOR,
    LOGIT_ROWS,
    READ_ROWS,
    WIDTH,
    WORD,
    Parts,
    activation_bytes,
    added,
    at_fullest,
    generation_parts,
    in_all,
    stored_bytes,
    training_parts,
)
from smallpress.planner.model import Planned
from smallpress.planner.place import Place
from smallpress.planner.plan import Phase, Plan
from smallpress.planner.rates import OVERHEAD, Cost, plus, times
from smallpress.planner.remedies import SPARE, largest, three
from smallpress.planner.serving import Serving, plan_serving, serving_memory
from smallpress.planner.work import Generating, Learning, with_mtp

FROZEN_BITS = {"nf4": 4.25, "q4_0": 4.5, "q8_0": 8.5}
"""Of a weight under adapters, by the formats of lowbit/frozen.py."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """Low-rank adapters over frozen weights (model/low_rank.py): the last names of the layers that have one, and the
    format of the frozen weights, None for that of the passes."""

    rank: int
    targets: tuple[str, ...]
    base: str | None = None

    def n_parameters(self, config: ModelConfig) -> float:
        shapes = {tuple(name.split(".")): shape for name, shape in tensor_shapes(config).items() if len(shape) == 2}
        adapted = (shape for name, shape in shapes.items() if name[0] == "layers" and name[-2] in self.targets)
        return float(self.rank * sum(map(sum, adapted)))


@dataclass(frozen=True, slots=True)
class Reader:
    """A frozen model in the dtype of the passes that reads the tokens trained on, `passes` times each: the reference of
    DPO, a teacher whose probabilities are learned."""

    name: str
    config: ModelConfig
    passes: float = 1.0
    has_logits: bool = False


@dataclass(frozen=True, slots=True)
class Learned:
    """`n_tokens` seen in all, `batch_tokens` a step, in sequences of `seq_len`, as many at once as `micro_tokens`.

    `predicted`: the share of them that is trained on; in SFT the prompts are not. `longest`: of the sequences, where
    they are not all alike. `rereads`: forward passes over each token beside the one that learns, as DPO needs.
    `measured_tokens`: held-out tokens that the run measures itself on, all times together. `drawn`: answers that the
    model itself writes in every step, for on-policy distillation. `asked`: answers that a teacher writes first.
    """

    n_tokens: float
    batch_tokens: int = 16_384
    seq_len: int = 1024
    micro_tokens: int = 2048
    dtype: str = "bfloat16"
    backward: str = "same"
    optimizer: str = "adamw"
    predicted: float = 1.0
    activity: str = "pretrain"
    longest: int = 0
    recompute: bool = False
    adapters: Adapters | None = None
    reader: Reader | None = None
    rereads: float = 0.0
    measured_tokens: float = 0.0
    drawn: Serving | None = None
    asked: Serving | None = None

    @property
    def n_steps(self) -> float:
        return self.n_tokens / self.batch_tokens

    def n_trained(self, config: ModelConfig) -> float:
        sizes = parameters(config)
        return float(sizes.total + sizes.mtp) if self.adapters is None else self.adapters.n_parameters(config)

    @property
    def at_once(self) -> int:
        return max(self.seq_len, self.longest, min(self.micro_tokens, self.batch_tokens))


def plan_learning(planned: Planned, place: Place, asked: Learned, teacher: Planned | None = None) -> Plan:
    """`teacher`: who writes `asked.asked` before the training, in memory of its own that is given back."""
    config, n_steps = planned.config, asked.n_steps
    step, drawing = _step(config, place, asked), _drawing(config, place, asked)
    measuring = times(1 / 3, _passes(config, place, asked, asked.measured_tokens, 3.0))
    flops = asked.n_tokens / asked.seq_len * training_flops(config, asked.seq_len)
    phases = [Phase("training", times(n_steps, step), asked.n_tokens, flops)]
    memory = learning_memory(planned, place, asked)
    if asked.drawn is not None:
        phases.insert(0, Phase("own answers", times(n_steps, drawing), n_steps * asked.drawn.n_new))
    if asked.measured_tokens:
        phases.append(Phase("measuring", measuring, asked.measured_tokens))
    if teacher is not None and asked.asked is not None:
        writing = plan_serving(teacher, place, asked.asked)
        costs = (*(phase.cost for phase in writing.phases), {OVERHEAD: CHECKING * asked.asked.n_requests})
        phases.insert(0, Phase("teacher", plus(*costs), writing.tokens, writing.flops))
        memory = max(memory, serving_memory(teacher, place, asked.asked), key=in_all)
    room, seconds = SPARE * place.free, sum(step.values()) + sum(drawing.values())
    return Plan(
        activity=asked.activity,
        model=planned.name,
        machine=place.machine,
        n_chips=1,
        memory=memory,
        room=room,
        phases=tuple(phases),
        figures={
            "seconds a step": seconds,
            "tokens a second": asked.batch_tokens / seconds,
            "steps": n_steps,
            "weights trained": asked.n_trained(config),
        },
        remedies=() if in_all(memory) <= room else _remedies(planned, place, asked, room),
    )


def _step(config: ModelConfig, place: Place, asked: Learned) -> Cost:
    """Passes over a step's tokens, whoever else reads them, and the optimizer."""
    n_tokens, at_work = float(asked.batch_tokens), Learning(config, place.rates, asked.dtype)
    whole = _passes(config, place, asked, n_tokens, 3.0)
    costs = [times(asked.rereads / 3, whole)]
    if asked.adapters is None:
        costs.append(_passes(config, place, asked, n_tokens, 3.0, asked.backward))
    else:  # what they adapt is frozen, and stays in `dtype` both ways
        costs.append(_passes(config, place, asked, n_tokens, 2.0))
        costs.append(place.rates.training_products(3 * n_tokens * asked.n_trained(config), asked.dtype))
    costs.append(at_work.update(asked.optimizer, asked.n_trained(config)))
    if asked.recompute:
        costs.append(times(1 / 3, at_work.tokens(n_tokens, 0, n_tokens / asked.seq_len)))
    if asked.reader is not None:
        costs.append(times(asked.reader.passes / 3, _passes(asked.reader.config, place, asked, n_tokens, 3.0)))
    return plus(*costs)


def _passes(
    config: ModelConfig, place: Place, asked: Learned, n_tokens: float, products: float, backward: str = "same"
) -> Cost:
    """Where only a part of them is taken, as by who reads forward, `backward` is "same"."""
    at_work = Learning(config, place.rates, asked.dtype, backward)
    if asked.activity == "pretrain":
        return with_mtp(config, at_work, n_tokens, asked.seq_len)
    return at_work.tokens(n_tokens, asked.predicted * n_tokens, n_tokens / asked.seq_len, products=products)


def _drawing(config: ModelConfig, place: Place, asked: Learned) -> Cost:
    """The model's own answers of a step, and its new weights handed to the engine that draws them."""
    if asked.drawn is None:
        return {}
    drawn = asked.drawn
    at_work = Generating(config, place.rates, drawn.format)
    return plus(
        place.rates.hand_over(parameters(config).total, drawn.format),
        at_work.prompt(drawn.n_requests * drawn.n_prompt, n_ends=drawn.n_requests),
        at_work.answers(drawn.n_requests, drawn.n_prompt, drawn.lengths, drawn.n_running),
    )


def learning_memory(planned: Planned, place: Place, asked: Learned) -> Parts:
    """Of the passes, or of the model's own answers where those hold more: the engine gives its cache back."""
    config = planned.config
    whole = _adapted_parts(config, asked) if asked.adapters else _whole_parts(config, asked)
    if asked.reader is not None:
        reader = asked.reader
        whole = added(whole, {reader.name: float(WIDTH[asked.dtype] * parameters(reader.config).total)})
        if reader.has_logits:  # both models' logits, their logarithms and the gradient, of some rows
            whole = added(whole, {"logits": READ_ROWS * 6 * 4.0 * config.vocab_size})
    if asked.drawn is not None:
        drawn = asked.drawn
        n_held = drawn.n_running * drawn.tokens_each
        rolling = generation_parts(config, drawn.format, n_held, drawn.n_running * drawn.n_prompt, drawn.n_running)
        learning = {name: whole.pop(name) for name in ("gradients", "activations", "logits")}
        whole |= rolling if sum(rolling.values()) > sum(learning.values()) else learning
        whole |= {"engine's weights": stored_bytes(config, drawn.format, place.is_here)}
    slack = ALLOCATOR * sum(whole.values()) if place.is_here else 0.0
    program = {"program": place.program[True], "tokenizer": float(WORD * config.vocab_size)}
    return program | whole | {"allocator": slack}


def _whole_parts(config: ModelConfig, asked: Learned) -> Parts:
    parts = training_parts(config, asked.at_once, asked.dtype, asked.optimizer)
    if asked.recompute:
        parts["activations"] = _recomputed(config, asked)
    if asked.activity == "pretrain" and config.mtp is not None:
        parts["activations"] *= 1 + config.mtp.n_modules / config.n_layers
    return at_fullest(parts, asked.batch_tokens / asked.at_once)


def _adapted_parts(config: ModelConfig, asked: Learned) -> Parts:
    """Frozen weights once, in the dtype of the passes or in `base`; everything else of the adapters alone."""
    assert asked.adapters is not None
    sizes, width, n = parameters(config), WIDTH[asked.dtype], asked.n_trained(config)
    apart = sizes.embedding * (1 if config.tied_head else 2)
    each = FROZEN_BITS[asked.adapters.base] / 8 if asked.adapters.base else float(width)
    activations = activation_bytes(config, asked.at_once, asked.dtype)
    return {
        "weights": width * apart + each * (sizes.total - apart) + n * (4.0 + width),
        "gradients": 4.0 * n,
        "optimizer state": n * (2.0 if asked.optimizer == "adamw8" else 8.0),
        "activations": _recomputed(config, asked) if asked.recompute else activations,
        "logits": float(config.vocab_size * (512 * width + LOGIT_ROWS * 3 * 4)),
    }


def _recomputed(config: ModelConfig, asked: Learned) -> float:
    """The stream between blocks, and the block that is computed again."""
    block = activation_bytes(config, asked.at_once, asked.dtype) / config.n_layers
    return block + asked.at_once * WIDTH[asked.dtype] * config.dim * config.n_layers


def _remedies(planned: Planned, place: Place, asked: Learned, room: float) -> tuple[str, ...]:
    def fits(change: Learned, of: Planned = planned) -> bool:
        return in_all(learning_memory(of, place, change)) <= room

    found = []
    if asked.optimizer != "adamw8" and fits(replace(asked, optimizer="adamw8")):
        found.append("--set optimizer=adamw8")
    if not asked.recompute and fits(replace(asked, recompute=True)):
        found.append("--set recompute=true")
    shortest = max(64, asked.longest)
    if n := largest(asked.at_once, lambda n: n >= shortest and fits(replace(asked, micro_tokens=n, seq_len=1))):
        found.append(f"--set micro_batch_tokens={n}")
    adapted = replace(asked, adapters=Adapters(16, ("q", "k", "v", "o", "gate", "up", "down")), recompute=True)
    if not found and asked.adapters is None and asked.activity == "sft" and fits(adapted):
        found.append("--set lora.rank=16 --set recompute=true together")
    lean = replace(asked, optimizer="adamw8", dtype="bfloat16", recompute=True, micro_tokens=shortest, seq_len=1)
    if not found and fits(lean):
        found.append("--set optimizer=adamw8 --set dtype=bfloat16 --set recompute=true and short samples together")
    most = in_all(learning_memory(planned, place, asked))
    return three(found, most, planned.config, place.machine.kind, lambda config: fits(asked, Planned("", config, {})))
