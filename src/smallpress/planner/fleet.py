"""A large model answering on many chips: its experts spread over some of them, everything else on each.

A step of decoding reads what a chip holds once, attends over the caches of its sequences, and sends every token to its
experts' chips and back, in every layer. Two halves of the sequences take turns, one computing while the other sends.
"""

from dataclasses import dataclass, replace

from smallpress.model.config import MLA, ModelConfig, MoE
from smallpress.model.sizes import cache_bytes, multiply_adds, parameters
from smallpress.planner.cluster import COMMUNICATING, boxes_met, routed_parameters
from smallpress.planner.machine import SHARES, Machine
from smallpress.planner.model import Planned
from smallpress.planner.place import Place
from smallpress.planner.plan import Phase, Plan
from smallpress.planner.rates import ARITHMETIC, BITS, LINK, MEMORY, Cost, Roofline, plus, times
from smallpress.planner.remedies import SPARE, largest, three
from smallpress.planner.serving import Serving
from smallpress.planner.work import prompt_flops, values_between

HOP = 50e-6
"""Seconds from a chip to all others of the fleet and nothing else, software included: what DeepEP's low-delay kernels
take with few tokens (77 to 114 microseconds with 128)."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """`experts`: chips that the routed experts are spread over; weights of `weight_bytes` each, sent in one byte to
    experts and in two back."""

    config: ModelConfig
    machine: Machine
    experts: int
    weight_bytes: float = 1.0

    def held(self) -> float:
        """Bytes of weights on a chip."""
        main = self.config.model_copy(update={"mtp": None})
        routed = routed_parameters(main)
        return self.weight_bytes * (parameters(main).total - routed + routed / self.experts)

    def decode(self, n_rows: float, n_context: float) -> Cost:
        """One step of `n_rows` sequences a chip: all together, or in two halves where that is sooner."""
        computing, sending = self._step(n_rows, n_context)
        together = computing | {LINK: sending}
        half, half_sending = self._step(n_rows / 2, n_context)
        seconds = sum(half.values())
        halves = {LINK: 2 * half_sending} if half_sending > seconds else times(2, half)
        return min(together, halves, key=lambda cost: sum(cost.values()))

    def _step(self, n_rows: float, n_context: float) -> tuple[Cost, float]:
        """What computing takes, by what it waits for, and sending."""
        config, machine, shares = self.config, self.machine, SHARES[self.machine.kind]
        bandwidth = machine.bandwidth * 1e9 * shares.bandwidth
        products = 2 * n_rows * multiply_adds(config, 0) / (machine.peak("fp8") * shares.prompt)
        reading = self.held() / bandwidth
        seen = n_rows * (multiply_adds(config, n_context) - multiply_adds(config, 0))
        attention = 2 * seen / (machine.peak("bfloat16") * shares.attention)
        caches = n_rows * n_context * cache_bytes(config) / bandwidth
        cost: Cost = {MEMORY: 0.0, ARITHMETIC: 0.0}
        for multiplying, waiting in ((products, reading), (attention, caches)):
            cost[MEMORY if waiting > multiplying else ARITHMETIC] += max(multiplying, waiting)
        cost = plus(cost, self._between(n_rows))
        return cost, self._sent(n_rows, by_box=False) + 2 * self._sparse_layers() * HOP

    def prefill(self, n_tokens: float, n_prompt: float, n_cached: float = 0.0) -> Cost:
        """Prompts of `n_prompt` tokens, `n_cached` of each known before; `n_tokens` computed on a chip. Two halves take
        turns, so that what is sent beyond a box hides behind arithmetic, at the price of the units that send it."""
        config, machine, shares = self.config, self.machine, SHARES[self.machine.kind]
        fresh = n_prompt - n_cached
        products = 2 * n_tokens * multiply_adds(config, 0) / (machine.peak("fp8") * shares.prompt)
        attention = prompt_flops(config, fresh, n_cached) - 2 * fresh * multiply_adds(config, 0)
        attending = n_tokens / fresh * attention / (machine.peak("bfloat16") * shares.attention)
        expanding = n_tokens / fresh * n_cached * self._expanded()
        expanding = 2 * expanding / (machine.peak("fp8") * shares.prompt)
        computing = plus({ARITHMETIC: products + attending + expanding}, self._between(n_tokens))
        sending = self._sent(n_tokens, by_box=True)
        if sending:
            computing = times(1 / (1 - COMMUNICATING), computing)
        return {LINK: sending} if sending > sum(computing.values()) else computing

    def _between(self, n_rows: float) -> Cost:
        """Norms, activations and the routing of so many tokens, and the starting of layers."""
        n_values = n_rows * values_between(self.config)
        return Roofline(self.machine).step_overhead(self.config.n_layers, n_rows, self.config.vocab_size, n_values)

    def _expanded(self) -> float:
        """Multiply-adds that make keys and values of a cached latent."""
        attention = self.config.attention
        if not isinstance(attention, MLA):
            return 0.0
        each = attention.n_heads * (attention.qk_nope_head_dim + attention.v_head_dim)
        return float(self.config.n_layers * attention.kv_lora_rank * each)

    def _sparse_layers(self) -> int:
        ffn = self.config.ffn
        return self.config.n_layers - len(ffn.dense_layers) if isinstance(ffn, MoE) else 0

    def _sent(self, n_rows: float, by_box: bool) -> float:
        """Seconds on the network: once to every box met and on from there, or, where delay matters more, to each
        expert by itself."""
        ffn = self.config.ffn
        if not isinstance(ffn, MoE) or self.experts <= self.machine.chips_in_box:
            return 0.0
        boxes = self.experts // self.machine.chips_in_box
        met = boxes_met(ffn, boxes) if by_box else float(ffn.n_active_experts)
        n_bytes = n_rows * self._sparse_layers() * met * (boxes - 1) / boxes * 3.0 * self.config.dim
        return n_bytes / (self.machine.network * 1e9 * SHARES[self.machine.kind].link)


def plan_fleet(planned: Planned, place: Place, asked: Serving, chips: int, experts: int) -> Plan:
    """`asked.n_running` sequences on `chips` together, the experts over groups of `experts` chips; weights in the
    format asked, at least 8 bits."""
    config, machine = planned.config, place.machine
    fleet = Fleet(config, machine, experts, BITS[asked.format] / 8)
    n_rows = asked.n_running / chips
    middle = asked.n_prompt + asked.lengths.mean / 2
    prompts = fleet.prefill(asked.n_requests * asked.n_prompt / chips, asked.n_prompt)
    steps = [
        times(n, fleet.decode(max(1.0, n_rows * share), asked.n_prompt + at))
        for n, share, at in asked.lengths.stretches()
    ]
    step, new = fleet.decode(n_rows, middle), asked.n_requests * asked.lengths.mean
    rounds = max(1.0, asked.n_requests / asked.n_running)
    memory = {
        "program": place.program[True],
        "weights": fleet.held(),
        "KV cache": n_rows * asked.tokens_each * cache_bytes(config),
    }
    room = SPARE * machine.memory * 1e9

    def fits(other: ModelConfig) -> bool:
        return replace(fleet, config=other).held() + memory["KV cache"] <= room

    settings = []
    if n := largest(asked.n_running, lambda n: memory["weights"] + memory["KV cache"] * n / asked.n_running <= room):
        settings.append(f"--parallel {n}")
    needed = sum(memory.values())
    return Plan(
        activity=asked.activity,
        model=planned.name,
        machine=machine,
        n_chips=chips,
        memory=memory,
        room=room,
        phases=(
            Phase(
                "prompts",
                prompts,
                asked.n_requests * asked.n_prompt,
                asked.n_requests * prompt_flops(config, asked.n_prompt),
            ),
            Phase("answers", times(rounds, plus(*steps)), new, 2 * new * multiply_adds(config, middle)),
        ),
        figures={
            "decode tokens a second": asked.n_running / sum(step.values()),
            "decode tokens a second, one sequence": 1 / sum(step.values()),
            "sequences a chip has room for": cache_room(fleet, asked.tokens_each),
        },
        remedies=() if needed <= room else three(settings, needed, config, machine.kind, fits),
    )


def cache_room(fleet: Fleet, n_context: float) -> float:
    """How many sequences of that length a chip can hold beside its weights."""
    free = 0.9 * fleet.machine.memory * 1e9 - fleet.held()
    return max(0.0, free / (n_context * cache_bytes(fleet.config)))
