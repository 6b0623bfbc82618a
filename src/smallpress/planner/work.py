"""What the pieces of work cost on one machine: a prompt, a step of decoding, a micro-batch learned from."""

import math
from dataclasses import dataclass

from smallpress.model.config import GQA, MLA, Dense, ModelConfig, MoE
from smallpress.model.sizes import cache_bytes, forward_flops, multiply_adds, parameters
from smallpress.planner.lengths import Lengths
from smallpress.planner.memory import WIDTH, activation_bytes
from smallpress.planner.rates import Cost, Rates, plus, times

PASSES = 6
"""How often what a layer keeps is passed over between its products: written and read forward, read backward, its
gradient written and read, and once for what is not kept."""


def n_products(config: ModelConfig) -> float:
    """Multiply-adds of the matrices a token meets, without the head."""
    return multiply_adds(config, 0) - config.vocab_size * config.dim


def values_between(config: ModelConfig) -> float:
    """Numbers that one token's layers make between their products: norms, what they are rounded to, q, k, v turned,
    attention's output, gate, up and what comes of them."""
    attention, ffn = config.attention, config.ffn
    width = (
        ffn.inter_dim if isinstance(ffn, Dense) else (ffn.n_active_experts + ffn.n_shared_experts) * ffn.moe_inter_dim
    )
    heads = attention.n_heads * (attention.head_dim if isinstance(attention, GQA) else attention.qk_head_dim)
    cached = math.prod(attention.cache_shape)
    return config.n_layers * (4.0 * config.dim + 2 * heads + cached + 4 * width)


def n_weights_read(config: ModelConfig, n_rows: float) -> float:
    """Numbers of the layers' matrices that a step of `n_rows` tokens reads: of the experts those that at least one
    token is routed to, taking the choices as even and independent."""
    sizes, ffn = parameters(config), config.ffn
    layers = sizes.total - config.vocab_size * config.dim * (1 if config.tied_head else 2)
    if not isinstance(ffn, MoE):
        return layers
    n_sparse = config.n_layers - len(ffn.dense_layers)
    experts = n_sparse * ffn.n_routed_experts * 3.0 * config.dim * ffn.moe_inter_dim
    met = 1 - (1 - ffn.n_active_experts / ffn.n_routed_experts) ** n_rows
    return layers - experts * (1 - met)


@dataclass(frozen=True, slots=True)
class Generating:
    """A model in the format it generates in, on a machine. `head_format`: in int4 the head keeps 8 bits."""

    config: ModelConfig
    rates: Rates
    format: str

    @property
    def head_format(self) -> str:
        return "int8" if self.format == "int4" else self.format

    def step(self, n_rows: float, n_context: float) -> Cost:
        """One token of each of `n_rows` sequences that hold `n_context` tokens on the average."""
        config, rates = self.config, self.rates
        head = config.vocab_size * config.dim
        bits = 32 if self.format == "float32" else 16
        seen = n_rows * _cache_read(config, n_context, bits)
        return plus(
            rates.products(n_products(config), n_rows, self.format, n_weights_read(config, n_rows)),
            rates.products(head, n_rows, self.head_format),
            rates.decode_attention(seen, n_rows * (multiply_adds(config, n_context) - multiply_adds(config, 0))),
            rates.step_overhead(config.n_layers, n_rows, config.vocab_size, n_rows * values_between(config)),
        )

    def prompt(self, n_tokens: float, n_before: float = 0.0, n_ends: float = 1.0) -> Cost:
        """Prompts of `n_tokens` together after `n_before` each; `n_ends` of them give a first token."""
        config, rates = self.config, self.rates
        each = n_tokens / n_ends
        attention = _attention_multiply_adds(config, each, n_before) * n_ends
        return plus(
            rates.products(n_products(config), n_tokens, self.format, n_weights_read(config, n_tokens)),
            rates.products(config.vocab_size * config.dim, n_ends, self.head_format),
            rates.prompt_attention(attention),
            rates.step_overhead(config.n_layers, n_ends, config.vocab_size, n_tokens * values_between(config)),
        )

    def answers(self, n_sequences: float, n_prompt: float, lengths: Lengths, most_running: float) -> Cost:
        """All of them decoded. Where more are asked than can run, the places are kept full until the last round."""
        rounds = max(1.0, n_sequences / most_running)
        running = n_sequences / rounds
        total: Cost = {}
        for n_steps, share, place in lengths.stretches():
            total = plus(total, times(n_steps, self.step(max(1.0, running * share), n_prompt + place)))
        if rounds == 1.0:
            return total
        full = times(lengths.mean, self.step(running, n_prompt + lengths.mean_square / (2 * lengths.mean)))
        return plus(times(rounds - 1, full), total)


