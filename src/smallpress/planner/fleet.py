"""A large model answering on many chips: its experts spread over some of them, everything else on each.

A step of decoding reads what a chip holds once, attends over the caches of its sequences, and sends every token to its
experts' chips and back, in every layer. Two halves of the sequences take turns, one computing while the other sends.
"""

from dataclasses import dataclass

from smallpress.model.config import ModelConfig, MoE
from smallpress.model.sizes import cache_bytes, multiply_adds, parameters
from smallpress.planner.cluster import boxes_met, routed_parameters
from smallpress.planner.machine import SHARES, Machine
from smallpress.planner.rates import ARITHMETIC, LINK, MEMORY, Cost, times
from smallpress.planner.work import prompt_flops

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
        return cost, self._sent(n_rows, by_box=False) + 2 * self._sparse_layers() * HOP

    def prefill(self, n_tokens: float, n_prompt: float, n_cached: float = 0.0) -> Cost:
        """Prompts of `n_prompt` tokens, `n_cached` of each known before; `n_tokens` computed on a chip."""
        config, machine, shares = self.config, self.machine, SHARES[self.machine.kind]
        fresh = n_prompt - n_cached
        products = 2 * n_tokens * multiply_adds(config, 0) / (machine.peak("fp8") * shares.prompt)
        attention = prompt_flops(config, fresh, n_cached) - 2 * fresh * multiply_adds(config, 0)
        attending = n_tokens / fresh * attention / (machine.peak("bfloat16") * shares.attention)
        sending = self._sent(n_tokens, by_box=True)
        if sending > products + attending:
            return {LINK: sending}
        return {ARITHMETIC: products + attending}

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


def cache_room(fleet: Fleet, n_context: float) -> float:
    """How many sequences of that length a chip can hold beside its weights."""
    free = 0.9 * fleet.machine.memory * 1e9 - fleet.held()
    return max(0.0, free / (n_context * cache_bytes(fleet.config)))
