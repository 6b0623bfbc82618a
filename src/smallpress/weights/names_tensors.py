"""Where each of our tensors lies in a Hugging Face folder, family by family.

Most lie there under one other name. Two kinds do not: a stack of experts is one tensor an expert there, and the first
Qwen keeps q, k and v in one. So every tensor of ours is a list of pieces, each a range of rows of one of theirs; a
stack [expert, output, input] counts as expert * output rows.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes

LLAMA = {
    "attn_norm": "input_layernorm",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
QK_NORMS = {"attn.q_norm": "self_attn.q_norm", "attn.k_norm": "self_attn.k_norm"}
EXPERTS = {
    "mlp.router": "mlp.gate",
    "mlp.experts.gate": "mlp.experts.{}.gate_proj",
    "mlp.experts.up": "mlp.experts.{}.up_proj",
    "mlp.experts.down": "mlp.experts.{}.down_proj",
    "mlp.shared.gate": "mlp.shared_experts.gate_proj",
    "mlp.shared.up": "mlp.shared_experts.up_proj",
    "mlp.shared.down": "mlp.shared_experts.down_proj",
}
DEEPSEEK = {
    **LLAMA,
    **EXPERTS,
    "attn.q_a": "self_attn.q_a_proj",
    "attn.q_a_norm": "self_attn.q_a_layernorm",
    "attn.q_b": "self_attn.q_b_proj",
    "attn.kv_a": "self_attn.kv_a_proj_with_mqa",
    "attn.kv_a_norm": "self_attn.kv_a_layernorm",
    "attn.kv_b": "self_attn.kv_b_proj",
}
HUNYUAN = {
    **LLAMA,
    **EXPERTS,
    "attn.q_norm": "self_attn.query_layernorm",
    "attn.k_norm": "self_attn.key_layernorm",
    "mlp.router": "mlp.gate.wg",
    "mlp.shared.gate": "mlp.shared_mlp.gate_proj",
    "mlp.shared.up": "mlp.shared_mlp.up_proj",
    "mlp.shared.down": "mlp.shared_mlp.down_proj",
}
GEMMA3 = {
    **LLAMA,
    **QK_NORMS,
    "attn_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
QWEN = {
    "attn_norm": "ln_1",
    "attn.q": "attn.c_attn",
    "attn.k": "attn.c_attn",
    "attn.v": "attn.c_attn",
    "attn.o": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.gate": "mlp.w2",
    "mlp.up": "mlp.w1",
    "mlp.down": "mlp.c_proj",
}
BLOCKS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen": QWEN,
    "qwen2": LLAMA,
    "qwen3": LLAMA | QK_NORMS,
    "qwen3_moe": LLAMA | QK_NORMS | EXPERTS,
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "hunyuan_v1_dense": HUNYUAN,
    "hunyuan_v1_moe": HUNYUAN,
    "gemma3_text": GEMMA3,
}
"""What stands behind "layers.N." here, and behind "model.layers.N." there."""

AROUND = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
AROUND_QWEN = {"embed": "transformer.wte", "norm": "transformer.ln_f", "head": "lm_head"}
MTP = {"embed_norm": "enorm", "hidden_norm": "hnorm", "proj": "eh_proj", "norm": "shared_head.norm"}
"""Module k is layer n_layers + k there, with its block's tensors beside these."""
MTP_COPIES = {"embed": "embed_tokens", "head": "shared_head.head"}
"""Released files hold the shared embedding and head once more in each module."""
EXPERT_BIAS = "mlp.gate.e_score_correction_bias"


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `first` to `first + n_rows` of the tensor `name`."""

    name: str
    first: int
    n_rows: int


@dataclass(frozen=True, slots=True)
class Foreign:
    """A tensor of theirs: its shape, and the pieces of ours it is made of."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