@dataclass(frozen=True, slots=True)
class Learning:
    """A model under training in `dtype`, its gradients of linear layers in `backward`, on one machine."""

    config: ModelConfig
    rates: Rates
    dtype: str
    backward: str = "same"

    def tokens(
        self, n_tokens: float, n_predicted: float, n_sequences: float, n_before: float = 0.0, products: float = 3.0
    ) -> Cost:
        """Forward and backward of `n_tokens` in `n_sequences` parts that see `n_before` others besides themselves;
        `n_predicted` of them meet the head. `products` with each weight: forward, gradient of the inputs, gradient of
        the weight; without the last where it is frozen."""
        config, rates, dtype = self.config, self.rates, self.dtype
        each = n_tokens / max(1.0, n_sequences)
        attention = _attention_multiply_adds(config, each, n_before) * n_sequences
        kept = activation_bytes(config, n_tokens, "bfloat16" if dtype == "fp8" else dtype)
        return plus(
            rates.training_products(products * n_tokens * n_products(config), dtype, self.backward),
            rates.head_products(products * n_predicted * config.vocab_size * config.dim, _not_fp8(dtype)),
            rates.training_attention(3 * attention, _not_fp8(dtype)),
            rates.passes_over(PASSES * kept, dtype),
        )

    def update(self, optimizer: str, total: float) -> Cost:
        """AdamW on so many weights."""
        moments = {"adamw": 8, "adamw8": 2, "adamw16": 4}[optimizer]
        return self.rates.optimizer_step(total, total * (2 * (4 + moments) + 4 + WIDTH[self.dtype]), optimizer)


def with_mtp(config: ModelConfig, at_work: Learning, n_tokens: float, seq_len: int) -> Cost:
    """A micro-batch forward and backward; every module of multi-token prediction is a layer, a projection of two
    widths into one, and the head once more."""
    n_sequences = n_tokens / seq_len
    cost = at_work.tokens(n_tokens, n_tokens, n_sequences)
    if config.mtp is None:
        return cost
    extra = config.mtp.n_modules / config.n_layers
    with_heads = at_work.tokens(n_tokens, n_tokens * (1 + config.mtp.n_modules), n_sequences)
    layers = at_work.tokens(n_tokens, 0, n_sequences)
    return {cause: with_heads.get(cause, 0.0) + extra * layers.get(cause, 0.0) for cause in with_heads}


def prompt_flops(config: ModelConfig, n_tokens: float, n_before: float = 0.0) -> float:
    return forward_flops(config, round(n_tokens), round(n_before))


def _attention_multiply_adds(config: ModelConfig, n_tokens: float, n_before: float) -> float:
    """Of one sequence's new tokens with all they see, MLA in its plain form."""
    n = round(n_tokens)
    both = forward_flops(config, n, round(n_before)) / 2
    return both - n * multiply_adds(config, 0)


def _cache_read(config: ModelConfig, n_context: float, bits: int) -> float:
    """Bytes a token reads of its own sequence's cache."""
    if isinstance(config.attention, MLA) or config.attention.window is None:
        return cache_bytes(config, 1, bits) * n_context
    each = cache_bytes(config, 1, bits) / config.n_layers
    return each * sum(min(n_context, config.window_of(layer) or n_context) for layer in range(config.n_layers))


def _not_fp8(dtype: str) -> str:
    return "bfloat16" if dtype == "fp8" else dtype
