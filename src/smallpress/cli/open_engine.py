"""An engine over a loaded model, with room for what will be asked of it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from smallpress.engine.engine import Engine
    from smallpress.model.transformer import Transformer

PAGE_SIZE = 16  # tokens
BF16_FEATURES = {"amx_bf16", "avx512_bf16", "bf16"}
"""Processors that multiply bf16 in hardware; others are faster, and no less exact, in fp32."""
SHARE_OF_MEMORY = 0.4
"""Of the free memory, at most, for keys and values; fewer pages mean that fewer requests run at once."""


def engine_dtype(name: str = "auto") -> "torch.dtype":
    """The number format to generate in; auto: what this processor multiplies fastest."""
    import torch

    from smallpress.run.machine import this_machine

    if name == "auto":
        name = "bfloat16" if BF16_FEATURES & set(this_machine().cpu_features) else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def open_engine(
    model: "Transformer", dtype: "torch.dtype", n_running: int, tokens_each: int, bounded: bool = True
) -> "Engine":
    """Room for `n_running` requests of `tokens_each` at once, or what memory allows of it where `bounded`.

    A run that must go on bit for bit is not bounded: how many requests share a batch may not depend on the moment.
    """
    from smallpress.engine.engine import Engine
    from smallpress.engine.torch_runner import TorchRunner, page_bytes
    from smallpress.run.machine import this_machine

    n_pages = n_running * -(-tokens_each // PAGE_SIZE)
    if bounded:
        free = this_machine().memory_free or 4 << 30
        n_pages = min(n_pages, int(SHARE_OF_MEMORY * free) // page_bytes(model.config, PAGE_SIZE, dtype))
    return Engine(TorchRunner(model, PAGE_SIZE, max(1, n_pages), dtype), n_running)
