"""Causal attention for training, over token trees packed in one row without padding.

A micro-batch of rollouts is a tree: a prefix common to all (the template), prompts that follow it, and under each
prompt its completions. Laid out in that order, every token is computed once, however many rollouts share it, in the
forward pass and in the backward one:

    prefix | prompt 0, completion 0.0, completion 0.1 ... | prompt 1, completion 1.0 ...

Every completion sees the prefix, its prompt and itself, never its siblings. A plain sequence is a prompt alone, and
many of like length are completions of a prompt of no tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smallpress.model.config import Window
from smallpress.model.tree_attention import Segments, runs_natively, tree_attention

EXPLICIT_KEYS = 1024
"""Up to this many keys the scores are held: two batched products run 2-4 times as fast as the fused CPU kernel, forward
and backward (bf16, 132 x 194 scores: 5.5 against 23 ms); beyond it their memory would grow with the square."""

QUERIES = 192
"""So many of a sequence attend together: of a long square of scores nearly half would be of the future (four sequences
of 270 tokens, forward and backward, bf16: 45 against 65 ms)."""


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and its completions; lengths in tokens, the common prefix not counted."""

    prompt_len: int
    completion_lens: tuple[int, ...] = ()

    @property
    def n_tokens(self) -> int:
        return self.prompt_len + sum(self.completion_lens)


@dataclass(frozen=True, slots=True)
class TokenTree:
    """The layout of one packed row."""

    groups: tuple[Group, ...]
    prefix_len: int = 0

    @property
    def n_tokens(self) -> int:
        return self.prefix_len + sum(group.n_tokens for group in self.groups)

    def segments(self) -> Segments:
        """For the native core."""
        rows, begin = [], self.prefix_len
        if self.prefix_len:
            rows.append((0, self.prefix_len, -1, -1))
        for unit, group in enumerate(self.groups):
            prompt = len(rows)
            rows.append((begin, group.prompt_len, 0 if self.prefix_len else -1, unit))
            begin += group.prompt_len
            for length in group.completion_lens:
                rows.append((begin, length, prompt, unit))
                begin += length
        return np.array(rows, dtype=np.int64).reshape(-1, 4)

    def positions(self) -> Tensor:
        """[N]: the place of each token in its own sequence; every completion goes on where its prompt ends."""
        pieces = [torch.arange(self.prefix_len)]
        for group in self.groups:
            start = self.prefix_len + group.prompt_len
            pieces.append(torch.arange(self.prefix_len, start))
            pieces.extend(torch.arange(start, start + n) for n in group.completion_lens)
        return torch.cat(pieces)


class PackedCausal:
    """`gqa.Attend` over a token tree.

    >>> _ = torch.manual_seed(0)
    >>> q, k, v = torch.randn(5, 2, 4), torch.randn(5, 1, 4), torch.randn(5, 1, 4)
    >>> out = PackedCausal(TokenTree((Group(2, (2, 1)),)))(0, q, k, v)  # rows: p p a a b
    >>> alone = PackedCausal(TokenTree((Group(3),)))(0, q[[0, 1, 4]], k[[0, 1, 4]], v[[0, 1, 4]])  # rows: p p b
    >>> torch.allclose(out[4], alone[2], atol=1e-6)
    True
    """

    def __init__(
        self,
        tree: TokenTree,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        window: Window | None = None,
    ):
        """`window`: the config's, whose layers see less than all."""
        self.tree, self.segments = tree, tree.segments()
        self.lens = [tree.prefix_len]
        for group in tree.groups:
            self.lens += [group.prompt_len, sum(group.completion_lens)]
        self.dtype, self.device, self.window = dtype, device, window

    def __call__(self, layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKW: Tensor) -> Tensor:
        assert len(q_NHD) == self.tree.n_tokens, f"{len(q_NHD)=} but the tree holds {self.tree.n_tokens} tokens"
        is_windowed = self.window is not None and layer in self.window.layers
        if not is_windowed and runs_natively(q_NHD, v_NKW):
            return tree_attention(self.segments, q_NHD, k_NKD, v_NKW)
        attend = partial(self._attend_tree, self.window_masks if is_windowed else self.masks)
        if torch.is_grad_enabled():
            return _Recomputed.apply(attend, q_NHD, k_NKD, v_NKW)
        return attend(q_NHD, k_NKD, v_NKW)

    @cached_property
    def masks(self) -> "_TreeMasks":
        return _TreeMasks(self.tree, None, self.dtype, self.device)

    @cached_property
    def window_masks(self) -> "_TreeMasks":
        assert self.window is not None
        return _TreeMasks(self.tree, self.window.length, self.dtype, self.device)

    def _attend_tree(self, masks: "_TreeMasks", q_NHD: Tensor, k_NKD: Tensor, v_NKW: Tensor) -> Tensor:
        first, *rest = zip(q_NHD.split(self.lens), k_NKD.split(self.lens), v_NKW.split(self.lens), strict=True)
        q_1SHD, k_1SKD, v_1SKW = (x[None] for x in first)
        prefix = (k_1SKD, v_1SKW)
        outs = [_attend(q_1SHD, k_1SKD, v_1SKW, masks.prefix)[0]] if self.tree.prefix_len else []
        for plan, (q_P, k_P, v_P), completions in zip(masks.groups, rest[::2], rest[1::2], strict=True):
            k_1SKD, v_1SKW = (torch.cat((old, new[None]), 1) for old, new in zip(prefix, (k_P, v_P), strict=True))
            if len(q_P):
                outs.append(_attend(q_P[None], k_1SKD, v_1SKW, plan.prompt_bias)[0])
            if plan.T:
                q_GTHD, k_GTKD, v_GTKW = (plan.rectangle(x) for x in completions)
                k_GSKD = torch.cat((k_1SKD.expand(plan.G, -1, -1, -1), k_GTKD), 1)
                v_GSKW = torch.cat((v_1SKW.expand(plan.G, -1, -1, -1), v_GTKW), 1)
                out_GTHW = _attend(q_GTHD, k_GSKD, v_GSKW, plan.bias)
                outs.append(out_GTHW.flatten(0, 1).index_select(0, plan.unpad))
        return torch.cat(outs)


