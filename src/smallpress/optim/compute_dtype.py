"""What the passes of a training run compute in on this machine."""

import time

import torch


def compute_dtype(choice: str) -> torch.dtype:
    """ "auto" is what this machine multiplies faster, measured on one product of the update's shape."""
    if choice != "auto":
        return torch.bfloat16 if choice == "bfloat16" else torch.float32
    seconds = {dtype: _seconds_of_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(seconds, key=lambda dtype: seconds[dtype])


def _seconds_of_product(dtype: torch.dtype) -> float:
    a, b = torch.ones(512, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    laps = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        laps.append(time.perf_counter() - began)
    return min(laps)
