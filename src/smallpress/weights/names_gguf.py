"""Where each of our tensors lies in a GGUF, and in which order of rows.

One table serves all architectures. Most tensors lie there as they are, stacks of experts too; two kinds do not:

- Rows of q and k of the architecture llama: llama.cpp turns neighbouring pairs (2i, 2i + 1) there, where we turn halves
  (i, i + D/2). `unpermute` puts them back, `permute` does it.
- `kv_b`, head by head [key without rotation | value] over the latent: newer files have the keys' part transposed, ready
  to be absorbed into queries, and the values' beside it, [H, C, P] and [H, W, C]; older ones have it whole, as we do.

Norms of Gemma are whole there; its Hugging Face folders hold them less 1. Source: gguf-py, llama.cpp's converter.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smallpress.model.config import GQA, MLA, ModelConfig
from smallpress.model.shapes import tensor_shapes

BLOCK = {
    # ours behind "layers.N.": GGUF's behind "blk.N."
    "attn_norm": "attn_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.o": "attn_output",
    "attn.q_norm": "attn_q_norm",
    "attn.k_norm": "attn_k_norm",
    "attn.q_a": "attn_q_a",
    "attn.q_a_norm": "attn_q_a_norm",
    "attn.q_b": "attn_q_b",
    "attn.kv_a": "attn_kv_a_mqa",
    "attn.kv_a_norm": "attn_kv_a_norm",
    "attn.kv_b": "attn_kv_b",
    "attn_post_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
    "mlp.router": "ffn_gate_inp",
    "mlp.experts.gate": "ffn_gate_exps",
    "mlp.experts.up": "ffn_up_exps",
    "mlp.experts.down": "ffn_down_exps",
    "mlp.shared.gate": "ffn_gate_shexp",
    "mlp.shared.up": "ffn_up_shexp",
    "mlp.shared.down": "ffn_down_shexp",
    "mlp_post_norm": "post_ffw_norm",
}
AROUND = {"embed": "token_embd", "norm": "output_norm", "head": "output"}
MTP = {
    "embed_norm": "nextn.enorm",
    "hidden_norm": "nextn.hnorm",
    "proj": "nextn.eh_proj",
    "norm": "nextn.shared_head_norm",
}
"""Module k is block n_layers + k there, with its block's tensors beside these."""
MTP_COPIES = ("nextn.embed_tokens.weight", "nextn.shared_head_head.weight")
EXPERT_BIAS = "exp_probs_b.bias"
ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3.1's scaling: what each pair's frequency is divided by."""
WHOLE_KV_B = "blk.0.attn_kv_b.weight"


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """A tensor of a GGUF: its shape there, and which of ours it is, or is a part of."""

    shape: tuple[int, ...]
    ours: str


def gguf_tensors(config: ModelConfig, whole_kv_b: bool = False) -> dict[str, GGUFTensor]:
    """Their name of every tensor -> the tensor, in the order of ours; of two parts the keys' comes first."""
    tensors: dict[str, GGUFTensor] = {}
    for ours, shape in tensor_shapes(config).items():
        name = _gguf_name(ours, config)
        if ours.endswith("attn.kv_b.weight") and not whole_kv_b:
            mla = config.attention
            assert isinstance(mla, MLA), ours
            H, C, P, W = mla.n_heads, mla.kv_lora_rank, mla.qk_nope_head_dim, mla.v_head_dim
            tensors[name.replace("kv_b", "k_b")] = GGUFTensor((H, C, P), ours)
            tensors[name.replace("kv_b", "v_b")] = GGUFTensor((H, W, C), ours)
        else:
            tensors[name] = GGUFTensor(shape, ours)
    return tensors


def ignorable_in_gguf(name: str, config: ModelConfig) -> bool:
    """Copies of embedding and head that MTP modules hold."""
    n_modules = config.mtp.n_modules if config.mtp else 0
    return any(name == f"blk.{config.n_layers + k}.{copy}" for k in range(n_modules) for copy in MTP_COPIES)