class _Recomputed(torch.autograd.Function):
    """Attention that keeps its inputs and computes the rest once more in the backward pass (Chen et al. 2016).

    Scores, and keys and values laid out once for each completion, were 0.4 of the 4.9 GB of an update of 3,500 tokens
    (SmolLM2-135M); the time for them does not show above the noise.
    """

    @staticmethod
    def forward(
        ctx: Any, attend: Callable[[Tensor, Tensor, Tensor], Tensor], q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor
    ) -> Tensor:
        ctx.attend = attend
        ctx.save_for_backward(q_NHD, k_NKD, v_NKD)
        return attend(q_NHD, k_NKD, v_NKD)

    @staticmethod
    def backward(ctx: Any, grad_NHD: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            out_NHD = ctx.attend(*inputs)
        return None, *torch.autograd.grad(out_NHD, inputs, grad_NHD)


class _TreeMasks:
    """What may be seen where, for the layers with one window, or with none."""

    def __init__(self, tree: TokenTree, window: int | None, dtype: torch.dtype, device: torch.device | str):
        bias = partial(_causal_bias, window=window, dtype=dtype, device=device)
        self.prefix = bias(tree.prefix_len, tree.prefix_len)
        self.groups = [_GroupPlan(tree.prefix_len, group, bias, device) for group in tree.groups]


class _GroupPlan:
    """The index rows that lay one group's completions out as a rectangle, built once and used by every layer."""

    def __init__(self, prefix_len: int, group: Group, bias: Callable[[int, int], Tensor], device: torch.device | str):
        context = prefix_len + group.prompt_len
        lens = torch.tensor(group.completion_lens, dtype=torch.long)
        self.G, self.T = len(lens), int(lens.max()) if len(lens) else 0
        offsets = torch.cumsum(lens, 0) - lens
        steps = torch.arange(self.T)
        inside_GT = steps < lens[:, None]
        self.pad = torch.where(inside_GT, offsets[:, None] + steps, 0).flatten().to(device)
        self.unpad = inside_GT.flatten().nonzero()[:, 0].to(device)
        self.prompt_bias = bias(group.prompt_len, context)
        self.bias = bias(self.T, context + self.T)

    def rectangle(self, x_NHD: Tensor) -> Tensor:
        """The completions as [G, T, H, D]; places past an end hold another token, which no kept query ever sees."""
        return x_NHD.index_select(0, self.pad).unflatten(0, (self.G, self.T))


def _causal_bias(T: int, S: int, window: int | None, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """[T, S]: 0 where the query may look, -inf at its future and before its window; the T queries are the last T of the
    S positions."""
    bias_TS = torch.full((T, S), -torch.inf, dtype=dtype, device=device)
    if window is None:
        return bias_TS.triu(S - T + 1)
    return bias_TS.triu(S - T + 1) + bias_TS.tril(S - T - window)


def _attend(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKW: Tensor, bias_TS: Tensor) -> Tensor:
    """Attention of the T queries, the last of the S positions, a block of them at a time: keys after a block's last
    query are not looked at."""
    T, S = q_BTHD.shape[1], k_BSKD.shape[1]
    if T <= QUERIES:
        return _attend_block(q_BTHD, k_BSKD, v_BSKW, bias_TS)
    outs = []
    for first in range(0, T, QUERIES):
        last = min(first + QUERIES, T)
        seen = S - T + last
        bias = bias_TS[first:last, :seen]
        outs.append(_attend_block(q_BTHD[:, first:last], k_BSKD[:, :seen], v_BSKW[:, :seen], bias))
    return torch.cat(outs, 1)


def _attend_block(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKW: Tensor, bias_TS: Tensor) -> Tensor:
    """Attention with an additive mask; J = H / K query heads lie along the time axis, so keys are never repeated."""
    B, T, H, D = q_BTHD.shape
    S, K = k_BSKD.shape[1:3]
    J, W = H // K, v_BSKW.shape[-1]
    q_CXD = q_BTHD.reshape(B, T, K, J, D).permute(0, 2, 3, 1, 4).reshape(B * K, J * T, D)  # C = B K
    k_CSD, v_CSW = (x.transpose(1, 2).reshape(B * K, S, x.shape[-1]) for x in (k_BSKD, v_BSKW))
    bias_XS = bias_TS.to(q_CXD.dtype).repeat(J, 1)  # sharded weights are rounded only as they are gathered
    if S <= EXPLICIT_KEYS:
        probs_CXS = torch.baddbmm(bias_XS.expand(B * K, -1, -1), q_CXD, k_CSD.mT, alpha=D**-0.5).softmax(-1)
        out_CXW = torch.bmm(probs_CXS, v_CSW)
    else:
        out_CXW = F.scaled_dot_product_attention(q_CXD[None], k_CSD[None], v_CSW[None], attn_mask=bias_XS)[0]
    return out_CXW.view(B, K, J, T, W).permute(0, 3, 1, 2, 4).reshape(B, T, H, W)
