"""Which block format each tensor of a GGUF gets: those llama.cpp's quantize chooses without options.

Norms, biases and routers stay F32. The matrix that gives the logits, the head or the embedding it is tied to, is kept
in Q6_K where the others have 4 bits. The mixture "q4_k" is llama.cpp's Q4_K_M: values' and down projections of half the
layers are Q6_K too. Rows that are no whole blocks fall back to a wider format, and to F16 where not even 32 divides
them.
Source: llama-quant.cpp.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from smallpress.lowbit.blocks import FORMATS, BlockFormat
from smallpress.model.config import ModelConfig
from smallpress.model.shapes import tensor_shapes


@dataclass(frozen=True, slots=True)
class Target:
    """`matrices` and `logits`: names of block formats; `file_type`: the number GGUF has for the whole."""

    matrices: str
    logits: str
    file_type: int


TARGETS: Mapping[str, Target] = {
    "f32": Target("F32", "F32", 0),
    "f16": Target("F16", "F16", 1),
    "bf16": Target("BF16", "BF16", 32),
    "q8_0": Target("Q8_0", "Q8_0", 7),
    "q4_0": Target("Q4_0", "Q6_K", 2),
    "q4_1": Target("Q4_1", "Q6_K", 3),
    "q4_k": Target("Q4_K", "Q6_K", 15),
    "q6_k": Target("Q6_K", "Q6_K", 18),
}
MORE_BITS = ("attn.v.weight", "mlp.down.weight", "mlp.experts.down", "mlp.shared.down.weight")
"""What "q4_k" keeps in Q6_K in some of the layers."""
WIDER = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
"""For rows that 256 does not divide."""
BY_NAME = {block_format.name: block_format for block_format in FORMATS.values()}


def tensor_formats(config: ModelConfig, target: str) -> dict[str, BlockFormat]:
    """The format of every tensor, by our names.

    >>> from smallpress.model.config import GQA, Dense
    >>> attention, ffn = GQA(n_heads=1, n_kv_heads=1, head_dim=64), Dense(inter_dim=512)
    >>> sizes = {"vocab_size": 9, "dim": 64, "n_layers": 1, "norm_eps": 1e-5, "rope_theta": 1e4, "max_seq_len": 8}
    >>> config = ModelConfig(family="llama", tied_head=True, attention=attention, ffn=ffn, **sizes)
    >>> formats = tensor_formats(config, "q4_k")
    >>> [formats[f"{name}.weight"].name for name in ("embed", "norm", "layers.0.attn.q", "layers.0.mlp.down")]
    ['Q8_0', 'F32', 'Q5_0', 'Q6_K']
    """
    return {name: tensor_format(name, shape, config, target) for name, shape in tensor_shapes(config).items()}


def tensor_format(name: str, shape: tuple[int, ...], config: ModelConfig, target: str) -> BlockFormat:
    """Of the tensor of that name, or of a part of it of that shape."""
    if len(shape) == 1 or name.endswith("router.weight"):
        return BY_NAME["F32"]
    logits = "embed.weight" if config.tied_head else "head.weight"
    chosen = TARGETS[target].logits if name == logits else TARGETS[target].matrices
    if chosen == "Q4_K" and name.endswith(MORE_BITS) and _more_bits(name, config.n_layers):
        chosen = "Q6_K"
    while shape[-1] % BY_NAME[chosen].block_elements:
        chosen = WIDER.get(chosen, "F16")
    return BY_NAME[chosen]


def _more_bits(name: str, n_layers: int) -> bool:
    """Whether the layer is in the first or last eighth, or every third between."""
    layer, eighth = int(name.split(".")[1]), n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2