def has_nextn(tensor_names: Collection[str], n_layers: int) -> bool:
    """Whether a file holds MTP modules; llama.cpp's converter leaves them out and its loader reads none."""
    return f"blk.{n_layers}.{MTP['proj']}.weight" in tensor_names


def from_gguf_layout(
    name: str, read: Callable[[str], NDArray], parts: list[str], config: ModelConfig, architecture: str
) -> NDArray:
    """Our tensor `name` from its `parts` there, which `read` gives."""
    if len(parts) > 1:
        k_HCP, v_HWC = (read(part) for part in parts)
        return np.concatenate((k_HCP.swapaxes(1, 2), v_HWC), axis=1).reshape(-1, v_HWC.shape[2])
    n_heads = permuted_heads(name, config, architecture)
    return unpermute(read(parts[0]), n_heads) if n_heads else read(parts[0])


def to_gguf_layout(name: str, ours: str, tensor: NDArray, config: ModelConfig, architecture: str) -> NDArray:
    """Their tensor `name` from ours."""
    if ours.endswith("attn.kv_b.weight") and not name.endswith("kv_b.weight"):
        mla = config.attention
        assert isinstance(mla, MLA), ours
        both_HXC = tensor.reshape(mla.n_heads, -1, mla.kv_lora_rank)
        if name.endswith("k_b.weight"):
            return np.ascontiguousarray(both_HXC[:, : mla.qk_nope_head_dim].swapaxes(1, 2))
        return np.ascontiguousarray(both_HXC[:, mla.qk_nope_head_dim :])
    n_heads = permuted_heads(ours, config, architecture)
    return permute(tensor, n_heads) if n_heads else tensor


def permuted_heads(name: str, config: ModelConfig, architecture: str) -> int:
    """The number of heads whose rows a GGUF holds in another order; 0 for other tensors."""
    attention = config.attention
    if architecture != "llama" or not isinstance(attention, GQA):
        return 0
    return attention.n_heads if ".attn.q." in name else attention.n_kv_heads if ".attn.k." in name else 0


def unpermute(rows: NDArray, n_heads: int) -> NDArray:
    """Rows of a llama GGUF's q or k (weight or bias) in the half-split order: row 2i + s of a head becomes s D/2 + i.

    >>> import numpy as np
    >>> unpermute(np.array([0, 1, 2, 3, 10, 11, 12, 13]), n_heads=2).tolist()
    [0, 2, 1, 3, 10, 12, 11, 13]
    """
    half = len(rows) // n_heads // 2
    return rows.reshape(n_heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def permute(rows: NDArray, n_heads: int) -> NDArray:
    """The way back of `unpermute`: row s D/2 + i of a head becomes 2i + s.

    >>> import numpy as np
    >>> permute(np.array([0, 2, 1, 3, 10, 12, 11, 13]), n_heads=2).tolist()
    [0, 1, 2, 3, 10, 11, 12, 13]
    """
    half = len(rows) // n_heads // 2
    return rows.reshape(n_heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def as_rows(raw: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A tensor's bytes [n_rows, row bytes], the rows of a stack one matrix after another."""
    return raw.reshape(math.prod(shape[:-1]) if len(shape) > 1 else shape[0], -1)


def _gguf_name(ours: str, config: ModelConfig) -> str:
    parts = ours.split(".")
    if parts[0] not in ("layers", "mtp"):
        return f"{AROUND[parts[0]]}.{parts[1]}"
    block, rest, table = int(parts[1]), parts[2:], BLOCK
    if parts[0] == "mtp":
        block += config.n_layers
        table, rest = (BLOCK, rest[1:]) if rest[0] == "block" else (MTP, rest)
    if rest[-1] == "expert_bias":
        return f"blk.{block}.{EXPERT_BIAS}"
    if rest[-1] in ("weight", "bias"):
        return f"blk.{block}.{table['.'.join(rest[:-1])]}.{rest[-1]}"
    return f"blk.{block}.{table['.'.join(rest)]}.weight"
