"""Attention that writes its keys and values into pages and reads them back through page tables."""

import torch
import torch.nn.functional as F
from torch import Tensor

from smallpress.engine.batch import Batch, Prefill
from smallpress.engine.decode_attention import DecodeAttention, gather_pages
from smallpress.model.config import Window


class PagedAttention:
    """`Attend` for one step. `kv` is [n_layers, 2, n_pages, page_size, K * D]: keys, then values; or [n_layers, 1, ...]
    where the keys are the values too.

    All tokens are written first; then all decode rows attend together and each prefill on its own.
    """

    def __init__(self, kv: Tensor, batch: Batch, decode: DecodeAttention | None, window: Window | None = None):
        for source, target in batch.copies:
            kv[:, :, target] = kv[:, :, source]
        self.kv = kv
        self.slots_N = torch.from_numpy(batch.slots_N).to(kv.device)
        self.n_decode, self.decode = len(batch.lengths_B), decode
        self.prefills = [PrefillAttention(prefill, kv, window) for prefill in batch.prefills]

    def __call__(self, layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
        for pages, new_NKD in zip(self.kv[layer], (k_NKD, v_NKD), strict=False):
            pages.view(-1, *k_NKD.shape[1:]).index_copy_(0, self.slots_N, new_NKD)
        if self.decode is not None and not self.prefills:
            return self.decode(layer, q_NHD, k_NKD, v_NKD)
        pieces = [prefill(layer, q_NHD, self.kv[layer]) for prefill in self.prefills]
        if self.decode is not None:
            pieces.insert(0, self.decode(layer, *(x_NHD[: self.n_decode] for x_NHD in (q_NHD, k_NKD, v_NKD))))
        return torch.cat(pieces)


class PrefillAttention:
    """Several new tokens of one sequence, the T last of its S."""

    def __init__(self, prefill: Prefill, kv: Tensor, window: Window | None):
        self.rows = slice(prefill.start, prefill.start + prefill.n_tokens)
        self.table_1P = torch.from_numpy(prefill.table)[None].to(kv.device)
        T, self.S = prefill.n_tokens, prefill.length
        self.bias_TS = None  # from the first token on, attention is plainly causal
        if T < self.S:
            self.bias_TS = torch.full((T, self.S), -torch.inf, dtype=kv.dtype, device=kv.device).triu(self.S - T + 1)
        self.windowed: tuple[int, ...] = ()
        if window is not None and window.length < self.S:
            far_TS = torch.full((T, self.S), -torch.inf, dtype=kv.dtype, device=kv.device)
            self.windowed = window.layers
            self.window_bias_TS = far_TS.triu(self.S - T + 1) + far_TS.tril(self.S - T - window.length)

    def __call__(self, layer: int, q_NHD: Tensor, pages: Tensor) -> Tensor:
        """The kv heads lie along the batch axis, so that their J query heads share keys without copies of them."""
        q_THD = q_NHD[self.rows]
        T, H, D = q_THD.shape
        kinds = [gather_pages(kind, self.table_1P)[0, : self.S].view(self.S, -1, D) for kind in pages]
        k_SKD, v_SKD = kinds[0], kinds[-1]
        bias_TS = self.window_bias_TS if layer in self.windowed else self.bias_TS
        J = H // k_SKD.shape[1]
        q_KJTD = q_THD.unflatten(1, (-1, J)).permute(1, 2, 0, 3)
        k_KJSD, v_KJSD = (x_SKD.transpose(0, 1)[:, None].expand(-1, J, -1, -1) for x_SKD in (k_SKD, v_SKD))
        out_KJTD = F.scaled_dot_product_attention(q_KJTD, k_KJSD, v_KJSD, attn_mask=bias_TS, is_causal=bias_TS is None)
        return out_KJTD.permute(2, 0, 1, 3).reshape(T, H, D)
