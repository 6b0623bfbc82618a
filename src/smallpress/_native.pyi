"""The C++ core; see native/bindings.cpp."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ids = NDArray[np.int64]

class Model:
    def __init__(
        self,
        config: dict[str, Any],
        *,
        n_pages: int,
        page_size: int,
        n_threads: int,
        kernels: str = "",
        eight_bit_cache: bool = False,
    ) -> None: ...
    @property
    def kernels(self) -> str: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    def set(self, name: str, values: Floats, bits: int = 8) -> None: ...
    def set_blocks(self, name: str, format: str, rows: Bytes) -> None: ...
    @property
    def page_bytes(self) -> int: ...
    def copy_page(self, source: int, target: int) -> None: ...
    def read_pages(self, pages: Ids, into: Bytes) -> None: ...
    def write_pages(self, pages: Ids, rows: Bytes) -> None: ...
    def add_adapter(self) -> int: ...
    def set_low_rank(self, adapter: int, name: str, a: Floats, b: Floats) -> None: ...
    def forward(
        self, ids: Ids, positions: Ids, tables: Ids, starts: Ids, logit_rows: Ids, adapters: Ids | None = None
    ) -> None: ...
    def predict(
        self, k: int, before: Floats, ids: Ids, positions: Ids, tables: Ids, starts: Ids, logit_rows: Ids
    ) -> None: ...
    def hidden(self) -> Floats: ...
    def sample(
        self,
        rows: Sequence[int],
        temperatures: Sequence[float],
        top_k: Sequence[int],
        top_p: Sequence[float],
        min_p: Sequence[float],
        uniforms: Sequence[float],
    ) -> tuple[list[int], list[float]]: ...
    def logits(self) -> Floats: ...
    def reset(self) -> None: ...

def can_run(kernels: str) -> bool: ...
def best_kernels() -> str: ...
def packed_bits(format: str) -> int: ...

class Panels:
    def numbers(self) -> Floats: ...

def pack(kernels: str, weight: Floats, bits: int = 8) -> Panels: ...
def regroup(format: str, rows: Bytes) -> Panels: ...
def decode(format: str, rows: Bytes) -> Floats: ...
def product(kernels: str, x: Floats, panels: Panels, add: bool = False) -> Floats: ...
def quantize(kernels: str, x: Floats, bits: int = 8) -> tuple[NDArray[np.int32], float, Floats]: ...
def rms_norm(kernels: str, x: Floats, weight: Floats, eps: float) -> Floats: ...
def swiglu(kernels: str, gate: Floats, up: Floats) -> Floats: ...
def attend(kernels: str, q: Floats, k: Floats, v: Floats, page_size: int, eight_bits: bool = False) -> Floats: ...
def weigh(kernels: str, x: Floats, temperature: float) -> tuple[float, Floats, float]: ...
def read_bandwidth(n_threads: int) -> float: ...
def multiply_adds(kernels: str, n_threads: int) -> float: ...

class DynamicMap:
    def __init__(self, values: Floats, has_sign: bool) -> None: ...

Codes = NDArray[np.uint8]
Moment = Floats | NDArray[np.uint16] | Codes
AdamWRow = tuple[Floats, Floats, Moment, Floats | None, Moment, Floats | None]

def adamw(
    n_threads: int,
    first_map: DynamicMap,
    second_map: DynamicMap,
    tensors: Sequence[AdamWRow],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    shrink: float,
    stride: float,
    correction: float,
    kernels: str = "",
) -> None: ...

Numbers = Floats | NDArray[np.uint16]

def tree_attention(
    n_threads: int,
    segments: NDArray[np.int64],
    q: Floats,
    k: Floats,
    v: Floats,
    scale: float,
    out: Floats,
    lse: Floats,
    kernels: str = "",
) -> None: ...
def tree_attention_backward(
    n_threads: int,
    segments: NDArray[np.int64],
    q: Floats,
    k: Floats,
    v: Floats,
    scale: float,
    out: Floats,
    lse: Floats,
    gradient: Floats,
    q_gradient: Floats,
    k_gradient: Floats,
    v_gradient: Floats,
    kernels: str = "",
) -> None: ...
def product_8bit(
    n_threads: int, left: Numbers, right: Numbers, columns: int, right_by_rows: bool, out: Numbers, kernels: str = ""
) -> None: ...
