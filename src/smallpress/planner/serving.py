"""run and serve: a model answering so many at once."""

from dataclasses import dataclass, field, replace

from smallpress.model.sizes import multiply_adds
from smallpress.planner.lengths import Lengths, all_of
from smallpress.planner.memory import WORD, Parts, added, generation_parts, stored_bytes
from smallpress.planner.model import Planned
from smallpress.planner.place import Place
from smallpress.planner.plan import Phase, Plan
from smallpress.planner.remedies import SPARE, largest, three
from smallpress.planner.work import Generating, prompt_flops

TOKEN_BUDGET = 2048
"""Of a step, in engine/engine.py: more prompt tokens wait for the next."""
STEPS_DOWN: dict[str, str] = {"float32": "bfloat16", "bfloat16": "int8", "int8": "int4"}


@dataclass(frozen=True, slots=True)
class Serving:
    """`n_running` sequences of `n_prompt` tokens and answers of `lengths`, side by side; `n_requests` in all."""

    format: str
    n_running: int = 1
    n_prompt: int = 512
    lengths: Lengths = field(default_factory=lambda: all_of(256))
    n_requests: int = 1
    activity: str = "run"

    @property
    def tokens_each(self) -> float:
        return self.n_prompt + self.lengths.longest


def plan_serving(planned: Planned, place: Place, asked: Serving) -> Plan:
    """What the requests take when `n_running` of them run at once, all begun together."""
    config = planned.config
    at_work = Generating(config, place.rates, asked.format)
    prompts = at_work.prompt(asked.n_requests * asked.n_prompt, n_ends=asked.n_requests)
    answers = at_work.answers(asked.n_requests, asked.n_prompt, asked.lengths, asked.n_running)
    new = asked.n_requests * asked.lengths.mean
    middle = asked.n_prompt + asked.lengths.mean / 2
    step = at_work.step(asked.n_running, middle)
    phases = (
        Phase(
            "prompts",
            prompts,
            asked.n_requests * asked.n_prompt,
            asked.n_requests * prompt_flops(config, asked.n_prompt),
        ),
        Phase("answers", answers, new, 2 * new * multiply_adds(config, middle)),
    )
    one_prompt = at_work.prompt(asked.n_prompt)
    memory = serving_memory(planned, place, asked)
    room = SPARE * place.free
    return Plan(
        activity=asked.activity,
        model=planned.name,
        machine=place.machine,
        n_chips=1,
        memory=memory,
        room=room,
        phases=phases,
        figures={
            "decode tokens a second": asked.n_running / sum(step.values()),
            "decode tokens a second, one sequence": 1 / sum(at_work.step(1, middle).values()),
            "prefill tokens a second": asked.n_prompt / sum(one_prompt.values()),
            "seconds to the first token": sum(one_prompt.values()),
        },
        remedies=() if sum(memory.values()) <= room else _remedies(planned, place, asked, room),
    )


def serving_memory(planned: Planned, place: Place, asked: Serving) -> Parts:
    config, is_native = planned.config, place.is_here and asked.format != "float32"
    n_rows = min(TOKEN_BUDGET, max(asked.n_running, asked.n_running * asked.n_prompt))
    return added(
        {"program": place.program[not is_native and place.is_here]},
        {"weights": stored_bytes(config, asked.format, place.is_here), "file": float(planned.file_bytes) * is_native},
        {"tokenizer": float(WORD * config.vocab_size)},
        generation_parts(config, asked.format, asked.n_running * asked.tokens_each, n_rows, asked.n_running),
    )


def _remedies(planned: Planned, place: Place, asked: Serving, room: float) -> tuple[str, ...]:
    """Changes of which each alone is enough."""

    def fits(change: Serving) -> bool:
        return sum(serving_memory(planned, place, change).values()) <= room

    found = []
    format = asked.format
    while format in STEPS_DOWN and not fits(replace(asked, format=format)):
        format = STEPS_DOWN[format]
    if fits(replace(asked, format=format)):
        found.append(f"--dtype {format}")
    if n := largest(asked.n_running, lambda n: fits(replace(asked, n_running=n))):
        found.append(f"--parallel {n}")
    longest = int(asked.lengths.longest)
    if n := largest(longest, lambda n: fits(replace(asked, lengths=all_of(n)))):
        found.append(f"answers of {n} tokens")
    return three(
        found,
        sum(serving_memory(planned, place, asked).values()),
        planned.config,
        place.machine.kind,
        lambda config: sum(serving_memory(Planned("", config, {}), place, asked).values()) <= room,
    )
