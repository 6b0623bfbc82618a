"""The native runner: the whole step in the C++ core, weights in 8 or 4 bits, no vocabulary-wide array in Python."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from smallpress import _native
from smallpress.engine.batch import Batch
from smallpress.engine.named_weights import DAMAGED, broken_logits, check_adapted, check_names_and_shapes
from smallpress.engine.native_config import native_config
from smallpress.engine.randomness import uniforms
from smallpress.engine.request import SamplingParams
from smallpress.model.config import MLA, ModelConfig
from smallpress.model.shapes import tensor_shapes
from smallpress.run.errors import UserError
from smallpress.weights.adapter import Adapter
from smallpress.weights.load import ModelFiles

Packing = Literal["stored", "int4", "int8", "bfloat16"]
"""stored: 4 bits where the file has so few, with its own codes, else 8. In int4 embedding and head keep 8."""

CacheFormat = Literal["bfloat16", "int8"]
"""Of keys and values; int8: codes with an fp32 scale for each token of a head. Latents are kept in bfloat16."""

BITS: dict[Packing, int] = {"int4": 4, "int8": 8, "bfloat16": 16}

LET_GO_AFTER = 1 << 24
"""Weights read; more would stand in memory twice, as the file has them and packed."""

IN_FP32 = ("attn.kv_b.weight", "mlp.router.weight")
"""Matrices that the core wants as numbers: it turns a part of the one, and keeps the other as it is."""


def n_threads() -> int:
    """As many as this process may use: OMP_NUM_THREADS where it is set, as for torch."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class NativeRunner:
    """Runs batches on its own packed copy of the weights; `kernels` chooses the instruction set, for tests."""

    packing: Packing

    def __init__(
        self,
        config: ModelConfig,
        named: Mapping[str, Any],
        page_size: int = 16,
        n_pages: int = 4096,
        kernels: str = "",
        packing: Packing = "int8",
        modules: bool = False,
        cache: CacheFormat = "bfloat16",
    ):
        """`named`: fp32 arrays or torch tensors by the names of `Transformer.named_parameters()`. `modules`: those of
        multi-token prediction are there too, to draft."""
        self._begin(config, page_size, n_pages, kernels, modules, cache)
        self.packing, self.bits = packing, BITS[packing]
        self.update_weights(named)

    @classmethod
    def from_files(
        cls,
        files: ModelFiles,
        packing: Packing = "stored",
        page_size: int = 16,
        n_pages: int = 4096,
        modules: bool = False,
        cache: CacheFormat = "bfloat16",
    ) -> Self:
        """The weights of a model on disk, each read when its turn comes."""
        runner = cls.__new__(cls)
        runner._begin(files.config, page_size, n_pages, "", modules, cache)
        runner.packing, runner.bits = packing, BITS.get(packing, 8)
        n_read = 0
        for name in filter(runner._is_run, runner.shapes):
            runner._take(files, name, packing)
            n_read += math.prod(runner.shapes[name])
            if n_read > LET_GO_AFTER:
                files.let_go()
                n_read = 0
        files.let_go()
        return runner

    def _begin(
        self, config: ModelConfig, page_size: int, n_pages: int, kernels: str, modules: bool, cache: CacheFormat
    ) -> None:
        if cache == "int8" and isinstance(config.attention, MLA):
            raise UserError("latent attention keeps its cache in bfloat16", "leave the cache's format out")
        self.config, self.page_size, self.n_pages, self.vocab_size = config, page_size, n_pages, config.vocab_size
        self.max_seq_len = config.max_seq_len
        self.shapes = tensor_shapes(config)
        self.n_modules = config.mtp.n_modules if modules and config.mtp else 0
        self.core = _native.Model(
            native_config(config, self.n_modules),
            n_pages=n_pages,
            page_size=page_size,
            n_threads=n_threads(),
            kernels=kernels,
            eight_bit_cache=cache == "int8",
        )
        self.cache_format = cache

    def _take(self, files: ModelFiles, name: str, packing: Packing) -> None:
        in_vocabulary = name in ("embed.weight", "head.weight")
        bits = 8 if packing == "stored" or (packing == "int4" and in_vocabulary) else BITS[packing]
        if len(self.shapes[name]) == 1 or name.endswith(IN_FP32):
            return self._set(name, files.read(name), bits)
        (format, rows), n_rows = files.stored(name), math.prod(self.shapes[name][:-1])
        if _native.packed_bits(format) == bits or (packing == "stored" and _native.packed_bits(format)):
            with _finite(name):
                self.core.set_blocks(name, format, np.ascontiguousarray(rows.reshape(n_rows, -1)))
        else:
            self._set(name, files.read(name), bits)

    def _set(self, name: str, values: NDArray[np.float32], bits: int) -> None:
        """A stack as the rows of all its matrices."""
        rows = values if values.ndim < 3 else values.reshape(-1, values.shape[-1])
        with _finite(name):
            self.core.set(name, np.ascontiguousarray(rows, dtype=np.float32), bits)

    def reset(self) -> None:
        """Forget all keys and values."""
        self.core.reset()

    @property
    def page_bytes(self) -> int:
        return self.core.page_bytes

    @property
    def page_form(self) -> str:
        page = f"{self.page_size} tokens in {self.page_bytes} bytes of {self.cache_format}"
        return f"native {self.core.kernels}, weights {self.packing}, {page}"

    def read_pages(self, pages: Sequence[int]) -> NDArray[np.uint8]:
        """[len(pages), page_bytes]: keys and values of all layers, for a runner of the same `page_form` and weights."""
        rows = np.empty((len(pages), self.page_bytes), dtype=np.uint8)
        self.core.read_pages(np.array(pages, dtype=np.int64), rows)
        return rows

    def write_pages(self, pages: Sequence[int], rows: NDArray[np.uint8]) -> None:
        self.core.write_pages(np.array(pages, dtype=np.int64), rows)

    def run(self, batch: Batch) -> None:
        """One forward pass; the core keeps the logits of `batch.logit_rows_R` for `sample`."""
        for source, target in batch.copies:
            self.core.copy_page(source, target)
        for page, content in batch.loads:
            self.write_pages([page], content[None])
        tables, starts = _tables(batch)
        self.core.forward(batch.ids_N, batch.positions_N, tables, starts, batch.logit_rows_R, batch.adapters_N)

    def hidden(self) -> NDArray[np.float32]:
        """[N, M]: the last step's rows after the final norm, where the runner has modules."""
        return self.core.hidden()

    def predict(
        self, k: int, before_NM: NDArray[np.float32], batch: Batch, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], list[int]]:
        """Module k over the tokens of `batch`, whose keys and values go to the same slots: its hidden states [N, M] and
        the likeliest id after the token of each of `rows`, -1 where its logits are broken. Without `rows`, the logits
        of the last step stay. `before_NM`: see `Transformer.predict_further`."""
        before_NM = np.ascontiguousarray(before_NM, dtype=np.float32)
        self.core.predict(k, before_NM, batch.ids_N, batch.positions_N, *_tables(batch), rows)
        R = len(rows)
        ids = self.core.sample(list(range(R)), [0.0] * R, [0] * R, [1.0] * R, [0.0] * R, [0.0] * R)[0] if R else []
        return self.core.hidden(), ids

    def sample(
        self, logits: None, batch: Batch, params: Sequence[SamplingParams], indices: Sequence[int]
    ) -> tuple[list[int], list[float]]:
        """Ids and log-probabilities, one for each sampling sequence; see sampler.sample for what they are."""
        n = len(params)
        ids, logprobs = self.core.sample(
            batch.row_of_sample_S.tolist(),
            [p.temperature for p in params],
            [p.top_k for p in params],
            [p.top_p for p in params],
            [p.min_p for p in params],
            uniforms([p.seed for p in params], indices).tolist() if any(p.temperature for p in params) else [0.0] * n,
        )
        if -1 in ids:
            raise broken_logits(ids.index(-1), n)
        return ids, logprobs

    def rows(self, logits: None, batch: Batch, samples: Sequence[int]) -> NDArray[np.float32]:
        """[len(samples), V]: the logits that those of the step's draws were made from."""
        return self.core.logits()[batch.row_of_sample_S[list(samples)]]

    def update_weights(self, named: Mapping[str, Any]) -> None:
        """Take over all weights, fp32 arrays or torch tensors by the names of `Transformer.named_parameters()`."""
        check_names_and_shapes(named, self.shapes)
        for name in filter(self._is_run, named):
            values = named[name]
            self._set(name, values if isinstance(values, np.ndarray) else values.detach().float().numpy(), self.bits)

    def _is_run(self, name: str) -> bool:
        return self.n_modules > 0 or not name.startswith("mtp.")

    def add_adapter(self, adapter: Adapter) -> int:
        """One that rows of `Batch.adapters_N` can ask for from now on, by the number returned."""
        check_adapted(adapter.pairs, self.config)
        number = self.core.add_adapter()
        for layer, (a, b) in adapter.pairs.items():
            with _finite(layer):
                self.core.set_low_rank(number, layer, a, np.float32(adapter.scales[layer]) * b)
        return number


def _tables(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All page tables one after another, and where that of each row begins."""
    B, P = batch.tables_BP.shape
    tables, starts = [batch.tables_BP.ravel()], [np.arange(B) * P]
    n_entries = B * P
    for prefill in batch.prefills:
        starts.append(np.full(prefill.n_tokens, n_entries))
        tables.append(prefill.table)
        n_entries += len(prefill.table)
    return np.concatenate(tables), np.concatenate(starts)


@contextmanager
def _finite(name: str) -> Iterator[None]:
    try:
        yield
    except ArithmeticError:
        what = f"{name} holds NaN, infinity, or a number too large to be packed"
        raise UserError(what, DAMAGED) from None
