"""Attention of decode rows: one token a sequence, all sequences at once.

What a row shares with its group comes first, as an output and the log-sum-exp of its scores. In the row's own attention
that pair stands for one more key, whose score is the log-sum-exp and whose value is the output; this is exact.

Pages hold the truth. What the rectangles of `decode_plan` gathered from them is kept for the steps that follow, as
decoding mostly adds one token to each of the same sequences: the new keys are added to the kept ones too, and nothing
is gathered. Rows of sequences that ended are carried along until they are too many.

Where some layers have a window nothing is shared, as every row's window begins elsewhere.
"""

import numpy as np
import torch
from torch import Tensor

from smallpress.engine.batch import Batch
from smallpress.engine.decode_plan import Own, Shared, plan_decode
from smallpress.model.config import Window

KEPT_BYTES = 1 << 30  # beyond this, keys are gathered in every step rather than kept twice
LIVE_SHARE = 0.75  # of the rows that were kept; with fewer left, the rest is gathered anew

Pair = tuple[Tensor, Tensor]


def gather_pages(pages: Tensor, tables_RP: Tensor) -> Tensor:
    """[n_pages, page_size, X] -> [R, P * page_size, X], copied page by page."""
    R, X = len(tables_RP), pages.shape[-1]
    return pages.flatten(1).index_select(0, tables_RP.flatten()).view(R, -1, X)


def attend_with_lse(q_GKXD: Tensor, k_GKSD: Tensor, v_GKSD: Tensor, bias_G11S: Tensor | None) -> Pair:
    """Output [G, K, X, D] and log-sum-exp of the scores [G, K, X], without a causal mask."""
    if q_GKXD.device.type == "cpu":
        return _flash(q_GKXD, k_GKSD, v_GKSD, attn_mask=bias_G11S)
    scores_GKXS = (q_GKXD @ k_GKSD.transpose(-1, -2)).float() * q_GKXD.shape[-1] ** -0.5
    if bias_G11S is not None:
        scores_GKXS += bias_G11S
    return scores_GKXS.softmax(-1).to(v_GKSD.dtype) @ v_GKSD, scores_GKXS.logsumexp(-1)


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class DecodeAttention:
    """The decode rows of a step and, while `go_on` holds, of the steps after it.

    Slot i is row i of the step this was made for. Later steps may have fewer rows, in any order. `kv` is [n_layers, 2,
    n_pages, page_size, K * D], or [n_layers, 1, ...] where the keys are the values too.
    """

    def __init__(self, batch: Batch, kv: Tensor, n_heads: int, head_dim: int, window: Window | None = None):
        n_layers, n_kinds, _, page_size, kv_dim = kv.shape
        shared, own = plan_decode(batch.tables_BP, batch.lengths_B, page_size, shares=window is None)
        self.device, self.slots, self.lengths = kv.device, batch.request_ids_B, batch.lengths_B.copy()
        n_pages = sum(plan.tables_GP.size for plan in shared) + sum(plan.tables_RP.size for plan in own)
        self.keeps = n_layers * n_kinds * n_pages * page_size * kv_dim * kv.dtype.itemsize <= KEPT_BYTES
        self.shared = [SharedAttention(plan, kv, self.keeps, len(self.slots), n_heads, head_dim) for plan in shared]
        self.own = [OwnAttention(plan, kv, self.keeps, n_heads, head_dim, window) for plan in own]
        self._place(np.arange(len(self.slots)), first=True)

    def go_on(self, batch: Batch) -> bool:
        """Take on the next step's rows; False, and nothing is done, when they need a fresh start."""
        slot_of = {request_id: slot for slot, request_id in enumerate(self.slots.tolist())}
        slots = np.array([slot_of.get(request_id, -1) for request_id in batch.request_ids_B.tolist()])
        if not self.keeps or len(slots) < LIVE_SHARE * len(self.slots) or (slots < 0).any():
            return False
        if (self.lengths[slots] + 1 != batch.lengths_B).any():
            return False
        lengths = self.lengths.copy()
        lengths[slots] += 1
        if not all(own.has_room(lengths) for own in self.own):
            return False
        self.lengths = lengths
        self._place(slots, first=False)
        return True

    def _place(self, slots: np.ndarray, first: bool) -> None:
        n_slots = len(self.slots)
        row_of_slot = np.full(n_slots, -1)
        row_of_slot[slots] = np.arange(len(slots))
        self.in_order = len(slots) == n_slots and bool((slots == np.arange(n_slots)).all())
        self.row_of_slot = torch.from_numpy(row_of_slot.clip(0)).to(self.device)
        self.slot_of_row = torch.from_numpy(slots).to(self.device)
        for shared in self.shared:
            shared.gathers = first
        for own in self.own:
            own.place(self.lengths, row_of_slot, first)

    def __call__(self, layer: int, q_BHD: Tensor, k_BKD: Tensor, v_BKD: Tensor) -> Tensor:
        """k and v, the new ones, are in the pages already. The result may be overwritten by the next layer's."""
        q_SHD = q_BHD if self.in_order else q_BHD.index_select(0, self.row_of_slot)
        base = None
        for shared in self.shared:
            base = shared(layer, q_SHD, base)
        if len(self.own) == 1:
            out_SHD = self.own[0](layer, q_SHD, (k_BKD, v_BKD), base)
        else:
            out_SHD = torch.empty_like(q_SHD)
            for own in self.own:
                own_base = base and (base[0].index_select(0, own.slots), base[1].index_select(0, own.slots))
                out_RHD = own(layer, q_SHD.index_select(0, own.slots), (k_BKD, v_BKD), own_base)
                out_SHD.index_copy_(0, own.slots, out_RHD)
        return out_SHD if self.in_order else out_SHD.index_select(0, self.slot_of_row)


