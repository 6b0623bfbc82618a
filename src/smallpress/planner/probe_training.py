"""What learning takes here, as JSON on standard output: python -m smallpress.planner.probe_training

Seconds a multiply-add of forward and backward together in the layers, at the head and in attention, in each dtype;
seconds a parameter of each optimizer and of handing new weights to the engine; bytes that torch's process holds.
"""

import json
from functools import partial
from typing import Any

from smallpress.planner.measure import FORMATS, WIDE, typical
from smallpress.run.machine import peak_resident

N_TOKENS, N_ROWS, SHORT = 512, 128, 64
CONFIG = WIDE.model_copy(update={"n_layers": 2, "vocab_size": 16_384})


def main() -> None:
    import torch

    import smallpress.rl.trainer
    import smallpress.weights.load  # noqa: F401

    program = peak_resident()
    rates = {name: _rates(getattr(torch, name)) for name in ("float32", "bfloat16")}
    optimizers = {name: _optimizer(name) for name in ("adamw", "adamw8")}
    print(json.dumps({"rates": rates, "optimizers": optimizers, "pack": _pack(), "program": program}))


def _rates(dtype: Any) -> dict[str, float]:
    import torch

    from smallpress.lowbit.linear8 import set_backward
    from smallpress.model.attention import Group, PackedCausal, TokenTree
    from smallpress.model.token_logprobs import token_logprobs
    from smallpress.model.transformer import Transformer, init_weights
    from smallpress.planner.work import _attention_multiply_adds, n_products

    model = Transformer(CONFIG)
    init_weights(model, 0.02, 0)
    model = model.to(dtype)
    ids = torch.zeros(N_TOKENS, dtype=torch.long)

    def layers(n_each: int) -> float:
        tree = TokenTree(tuple(Group(n_each) for _ in range(N_TOKENS // n_each)))
        attend, positions = PackedCausal(tree, dtype), tree.positions()

        def work() -> None:
            model(ids, positions, attend).sum().backward()

        return typical(work)

    def at_head() -> None:
        hidden = torch.ones(N_ROWS, CONFIG.dim, dtype=dtype, requires_grad=True)
        token_logprobs(hidden, model.head_weight, ids[:N_ROWS])[0].sum().backward()

    short, long = layers(SHORT), layers(N_TOKENS)
    set_backward("int8", model.layers)
    in_8_bits = layers(SHORT)
    shorts = 3 * _attention_multiply_adds(CONFIG, SHORT, 0) * N_TOKENS / SHORT
    longs = 3 * _attention_multiply_adds(CONFIG, N_TOKENS, 0)
    attention = max(1e-13, (long - short) / (longs - shorts))
    block, block_int8 = (
        max(1e-13, (seconds - attention * shorts) / (3 * N_TOKENS * n_products(CONFIG)))
        for seconds in (short, in_8_bits)
    )
    head = typical(at_head) / (3 * N_ROWS * CONFIG.vocab_size * CONFIG.dim)
    return {"block": block, "block_int8": block_int8, "head": head, "attention": attention}


def _optimizer(choice: Any) -> float:
    """Cut, step, and round into the copy that computes."""
    import torch

    from smallpress.model.transformer import Transformer
    from smallpress.optim.master import MasterWeights

    weights = MasterWeights(Transformer(CONFIG), torch.bfloat16, optimizer=choice)

    def step() -> None:
        for parameter in weights.master.values():
            parameter.grad = torch.ones_like(parameter)
        weights.step(1e-5, 1.0)

    return typical(step) / sum(parameter.numel() for parameter in weights.master.values())


def _pack() -> dict[str, float]:
    from smallpress.lowbit.native_core import native_core

    if native_core() is None:
        return {}
    from smallpress.engine.native_runner import NativeRunner
    from smallpress.model.transformer import Transformer

    model = Transformer(CONFIG)
    named, n = dict(model.named_parameters()), sum(parameter.numel() for parameter in model.parameters())
    found: dict[str, float] = {}
    for format in FORMATS:
        runner = NativeRunner(CONFIG, named, 16, 16, packing=format)
        found[format] = typical(partial(runner.update_weights, named), 2) / n
    return found


if __name__ == "__main__":
    main()
