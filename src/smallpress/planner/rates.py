"""How fast one machine is, as a planner needs it: seconds for a unit of each kind of work.

A catalogued machine is a roofline: the longer of bytes over bandwidth and operations over peak, each times the share of
it that programs reach (`Shares`, one set for each class of machine). This machine is measured: short runs of the very
kernels that a run will use (probe.py).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from smallpress.planner.machine import SHARES, Machine, Shares

MEMORY, ARITHMETIC, LINK, BUBBLE, OVERHEAD = "memory", "arithmetic", "link", "pipeline bubble", "overhead"

BITS: dict[str, float] = {"int4": 4.5, "int8": 8.5, "fp8": 8.0, "bfloat16": 16.0, "float32": 32.0}
"""A weight's bits with its scales, as a GGUF's Q4_0 and Q8_0 have them and DeepSeek-V3's FP8."""

MULTIPLIED_IN: dict[str, str] = {"int4": "int8", "int8": "int8", "fp8": "fp8"}
"""What a weight of that format is multiplied in; the others in their own."""

Cost = dict[str, float]
"""Seconds by what they wait for."""


def plus(*costs: Cost) -> Cost:
    """
    >>> plus({"memory": 1.0}, {"memory": 2.0, "link": 0.5})
    {'memory': 3.0, 'link': 0.5}
    """
    total: Cost = {}
    for cost in costs:
        for cause, seconds in cost.items():
            total[cause] = total.get(cause, 0.0) + seconds
    return total


def times(n: float, cost: Cost) -> Cost:
    return {cause: n * seconds for cause, seconds in cost.items()}


class Rates(Protocol):
    """Costs of one chip, or of all cores of one processor."""

    def products(self, n_weights: float, n_rows: float, format: str, n_read: float | None = None) -> Cost:
        """`n_rows` vectors times matrices of `n_weights` numbers in generation. `n_read`: how many of the numbers are
        read from memory, where it is not each once, as with experts."""
        ...

    def decode_attention(self, cache_bytes: float, multiply_adds: float) -> Cost: ...
    def prompt_attention(self, multiply_adds: float) -> Cost: ...
    def step_overhead(self, n_layers: int, n_drawn: float, vocab_size: int, n_values: float) -> Cost:
        """What a step of generation takes beside its products: scheduling, starting layers, drawing `n_drawn` tokens,
        and norms, rotations and activations, which make `n_values` numbers."""
        ...

    def training_products(self, multiply_adds: float, dtype: str, backward: str = "same") -> Cost:
        """Forward and both gradients; those in 8 bits where `backward` is "int8" and the machine does so."""
        ...

    def head_products(self, multiply_adds: float, dtype: str) -> Cost: ...
    def training_attention(self, multiply_adds: float, dtype: str) -> Cost: ...
    def passes_over(self, n_bytes: float, dtype: str) -> Cost:
        """Everything between the products of training: norms, activations, rotations; bytes read and written."""
        ...

    def optimizer_step(self, n_parameters: float, n_bytes: float, optimizer: str) -> Cost: ...
    def hand_over(self, n_parameters: float, format: str) -> Cost:
        """New weights into the engine's format."""
        ...


