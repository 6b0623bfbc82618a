"""An engine over a loaded model, with room for what will be asked of it."""

from typing import TYPE_CHECKING, Literal

from smallpress.lowbit.native_core import native_core

if TYPE_CHECKING:
    from collections.abc import Callable

    from smallpress.engine.engine import Engine, Runner
    from smallpress.engine.native_runner import CacheFormat, Packing
    from smallpress.engine.prefix_units import Shelf
    from smallpress.model.config import ModelConfig
    from smallpress.model.transformer import Transformer
    from smallpress.weights.load import ModelFiles

NumberFormat = Literal["int4", "int8", "bfloat16", "float32"]
Auto = Literal["auto"]
Drafts = Literal["auto", "mtp", "ngram", "off"]
QUANTIZED: tuple[NumberFormat, ...] = ("int4", "int8")

PAGE_SIZE = 16  # tokens
BF16_FEATURES = {"amx_bf16", "avx512_bf16", "bf16"}
"""Processors that multiply bf16 in hardware; others are faster, and no less exact, in fp32."""
FEW = 8  # requests at once
SHARE_OF_MEMORY = 0.4
"""Of the free memory, at most, for keys and values; fewer pages mean that fewer requests run at once."""


def number_format(choice: NumberFormat | Auto = "auto") -> NumberFormat:
    """What to generate in. auto: 8 bits in the native core; without it, what torch multiplies fastest here."""
    from smallpress.run.errors import UserError
    from smallpress.run.machine import this_machine

    if choice in QUANTIZED and native_core() is None:
        raise UserError(
            f"{choice} needs the native core, and this installation has none", "install a C++ compiler, then smallpress"
        )
    if choice != "auto":
        return choice
    if native_core() is not None:
        return "int8"
    return "bfloat16" if BF16_FEATURES & set(this_machine().cpu_features) else "float32"


def open_engine(
    files: "ModelFiles",
    choice: NumberFormat | Auto,
    n_running: int,
    tokens_each: int,
    drafts: Drafts = "off",
    shelf_of: "Callable[[str], Shelf] | None" = None,
    cache: "CacheFormat" = "bfloat16",
) -> "Engine":
    """Room for `n_running` requests of `tokens_each` at once, or what memory allows of it.

    auto: where the native core is there, the bits of a 4-bit file for few requests, which wait for memory, and 8 for
    many, which wait for arithmetic. float32 is computed by torch, as is everything where there is no native core; the
    formats that torch lacks are then refused.
    `drafts`: what may follow is guessed ahead, which pays where few requests run: by the model's modules of multi-token
    prediction (mtp), or where text repeats itself (ngram); auto is the first where the model has them and they pay.
    `shelf_of` gives where the prefixes of this model are kept, by the form of a page. `cache`: what keys and values are
    kept in; torch keeps them in the format it computes in.
    """
    from smallpress.engine.drafts import PromptLookup, row_cost
    from smallpress.engine.engine import Engine
    from smallpress.engine.pages import page_bytes
    from smallpress.model.sizes import cache_bits
    from smallpress.run.errors import UserError
    from smallpress.run.machine import this_machine

    format = number_format(choice)
    if cache == "int8" and (format == "float32" or native_core() is None):
        raise UserError("a cache in int8 needs the native core, which has no float32", "leave --kv-cache-dtype out")
    free = this_machine().memory_free or 4 << 30
    modules = _by_modules(files.config, drafts)
    n_modules = files.config.mtp.n_modules if modules and files.config.mtp else 0
    bits = cache_bits(files.config, "float32" if format == "float32" else cache)
    page = page_bytes(files.config, PAGE_SIZE, bits, n_modules)

    def engine(runner: "Runner") -> Engine:
        return Engine(
            runner,
            n_running,
            drafter=PromptLookup if drafts in ("auto", "ngram") else None,
            shelf=shelf_of(runner.page_form) if shelf_of else None,
            row_cost=row_cost(files.config, modules),
        )

    n_pages = max(1, min(_n_pages(n_running, tokens_each), int(SHARE_OF_MEMORY * free) // page))
    if format != "float32" and native_core() is not None:
        from smallpress.engine.native_runner import NativeRunner

        packing: Packing = "stored" if choice == "auto" and n_running <= FEW else format
        return engine(NativeRunner.from_files(files, packing, PAGE_SIZE, n_pages, modules, cache))
    from smallpress.weights.load import load_transformer

    return engine(_torch_runner(load_transformer(files), format, n_pages, modules))


def _by_modules(config: "ModelConfig", drafts: Drafts) -> bool:
    from smallpress.engine.drafts import modules_pay

    if drafts == "mtp" and config.mtp is None:
        from smallpress.run.errors import UserError

        raise UserError("the model has no modules of multi-token prediction", "draft by ngram, or leave it to auto")
    return drafts == "mtp" or (drafts == "auto" and modules_pay(config))


def engine_over(model: "Transformer", format: NumberFormat, n_running: int, tokens_each: int) -> "Engine":
    """An engine for a model in training, over its own copy of the weights as they are now.

    Memory does not bound it: a run must go on bit for bit, so how many requests share a batch may not depend on the
    moment.
    """
    from smallpress.engine.engine import Engine

    n_pages = _n_pages(n_running, tokens_each)
    if format == "float32" or native_core() is None:
        return Engine(_torch_runner(model, format, n_pages), n_running)
    from smallpress.engine.native_runner import NativeRunner

    named = dict(model.named_parameters())
    return Engine(NativeRunner(model.config, named, PAGE_SIZE, n_pages, packing=format), n_running)


def _n_pages(n_running: int, tokens_each: int) -> int:
    return n_running * -(-tokens_each // PAGE_SIZE)


def _torch_runner(model: "Transformer", format: NumberFormat, n_pages: int, modules: bool = False) -> "Runner":
    import torch

    from smallpress.engine.torch_runner import TorchRunner

    return TorchRunner(model, PAGE_SIZE, n_pages, getattr(torch, format), modules)
