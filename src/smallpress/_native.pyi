"""The C++ core; see native/bindings.cpp."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

class Model:
    def __init__(
        self,
        *,
        dim: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        inter_dim: int,
        vocab_size: int,
        norm_eps: float,
        rope_theta: float,
        tied_head: bool,
        n_pages: int,
        page_size: int,
        n_threads: int,
        kernels: str = "",
    ) -> None: ...
    @property
    def kernels(self) -> str: ...
    def set(self, name: str, values: Floats) -> None: ...
    def copy_page(self, source: int, target: int) -> None: ...
    def forward(self, ids: Ids, positions: Ids, tables: Ids, starts: Ids, logit_rows: Ids) -> None: ...
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
def quantize(kernels: str, x: Floats) -> tuple[NDArray[np.int8], Floats, NDArray[np.int32]]: ...
def product_q8(kernels: str, x: Floats, w: Floats, add: bool = False) -> Floats: ...
def rms_norm(kernels: str, x: Floats, weight: Floats, eps: float) -> Floats: ...
def swiglu(kernels: str, gate: Floats, up: Floats) -> Floats: ...
def attend(kernels: str, q: Floats, k: Floats, v: Floats, page_size: int) -> Floats: ...
def weigh(kernels: str, x: Floats, temperature: float) -> tuple[float, Floats, float]: ...
