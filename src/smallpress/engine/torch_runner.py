"""The torch runner: one forward pass a step over every token that is due, keys and values in pages.

Of latent attention the pages hold the latents, once: see `model.mla`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallpress.engine.batch import Batch
from smallpress.engine.decode_attention import DecodeAttention
from smallpress.engine.named_weights import check_adapted, check_names_and_shapes
from smallpress.engine.packed import PackedTransformer, has_packed_form
from smallpress.engine.paged_attention import PagedAttention
from smallpress.engine.plain import PlainTransformer
from smallpress.engine.request import SamplingParams
from smallpress.engine.sampler import sample
from smallpress.model.config import GQA
from smallpress.model.transformer import Transformer
from smallpress.weights.adapter import Adapter


class TorchRunner:
    """Runs batches on its own copy of `model`'s weights in `dtype`; the model given stays as it is."""

    def __init__(
        self,
        model: Transformer,
        page_size: int = 16,
        n_pages: int = 4096,
        dtype: torch.dtype = torch.bfloat16,
        modules: bool = False,
    ):
        """`modules`: those of multi-token prediction are run too, to draft."""
        config = model.config
        self.n_modules = len(model.mtp) if modules else 0
        self.config, self.page_size, self.n_pages = config, page_size, n_pages
        self.vocab_size, self.max_seq_len = config.vocab_size, config.max_seq_len
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        form = PackedTransformer if has_packed_form(config) and not self.n_modules else PlainTransformer
        self.model = form(config, dtype, dict(model.named_parameters()))
        self.reset()

    def reset(self) -> None:
        """Forget all keys and values, and which requests they were of.

        Pages begin as zeros, not as garbage, and a failed step may have left NaN in them: a masked place still
        multiplies its value by a weight of zero, and 0 * NaN is NaN.
        """
        n_kinds, width = self.config.attention.cache_shape
        shape = (self.config.n_layers + self.n_modules, n_kinds, self.n_pages, self.page_size, width)
        self.kv = _zeros(shape, self.model.dtype, self.model.embed_VM.device)
        self.decode: DecodeAttention | None = None
        self.last: tuple[Batch, PagedAttention, Tensor] | None = None  # a step, for its modules

    @property
    def page_bytes(self) -> int:
        return self.kv[:, :, 0].numel() * self.kv.itemsize

    @property
    def page_form(self) -> str:
        return f"torch {self.kv.dtype}, {self.page_size} tokens in {self.page_bytes} bytes"

    def read_pages(self, pages: Sequence[int]) -> NDArray[np.uint8]:
        """[len(pages), page_bytes]: keys and values of all layers, for a runner of the same `page_form` and weights."""
        found = self.kv[:, :, list(pages)].permute(2, 0, 1, 3, 4).contiguous()
        return found.view(len(pages), -1).view(torch.uint8).cpu().numpy()

    def write_pages(self, pages: Sequence[int], rows: NDArray[np.uint8]) -> None:
        n_layers, n_kinds, _, page_size, width = self.kv.shape
        given = torch.from_numpy(rows.copy()).view(self.kv.dtype).view(len(pages), n_layers, n_kinds, page_size, width)
        self.kv[:, :, list(pages)] = given.permute(1, 2, 0, 3, 4).to(self.kv.device)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Logits [R, V] of the rows that `batch.logit_rows_R` names, in the runner's dtype."""
        device = self.kv.device
        decode = self._decode_rows(batch)
        attend = PagedAttention(self.kv, batch, decode, self.config.attention.window)
        for page, content in batch.loads:
            self.write_pages([page], content[None])
        ids_N, positions_N = (torch.from_numpy(array).to(device) for array in (batch.ids_N, batch.positions_N))
        self.model.low_rank.choose(batch.adapters_N)
        hidden_NM = self.model(ids_N, positions_N, attend)
        self.decode = decode
        if self.n_modules:
            self.last = batch, attend, hidden_NM
        if len(batch.logit_rows_R) == 0:  # every prompt of the step goes on in the next
            return hidden_NM.new_empty(0, self.vocab_size)
        if len(batch.logit_rows_R) != len(hidden_NM):
            hidden_NM = hidden_NM.index_select(0, torch.from_numpy(batch.logit_rows_R).to(device))
        return self.model.logits(hidden_NM)

    def hidden(self) -> NDArray[np.float32]:
        """[N, M]: the last step's rows after the final norm, where the runner has modules."""
        assert self.last is not None
        return self.last[2].float().cpu().numpy()

    @torch.inference_mode()
    def predict(
        self, k: int, before_NM: NDArray[np.float32], batch: Batch, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], list[int]]:
        """Module k over the tokens of `batch`, whose keys and values go to the same slots: its hidden states [N, M] and
        the likeliest id after the token of each of `rows`, -1 where its logits are broken. `before_NM`: see
        `Transformer.predict_further`. A batch that is not the last step's has no decode rows."""
        assert isinstance(self.model, PlainTransformer)
        if self.last is not None and self.last[0] is batch:
            attend = self.last[1]
        else:
            attend = PagedAttention(self.kv, batch, None, self.config.attention.window)
        device = self.kv.device
        ids_N, positions_N = (torch.from_numpy(array).to(device) for array in (batch.ids_N, batch.positions_N))
        given_NM = torch.from_numpy(before_NM).to(device, self.kv.dtype)
        hidden_NM = self.model.model.predict_further(k, given_NM, ids_N, positions_N, attend)
        logits_RV = self.model.logits(hidden_NM[torch.from_numpy(rows).to(device)])
        best_R = logits_RV.argmax(-1).where(logits_RV.isfinite().all(-1), -1)
        return hidden_NM.float().cpu().numpy(), best_R.tolist()

    def _decode_rows(self, batch: Batch) -> DecodeAttention | None:
        """What the last step's decode rows go on with, or a fresh start. A step that fails leaves nothing behind."""
        decode, self.decode = self.decode, None
        if decode is not None and decode.go_on(batch):
            return decode
        del decode  # its memory is for the new one
        if len(batch.lengths_B) == 0:
            return None
        attention = self.config.attention
        width = attention.head_dim if isinstance(attention, GQA) else self.kv.shape[-1]
        return DecodeAttention(batch, self.kv, attention.n_heads, width, attention.window)

    @torch.inference_mode()
    def sample(
        self, logits_RV: Tensor, batch: Batch, params: Sequence[SamplingParams], indices: Sequence[int]
    ) -> tuple[list[int], list[float]]:
        """Ids and log-probabilities, one for each sampling sequence."""
        if not np.array_equal(batch.row_of_sample_S, np.arange(len(logits_RV))):  # some draw from the same logits
            logits_RV = logits_RV.index_select(0, torch.from_numpy(batch.row_of_sample_S).to(logits_RV.device))
        return sample(logits_RV, params, indices)

    def rows(self, logits_RV: Tensor, batch: Batch, samples: Sequence[int]) -> NDArray[np.float32]:
        """[len(samples), V]: the logits that those of the step's draws were made from."""
        return logits_RV[batch.row_of_sample_S[list(samples)].tolist()].float().cpu().numpy()

    def update_weights(self, named: Mapping[str, Tensor]) -> None:
        """Take over all weights, rounded to the runner's dtype. Names and shapes must be the model's, none missing."""
        check_names_and_shapes(named, self.shapes)
        self.model.load(named)

    def add_adapter(self, adapter: Adapter) -> int:
        """One that rows of `Batch.adapters_N` can ask for from now on, by the number returned; in fp32."""
        check_adapted(adapter.pairs, self.config)
        return self.model.add_adapter(adapter)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU the system gives their memory when they are first written to, so unused pages cost none."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