def hf_pieces(config: ModelConfig, family: str) -> dict[str, tuple[Piece, ...]]:
    """Our name of every tensor -> where it lies in a folder of `family`."""
    pieces: dict[str, tuple[Piece, ...]] = {}
    fused: dict[str, int] = {}  # how many rows of a tensor of theirs are taken
    for ours, shape in tensor_shapes(config).items():
        n_rows = shape[-2] if len(shape) > 2 else shape[0]
        names = [_hf_name(ours, config, family, expert) for expert in range(math.prod(shape[:-2]))]
        pieces[ours] = tuple(Piece(name, fused.get(name, 0), n_rows) for name in names)
        fused |= {name: fused.get(name, 0) + n_rows for name in names}
    return pieces


def hf_tensors(config: ModelConfig, family: str, mtp_copies: bool = False) -> dict[str, Foreign]:
    """The other way: their name of every tensor -> its shape and the pieces of ours, in order."""
    shapes = tensor_shapes(config)
    foreign: dict[str, Foreign] = {}
    for ours, pieces in hf_pieces(config, family).items():
        for i, piece in enumerate(pieces):
            before = foreign[piece.name].pieces if piece.name in foreign else ()
            mine = (*before, Piece(ours, i * piece.n_rows, piece.n_rows))
            rows = sum(part.n_rows for part in mine)
            foreign[piece.name] = Foreign((rows, *shapes[ours][-1:]) if len(shapes[ours]) > 1 else (rows,), mine)
    if mtp_copies:
        whole = {"embed": "embed.weight", "head": "embed.weight" if config.tied_head else "head.weight"}
        for name, key in _mtp_copies(config):
            foreign[name] = Foreign(shapes[whole[key]], (Piece(whole[key], 0, config.vocab_size),))
    return foreign


def ignorable(name: str, config: ModelConfig) -> bool:
    """Frequencies that old exporters stored, and copies of an embedding or head that are there under another name."""
    copy_of_head = config.tied_head and name == AROUND["head"] + ".weight"
    return name.endswith(".rotary_emb.inv_freq") or copy_of_head or name in dict(_mtp_copies(config))


def norm_offset(ours: str, family: str) -> float:
    """What a tensor of ours is more than theirs: Gemma's files hold the weight of a norm less 1."""
    return 1.0 if family == "gemma3_text" and ours.endswith("norm.weight") else 0.0


def has_mtp(tensor_names: Collection[str], n_layers: int) -> bool:
    """Whether a folder holds the tensors of MTP modules; transformers leaves them out and does not say so."""
    return f"model.layers.{n_layers}.{MTP['proj']}.weight" in tensor_names


def _hf_name(ours: str, config: ModelConfig, family: str, expert: int) -> str:
    around, layers = (AROUND_QWEN, "transformer.h") if family == "qwen" else (AROUND, "model.layers")
    parts = ours.split(".")
    if parts[0] not in ("layers", "mtp"):
        return f"{around[parts[0]]}.{parts[1]}"
    layer, rest = int(parts[1]), parts[2:]
    table: dict[str, str] = BLOCKS[family]
    if parts[0] == "mtp":
        layer += config.n_layers
        table, rest = (table, rest[1:]) if rest[0] == "block" else (MTP, rest)
    if rest[-1] == "expert_bias":
        return f"{layers}.{layer}.{EXPERT_BIAS}"
    if rest[-1] in ("weight", "bias"):
        return f"{layers}.{layer}.{table['.'.join(rest[:-1])]}.{rest[-1]}"
    return f"{layers}.{layer}.{table['.'.join(rest)].format(expert)}.weight"


def _mtp_copies(config: ModelConfig) -> list[tuple[str, str]]:
    """(their name, what it is a copy of)."""
    n_modules = config.mtp.n_modules if config.mtp else 0
    return [
        (f"model.layers.{config.n_layers + k}.{theirs}.weight", ours)
        for k in range(n_modules)
        for ours, theirs in MTP_COPIES.items()
    ]