@dataclass(frozen=True, slots=True)
class Roofline:
    machine: Machine

    @property
    def shares(self) -> Shares:
        return SHARES[self.machine.kind]

    def products(self, n_weights: float, n_rows: float, format: str, n_read: float | None = None) -> Cost:
        reading = (n_weights if n_read is None else n_read) * BITS[format] / 8 / self._bandwidth
        precision = MULTIPLIED_IN.get(format, format)
        return _longer(reading, 2 * n_weights * n_rows / (self.machine.peak(precision) * self.shares.prompt))

    def decode_attention(self, cache_bytes: float, multiply_adds: float) -> Cost:
        return {MEMORY: cache_bytes / self._bandwidth}

    def prompt_attention(self, multiply_adds: float) -> Cost:
        return self._arithmetic(multiply_adds, "bfloat16", self.shares.attention)

    def step_overhead(self, n_layers: int, n_drawn: float, vocab_size: int, n_values: float) -> Cost:
        return {OVERHEAD: self.shares.layer_seconds * n_layers, MEMORY: 4 * n_values / self._bandwidth}

    def training_products(self, multiply_adds: float, dtype: str, backward: str = "same") -> Cost:
        shares = self.shares
        reached = shares.training_fp8 if dtype == "fp8" else shares.training
        if backward == "same" or self.machine.kind != "processor":
            return self._arithmetic(multiply_adds, dtype, reached)
        forward, gradients = multiply_adds / 3, multiply_adds * 2 / 3
        return plus(self._arithmetic(forward, dtype, reached), self._arithmetic(gradients, "int8", reached))

    head_products = training_products

    def training_attention(self, multiply_adds: float, dtype: str) -> Cost:
        return self._arithmetic(multiply_adds, "bfloat16", self.shares.attention)

    def passes_over(self, n_bytes: float, dtype: str) -> Cost:
        return {MEMORY: n_bytes / self._bandwidth}

    def optimizer_step(self, n_parameters: float, n_bytes: float, optimizer: str) -> Cost:
        return {MEMORY: n_bytes / self._bandwidth}

    def hand_over(self, n_parameters: float, format: str) -> Cost:
        return {MEMORY: n_parameters * (4 + BITS[format] / 8) / self._bandwidth}

    @property
    def _bandwidth(self) -> float:
        return 1e9 * (self.machine.reads or self.machine.bandwidth * self.shares.bandwidth)

    def _arithmetic(self, multiply_adds: float, precision: str, reached: float) -> Cost:
        return {ARITHMETIC: 2 * multiply_adds / (self.machine.peak(precision) * reached)}


@dataclass(frozen=True, slots=True)
class Measured:
    """By short runs here; see probe.py for what each number is. `logit` is of one thread; `threads` share the rows."""

    threads: int
    bandwidth: float
    by_rows: dict[str, list[list[float]]]  # format -> [rows, seconds a weight], rows ascending
    layer: float
    value: float
    attention_byte: float
    attention_step: float
    attention_multiply_add: float
    logit: float
    step: float
    row: float
    training: dict[str, dict[str, float]]  # dtype -> seconds a unit of block, block_int8, head, attention
    optimizers: dict[str, float]
    pack: dict[str, float]

    def products(self, n_weights: float, n_rows: float, format: str, n_read: float | None = None) -> Cost:
        seconds = n_weights * interpolated(self.by_rows[format], n_rows)
        reading = n_weights * BITS[format] / 8 / self.bandwidth
        return {MEMORY: min(reading, seconds), ARITHMETIC: max(0.0, seconds - reading)}

    def decode_attention(self, cache_bytes: float, multiply_adds: float) -> Cost:
        return {MEMORY: cache_bytes * self.attention_byte, ARITHMETIC: multiply_adds * self.attention_step}

    def prompt_attention(self, multiply_adds: float) -> Cost:
        return {ARITHMETIC: multiply_adds * self.attention_multiply_add}

    def step_overhead(self, n_layers: int, n_drawn: float, vocab_size: int, n_values: float) -> Cost:
        drawing = n_drawn * self.row + max(1.0, n_drawn / self.threads) * self.logit * vocab_size
        return {OVERHEAD: self.step + self.layer * n_layers + drawing, ARITHMETIC: n_values * self.value}

    def training_products(self, multiply_adds: float, dtype: str, backward: str = "same") -> Cost:
        return {ARITHMETIC: multiply_adds * self.training[dtype]["block" if backward == "same" else "block_int8"]}

    def head_products(self, multiply_adds: float, dtype: str) -> Cost:
        return {ARITHMETIC: multiply_adds * self.training[dtype]["head"]}

    def training_attention(self, multiply_adds: float, dtype: str) -> Cost:
        return {ARITHMETIC: multiply_adds * self.training[dtype]["attention"]}

    def passes_over(self, n_bytes: float, dtype: str) -> Cost:
        return {}  # measured with the products of a block

    def optimizer_step(self, n_parameters: float, n_bytes: float, optimizer: str) -> Cost:
        return {MEMORY: n_parameters * self.optimizers[optimizer]}

    def hand_over(self, n_parameters: float, format: str) -> Cost:
        return {MEMORY: n_parameters * self.pack[format]}


def interpolated(points: list[list[float]], x: float) -> float:
    """Straight between neighbours; in proportion to x beyond the last.

    >>> interpolated([[1, 2.0], [4, 5.0]], 2), interpolated([[1, 2.0], [4, 4.0]], 8)
    (3.0, 8.0)
    """
    if x <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return points[-1][1] * x / points[-1][0]


def _longer(reading: float, multiplying: float) -> Cost:
    return {MEMORY: reading} if reading >= multiplying else {ARITHMETIC: multiplying}