class SharedAttention:
    """Groups of rows against the pages they have in common: R * J queries a kv head read each key together."""

    def __init__(self, plan: Shared, kv: Tensor, keeps: bool, n_slots: int, n_heads: int, head_dim: int):
        self.kv, self.keeps, self.gathers = kv, keeps, True
        self.n_slots, self.H, self.D = n_slots, n_heads, head_dim
        self.K = kv.shape[-1] // head_dim
        self.G, self.R = plan.rows_GR.shape
        rows = plan.rows_GR.flatten()
        self.everyone = bool(plan.filled_GR.all()) and len(rows) == n_slots and bool((rows == np.arange(n_slots)).all())
        self.rows = torch.from_numpy(rows).to(kv.device)
        self.filled = torch.from_numpy(np.flatnonzero(plan.filled_GR)).to(kv.device)
        self.filled_rows = self.rows[self.filled]
        self.tables_GP = torch.from_numpy(plan.tables_GP).to(kv.device)
        outside_GS = np.arange(plan.tables_GP.shape[1] * kv.shape[3]) >= plan.lengths_G[:, None]
        self.bias_G11S = _bias(outside_GS, kv)[:, None, None] if outside_GS.any() else None
        self.kept: dict[int, Pair] = {}

    def __call__(self, layer: int, q_SHD: Tensor, base: Pair | None) -> Pair:
        """(out_SHD, lse_SH), written into `base` for the rows of this rectangle when there are other rows."""
        G, R, K, H, D = self.G, self.R, self.K, self.H, self.D
        q_XHD = q_SHD if self.everyone else q_SHD.index_select(0, self.rows)
        q_GKXD = q_XHD.view(G, R, K, -1, D).transpose(1, 2).reshape(G, K, -1, D)
        out_GKXD, lse_GKX = attend_with_lse(q_GKXD, *self._keys_and_values(layer), self.bias_G11S)
        out_XHD = out_GKXD.view(G, K, R, -1, D).transpose(1, 2).reshape(G * R, H, D)
        lse_XH = lse_GKX.view(G, K, R, -1).transpose(1, 2).reshape(G * R, H)
        if self.everyone:
            return out_XHD, lse_XH
        if base is None:
            base = q_SHD.new_zeros(self.n_slots, H, D), lse_XH.new_full((self.n_slots, H), -torch.inf)
        base[0].index_copy_(0, self.filled_rows, out_XHD.index_select(0, self.filled))
        base[1].index_copy_(0, self.filled_rows, lse_XH.index_select(0, self.filled))
        return base

    def _keys_and_values(self, layer: int) -> Pair:
        """[G, K, S, D] each."""
        if not self.gathers:
            return self.kept[layer]
        kinds = [
            gather_pages(pages, self.tables_GP).view(self.G, -1, self.K, self.D).transpose(1, 2)
            for pages in self.kv[layer]
        ]
        if self.keeps:
            self.kept[layer] = kinds[0], kinds[-1]
        return kinds[0], kinds[-1]


