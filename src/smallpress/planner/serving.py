"""run, serve and eval: a model answering so many at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from smallpress.model.config import ModelConfig
from smallpress.model.sizes import cache_bits, cache_bytes, multiply_adds
from smallpress.planner.lengths import Lengths, all_of
from smallpress.planner.memory import WORD, Parts, added, generation_parts, in_all, stored_bytes
from smallpress.planner.model import Planned
from smallpress.planner.place import Place
from smallpress.planner.plan import HOUR, Phase, Plan
from smallpress.planner.remedies import SPARE, largest, three
from smallpress.planner.work import Generating, prompt_flops

TOKEN_BUDGET = 2048
"""Of a step, in engine/engine.py: more prompt tokens wait for the next."""
STEPS_DOWN: dict[str, str] = {"float32": "bfloat16", "bfloat16": "int8", "int8": "int4"}


@dataclass(frozen=True, slots=True)
class Serving:
    """`n_running` sequences of `n_prompt` tokens and answers of `lengths`, side by side; `n_requests` in all.

    `reserved`: tokens that each may come to, 0: its prompt and the longest answer. `most_cache`: bytes that the cache
    takes at most; where it holds fewer sequences, fewer run at once.
    """

    format: str
    n_running: int = 1
    n_prompt: int = 512
    lengths: Lengths = field(default_factory=lambda: all_of(256))
    n_requests: int = 1
    activity: str = "run"
    reserved: int = 0
    most_cache: float = math.inf
    cache: str = "bfloat16"  # the format of keys and values, unless all is in float32

    @property
    def tokens_each(self) -> float:
        return self.reserved or self.n_prompt + self.lengths.longest

    @property
    def n_new(self) -> float:
        return self.n_requests * self.lengths.mean

    def cache_tokens(self, config: ModelConfig) -> float:
        """Of all sequences together."""
        each = cache_bytes(config, bits=cache_bits(config, "float32" if self.format == "float32" else self.cache))
        return min(self.n_running * self.tokens_each, self.most_cache / each)

    def at_once(self, config: ModelConfig) -> int:
        """Sequences that the cache has room for."""
        return max(1, min(self.n_running, int(self.cache_tokens(config) / (self.n_prompt + self.lengths.longest))))


def plan_serving(planned: Planned, place: Place, asked: Serving) -> Plan:
    """What the requests take when `n_running` of them run at once, all begun together."""
    config = planned.config
    at_work = Generating(config, place.rates, asked.format)
    prompts = at_work.prompt(asked.n_requests * asked.n_prompt, n_ends=asked.n_requests)
    n_at_once, new = asked.at_once(config), asked.n_new
    answers = at_work.answers(asked.n_requests, asked.n_prompt, asked.lengths, n_at_once)
    middle = asked.n_prompt + asked.lengths.mean / 2
    step = at_work.step(n_at_once, middle)
    phases = (
        Phase(
            "prompts",
            prompts,
            asked.n_requests * asked.n_prompt,
            asked.n_requests * prompt_flops(config, asked.n_prompt),
        ),
        Phase("answers", answers, new, 2 * new * multiply_adds(config, middle)),
    )
    one_prompt = sum(at_work.prompt(asked.n_prompt).values())
    whole = sum(prompts.values()) + sum(answers.values())
    speeds = {
        "tokens a second, prompts included": new / whole,
        "decode tokens a second": n_at_once / sum(step.values()),
        "decode tokens a second, one sequence": 1 / sum(at_work.step(1, middle).values()),
        "prefill tokens a second": asked.n_prompt / one_prompt,
        "seconds to the first token": one_prompt,
    }
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
        figures=speeds | _of_a_million(place, speeds) | {"sequences at once": float(n_at_once)},
        remedies=() if in_all(memory) <= room else _remedies(planned, place, asked, room),
    )


def _of_a_million(place: Place, speeds: Mapping[str, float]) -> dict[str, float]:
    """Energy, and where the machine has a price money, of a million tokens of prompts and of answers; machine busy."""
    found = {}
    for kind, name in (("in", "prefill tokens a second"), ("out", "decode tokens a second")):
        hours = 1e6 / speeds[name] / HOUR
        found[f"kWh a million tokens {kind}"] = hours * place.machine.watts / 1e3
        if place.machine.price:
            found[f"price of a million tokens {kind}"] = hours * place.machine.price
    return found


def serving_memory(planned: Planned, place: Place, asked: Serving) -> Parts:
    config, is_native = planned.config, place.is_here and asked.format != "float32"
    n_rows = min(TOKEN_BUDGET, max(asked.n_running, asked.n_running * asked.n_prompt))
    return added(
        {"program": place.program[not is_native and place.is_here]},
        {"weights": stored_bytes(config, asked.format, place.is_here)},
        {"tokenizer": float(WORD * config.vocab_size)},
        generation_parts(config, asked.format, asked.cache_tokens(config), n_rows, asked.n_running, asked.cache),
    )


def _remedies(planned: Planned, place: Place, asked: Serving, room: float) -> tuple[str, ...]:
    """Changes of which each alone is enough."""

    def fits(change: Serving) -> bool:
        return in_all(serving_memory(planned, place, change)) <= room

    found = []
    format = asked.format
    while format in STEPS_DOWN and not fits(replace(asked, format=format)):
        format = STEPS_DOWN[format]
    if fits(replace(asked, format=format)):
        found.append(f"--dtype {format}")
    if n := largest(asked.n_running, lambda n: fits(replace(asked, n_running=n))):
        found.append(f"--parallel {n}")
    if asked.reserved:
        if n := largest(asked.reserved, lambda n: fits(replace(asked, reserved=n))):
            found.append(f"--context {n}")
    elif n := largest(int(asked.lengths.longest), lambda n: fits(replace(asked, lengths=all_of(n)))):
        found.append(f"answers of {n} tokens")
    return three(
        found,
        in_all(serving_memory(planned, place, asked)),
        planned.config,
        place.machine.kind,
        lambda config: in_all(serving_memory(Planned("", config, {}), place, asked)) <= room,
    )
