"""pretrain, sft and distill on one machine: rows of tokens, all predicted, AdamW."""

from dataclasses import dataclass, replace

from smallpress.model.sizes import training_flops
from smallpress.planner.memory import ALLOCATOR, Parts, at_fullest, training_parts
from smallpress.planner.model import Planned
from smallpress.planner.place import Place
from smallpress.planner.plan import Phase, Plan
from smallpress.planner.rates import plus, times
from smallpress.planner.remedies import SPARE, largest, three
from smallpress.planner.work import Generating, Learning


@dataclass(frozen=True, slots=True)
class Learned:
    """`n_tokens` seen in all, `batch_tokens` a step, in sequences of `seq_len`, as many at once as `micro_tokens`.

    `predicted`: the share of them that is trained on; in SFT the prompts are not. `taught_tokens`: answers that a
    teacher writes first, in distillation.
    """

    n_tokens: float
    batch_tokens: int = 16_384
    seq_len: int = 1024
    micro_tokens: int = 2048
    dtype: str = "bfloat16"
    optimizer: str = "adamw"
    predicted: float = 1.0
    activity: str = "pretrain"
    taught_tokens: float = 0.0

    @property
    def n_steps(self) -> float:
        return self.n_tokens / self.batch_tokens

    @property
    def at_once(self) -> int:
        return max(self.seq_len, min(self.micro_tokens, self.batch_tokens))


def plan_learning(planned: Planned, place: Place, asked: Learned, teacher: Planned | None = None) -> Plan:
    config = planned.config
    at_work = Learning(config, place.rates, asked.dtype)
    step = at_work.tokens(asked.batch_tokens, asked.predicted * asked.batch_tokens, asked.batch_tokens / asked.seq_len)
    whole = plus(step, at_work.update(asked.optimizer))
    flops = asked.n_tokens / asked.seq_len * training_flops(config, asked.seq_len)
    phases = [Phase("training", times(asked.n_steps, whole), asked.n_tokens, flops)]
    if teacher is not None:
        writing = Generating(teacher.config, place.rates, "int8")
        n_at_once = 32
        steps = asked.taught_tokens / n_at_once
        phases.insert(0, Phase("teacher", times(steps, writing.step(n_at_once, 512)), asked.taught_tokens))
    memory, room = learning_memory(planned, place, asked), SPARE * place.free
    seconds = sum(whole.values())
    return Plan(
        activity=asked.activity,
        model=planned.name,
        machine=place.machine,
        n_chips=1,
        memory=memory,
        room=room,
        phases=tuple(phases),
        figures={"seconds a step": seconds, "tokens a second": asked.batch_tokens / seconds, "steps": asked.n_steps},
        remedies=() if sum(memory.values()) <= room else _remedies(planned, place, asked, room),
    )


def learning_memory(planned: Planned, place: Place, asked: Learned) -> Parts:
    parts = training_parts(planned.config, asked.at_once, asked.dtype, asked.optimizer)
    parts = at_fullest(parts, asked.batch_tokens / asked.at_once)
    slack = ALLOCATOR * sum(parts.values()) if place.is_here else 0.0
    mapped = float(planned.file_bytes) if place.is_here else 0.0
    return {"program": place.program[True], "file": mapped} | parts | {"allocator": slack}


def _remedies(planned: Planned, place: Place, asked: Learned, room: float) -> tuple[str, ...]:
    def fits(change: Learned, of: Planned = planned) -> bool:
        return sum(learning_memory(of, place, change).values()) <= room

    found = []
    if asked.optimizer != "adamw8" and fits(replace(asked, optimizer="adamw8")):
        found.append("optimizer=adamw8")
    if n := largest(asked.at_once, lambda n: fits(replace(asked, micro_tokens=n, seq_len=min(asked.seq_len, n)))):
        found.append(f"micro_batch_tokens={n}")
    lean = replace(asked, optimizer="adamw8", dtype="bfloat16", micro_tokens=256, seq_len=min(256, asked.seq_len))
    if not found and fits(lean):
        found.append("optimizer=adamw8, dtype=bfloat16 and rows of 256 tokens together")
    needed = sum(learning_memory(planned, place, asked).values())
    return three(found, needed, planned.config, place.machine.kind, lambda config: fits(asked, Planned("", config, {})))