class OwnAttention:
    """Rows against pages of their own.

    The query heads of a row are laid out block-diagonally, [H, K * D] with zeros outside each head's own kv head, so
    that one product a row serves all heads, in the order the pages are stored. The last place never belongs to a token
    (`Own` leaves room): its score is the shared part's and its value is zero, for that part is added by itself.

    All layers use the same buffers, and their views are made once: at small batches making them takes longer than
    using them.
    """

    def __init__(self, plan: Own, kv: Tensor, keeps: bool, n_heads: int, head_dim: int, window: Window | None):
        self.kv, self.plan, self.keeps, self.gathers, self.window = kv, plan, keeps, True, window
        H, D, K, J = n_heads, head_dim, kv.shape[-1] // head_dim, n_heads * head_dim // kv.shape[-1]
        R, S = len(plan.rows_R), plan.tables_RP.shape[1] * kv.shape[3]
        self.R, self.S, self.K, self.J, self.D = R, S, K, J, D
        self.slots = torch.from_numpy(plan.rows_R).to(kv.device)
        self.tables_RP = torch.from_numpy(plan.tables_RP).to(kv.device)
        self.kept: dict[int, Pair] = {}
        q_RKJKD = kv.new_zeros(R, K, J, K, D)
        self.q_RHX = q_RKJKD.view(R, H, K * D)  # X = K * D
        self.q_diagonal_RKJD = q_RKJKD.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
        self.products_RHS, self.scores_RHS, self.probs_RHS, self.bias_RHS = kv.new_zeros(4, R, H, S)
        self.window_bias_RHS = self.bias_RHS if window is None else torch.zeros_like(self.bias_RHS)
        self.last_score_RH = self.scores_RHS[:, :, -1]
        self.last_prob_RKJ1 = self.probs_RHS[:, :, -1:].view(R, K, J, 1)
        self.mix_RHX = kv.new_empty(R, H, K * D)
        self.mix_diagonal_RKJD = self.mix_RHX.view(R, K, J, K, D).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
        self.out_RHD = kv.new_empty(R, H, D)

    def has_room(self, lengths_S: np.ndarray) -> bool:
        return bool(((lengths_S - self.plan.n_shared)[self.plan.rows_R] < self.S).all())

    def place(self, lengths_S: np.ndarray, row_of_slot: np.ndarray, first: bool) -> None:
        """Set how much each row reads and, after the first step, where each new key goes."""
        device, self.gathers = self.kv.device, first
        lengths_R = lengths_S[self.plan.rows_R] - self.plan.n_shared[self.plan.rows_R]
        outside_RS = np.arange(self.S) >= lengths_R[:, None]
        self.bias_RHS.copy_(_bias(outside_RS, self.kv)[:, None])
        if self.window is not None:
            outside_RS |= np.arange(self.S) < lengths_R[:, None] - self.window.length
            self.window_bias_RHS.copy_(_bias(outside_RS, self.kv)[:, None])
        rows_R = row_of_slot[self.plan.rows_R]
        live = np.flatnonzero(rows_R >= 0)
        self.new_places = torch.from_numpy(live * self.S + lengths_R[live] - 1).to(device)
        self.new_rows = torch.from_numpy(rows_R[live]).to(device)
        self.all_new = len(live) == len(row_of_slot) and bool((rows_R == np.arange(len(rows_R))).all())

    def __call__(self, layer: int, q_RHD: Tensor, new: Pair, base: Pair | None) -> Tensor:
        R, K, J, D = self.R, self.K, self.J, self.D
        k_RXS, v_RSX = self._keys_and_values(layer, new)
        self.q_diagonal_RKJD.copy_(q_RHD.view(R, K, J, D))
        torch.bmm(self.q_RHX, k_RXS, out=self.products_RHS)
        windowed = self.window is not None and layer in self.window.layers
        bias_RHS = self.window_bias_RHS if windowed else self.bias_RHS
        torch.add(bias_RHS, self.products_RHS, alpha=D**-0.5, out=self.scores_RHS)
        if base is not None:
            self.last_score_RH.copy_(base[1])
        torch.softmax(self.scores_RHS, -1, out=self.probs_RHS)
        torch.bmm(self.probs_RHS, v_RSX, out=self.mix_RHX)
        out_RKJD = self.out_RHD.view(R, K, J, D)
        if base is None:
            out_RKJD.copy_(self.mix_diagonal_RKJD)
        else:
            torch.addcmul(self.mix_diagonal_RKJD, base[0].view(R, K, J, D), self.last_prob_RKJ1, out=out_RKJD)
        return self.out_RHD

    def _keys_and_values(self, layer: int, new: Pair) -> Pair:
        """[R, K * D, S] and [R, S, K * D]."""
        if self.gathers:
            kinds = [gather_pages(pages, self.tables_RP) for pages in self.kv[layer]]
            k_RSX, v_RSX = kinds[0], kinds[-1]
            v_RSX[:, -1] = 0
            if self.keeps:
                self.kept[layer] = k_RSX, v_RSX
        else:
            k_RSX, v_RSX = self.kept[layer]
            kinds = [k_RSX, v_RSX][: len(self.kv[layer])]
            for kept_RSX, new_BKD in zip(kinds, new, strict=False):
                fresh = new_BKD if self.all_new else new_BKD.index_select(0, self.new_rows)
                kept_RSX.view(-1, self.K, self.D).index_copy_(0, self.new_places, fresh)
        return k_RSX.transpose(1, 2), v_RSX


def _bias(outside: np.ndarray, kv: Tensor) -> Tensor:
    """0 inside, -infinity outside, to be added to scores."""
    return torch.zeros(outside.shape, dtype=kv.dtype).masked_fill_(torch.from_numpy(outside), -torch.inf).to(kv.device)
