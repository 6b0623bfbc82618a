"""An engine over a loaded model, with room for what will be asked of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from smallpress.engine.engine import Engine, Runner
    from smallpress.model.transformer import Transformer

NumberFormat = Literal["int8", "bfloat16", "float32"]
Auto = Literal["auto"]

PAGE_SIZE = 16  # tokens
BF16_FEATURES = {"amx_bf16", "avx512_bf16", "bf16"}
"""Processors that multiply bf16 in hardware; others are faster, and no less exact, in fp32."""
SHARE_OF_MEMORY = 0.4
"""Of the free memory, at most, for keys and values; fewer pages mean that fewer requests run at once."""


def has_native_core() -> bool:
    """False where the package was built without a compiler; then torch does all."""
    try:
        import_module("smallpress._native")
    except ImportError:
        return False
    return True


def number_format(choice: NumberFormat | Auto = "auto") -> NumberFormat:
    """What to generate in. auto: 8 bits in the native core; without it, what torch multiplies fastest here."""
    from smallpress.run.errors import UserError
    from smallpress.run.machine import this_machine

    if choice == "int8" and not has_native_core():
        raise UserError("int8 needs the native core, and this installation has none", "install a C++ compiler, then it")
    if choice != "auto":
        return choice
    if has_native_core():
        return "int8"
    return "bfloat16" if BF16_FEATURES & set(this_machine().cpu_features) else "float32"


def open_engine(
    model: "Transformer", format: NumberFormat, n_running: int, tokens_each: int, bounded: bool = True
) -> "Engine":
    """Room for `n_running` requests of `tokens_each` at once, or what memory allows of it where `bounded`.

    A run that must go on bit for bit is not bounded: how many requests share a batch may not depend on the moment.
    """
    import torch

    from smallpress.engine.engine import Engine
    from smallpress.engine.torch_runner import page_bytes
    from smallpress.run.machine import this_machine

    n_pages = n_running * -(-tokens_each // PAGE_SIZE)
    if bounded:
        free = this_machine().memory_free or 4 << 30
        cached_in = torch.float32 if format == "float32" else torch.bfloat16
        n_pages = min(n_pages, int(SHARE_OF_MEMORY * free) // page_bytes(model.config, PAGE_SIZE, cached_in))
    return Engine(_runner(model, format, max(1, n_pages)), n_running)


def _runner(model: "Transformer", format: NumberFormat, n_pages: int) -> "Runner":
    import torch

    if format == "int8":
        from smallpress.engine.native_runner import NativeRunner

        return NativeRunner(model.config, dict(model.named_parameters()), PAGE_SIZE, n_pages)
    from smallpress.engine.torch_runner import TorchRunner

    return TorchRunner(model, PAGE_SIZE, n_pages, getattr(torch, format))
