"""Training in 8 bits beside torch: `python bench/training8.py`, or a part of it: optimizer, linear.

optimizer: bytes of state a parameter, and the time of one step, at the shapes of SmolLM2-135M; beside torch's fused
AdamW in fp32, and bitsandbytes and torchao where they are installed. In turns, medians; a ratio is the other's time
over ours.

linear: forward and both gradients of the linear layers of SmolLM2-135M and of a model of 1B, in int8 with a scale for
128 columns and with one for each row, beside torch in bf16 and fp32. In turns, medians; a ratio is torch's time over
ours.
"""

import argparse
import importlib
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from statistics import median

import torch
from torch import nn

from smallpress.lowbit.linear8 import Arithmetic, linear8
from smallpress.lowbit.native_core import native_core
from smallpress.lowbit.product8 import SPAN, WHOLE_ROW, native_int8
from smallpress.optim.adamw8 import AdamW8

DIM, INTER, KV, VOCAB, N_LAYERS = 576, 1536, 192, 49152, 30
LAYER = [(DIM, DIM), (KV, DIM), (KV, DIM), (DIM, DIM), (INTER, DIM), (INTER, DIM), (DIM, INTER), (DIM,), (DIM,)]
SMOLLM2 = [(VOCAB, DIM), (DIM,), *(shape for _ in range(N_LAYERS) for shape in LAYER)]
"""The embedding, which is the head too, comes first."""

LINEARS = {"SmolLM2-135M": [(576, 576), (576, 1536), (1536, 576)], "1B": [(2048, 2048), (2048, 8192), (8192, 2048)]}
"""(columns, rows) of weights."""


def in_turns(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one call of each that is not counted."""
    laps: dict[str, list[float]] = {name: [] for name in sides}
    for lap in range(repeats + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            if lap:
                laps[name].append(time.perf_counter() - began)
    return {name: median(seconds) for name, seconds in laps.items()}


def optimizers(parameters: list[nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
    """All over the same parameters and gradients; the first is ours."""
    embedding, others = parameters[0], parameters[1:]
    found: dict[str, torch.optim.Optimizer] = {
        "8 bits": AdamW8([{"params": others}, {"params": [embedding], "moments": "float32"}]),
        "8 bits, the embedding too": AdamW8(parameters),
        "bf16 moments": AdamW8(parameters, moments="bfloat16"),
        "fp32 moments": AdamW8(parameters, moments="float32"),
        "torch fp32, fused": torch.optim.AdamW(parameters, fused=True),
    }
    for peer, module in (("bitsandbytes", "bitsandbytes.optim"), ("torchao", "torchao.optim")):
        try:
            found[f"{peer} 8 bits"] = importlib.import_module(module).AdamW8bit(parameters)
        except ImportError:
            print(f"{peer} is not installed")
    return found


def bytes_of(optimizer: torch.optim.Optimizer) -> int:
    tensors = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t) and t.ndim]
    parts = [part for tensor in tensors for part in parts_of(tensor)]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in parts}.values())


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """What a tensor of codes and scales is made of; any other itself."""
    names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
    return [getattr(tensor, name) for name in names] or [tensor]


def compare_optimizers(repeats: int) -> None:
    parameters = [nn.Parameter(0.02 * torch.randn(shape)) for shape in SMOLLM2]
    for parameter in parameters:
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    n = sum(parameter.numel() for parameter in parameters)
    sides = optimizers(parameters)
    seconds = in_turns({name: side.step for name, side in sides.items()}, repeats)
    print(f"AdamW over {n / 1e6:.1f}M parameters")
    for name, optimizer in sides.items():
        ratio = seconds[name] / seconds["8 bits, the embedding too"]
        size = f"{bytes_of(optimizer) / n:5.2f} bytes a parameter"
        print(f"  {name:26} {1e3 * seconds[name]:8.1f} ms  {ratio:6.2f} times ours  {size}")


def passes(x: torch.Tensor, weight: torch.Tensor, function: Callable[..., torch.Tensor]) -> Callable[[], None]:
    """Forward and backward, with both gradients."""
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    grad = torch.randn(len(x), len(weight)).to(x.dtype)

    def once() -> None:
        x.grad = weight.grad = None
        function(x, weight).backward(grad)

    return once


def compare_linears(n_tokens: int, repeats: int) -> None:
    if native_core() is None:
        return print("there is no native core: the int8 products are simulated, and not measured")
    for model, shapes in LINEARS.items():
        for columns, rows in shapes:
            x, weight = torch.randn(n_tokens, columns), torch.randn(rows, columns)
            sides = {
                "bf16": passes(x.bfloat16(), weight.bfloat16(), nn.functional.linear),
                "fp32": passes(x, weight, nn.functional.linear),
            }
            for name, span in (("int8, 128", SPAN), ("int8, rows", WHOLE_ROW)):
                arithmetic = Arithmetic.all_in(native_int8(span))
                sides[name] = passes(x.bfloat16(), weight.bfloat16(), _in(arithmetic))
            seconds = in_turns(sides, repeats)
            print(f"{model}: {n_tokens} tokens, {columns} to {rows}, forward and backward")
            for name, took in seconds.items():
                speed = 6 * n_tokens * columns * rows / took / 1e9
                ratios = ", ".join(f"{other} takes {seconds[other] / took:.2f} times it" for other in ("bf16", "fp32"))
                print(f"  {name:10} {1e3 * took:8.1f} ms  {speed:7.0f} GFLOP/s  {ratios}")


def _in(arithmetic: Arithmetic) -> Callable[..., torch.Tensor]:
    return lambda x, weight: linear8(x, weight, None, arithmetic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["optimizer", "linear"], help="optimizer, linear; none: both")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2048)
    options = parser.parse_args()
    core = native_core()
    kernels = core.best_kernels() if core else "none"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    print(
        f"{now}, {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, kernels {kernels}"
    )
    if "optimizer" in options.parts:
        compare_optimizers(options.repeats)
    if "linear" in options.parts:
        compare_linears(options.tokens, options.repeats)


if __name__ == "__main__":
    main()
