"""A fast form of `model.Transformer`, for generation only: same interface, same numbers within its dtype's rounding.

What is different from the plain form:

- Weights of linear layers are laid out in advance for oneDNN's bf16 kernels, which otherwise rearrange them in each
  call, and q, k, v are one product. SiLU, the gate's product and biases are done inside the products.
- Each norm's weight is multiplied into the columns of the products that follow it.
- The residual stream is fp32: sums lose nothing, and it costs no more than bf16 here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smallpress.engine.low_rank_rows import LowRankRows, Pairs
from smallpress.model.config import GQA, Dense, ModelConfig
from smallpress.model.gqa import Attend
from smallpress.model.rope import rope_tables

PACKED_ROWS = 64  # the batch oneDNN lays the weights out for; other numbers made no difference for 1 to 256 rows


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this torch and processor have oneDNN's packed bf16 products."""
    return (
        dtype == torch.bfloat16
        and device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def has_packed_form(config: ModelConfig) -> bool:
    """Whether the model has no parts but those laid out here: those of the llama family, scaled rotation among them."""
    attention, ffn = config.attention, config.ffn
    if not isinstance(attention, GQA) or not isinstance(ffn, Dense) or ffn.activation != "silu":
        return False
    plain_scores = attention.qk_norm is None and attention.scale is None
    one_rope = not config.rope_interleaved and (attention.window is None or attention.window.rope_theta is None)
    return plain_scores and one_rope and not config.post_norms and config.embed_scale == 1.0


class Linear:
    """x @ weight.T + bias, then silu, or times another tensor."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).mul_(other)


class PackedLinear(Linear):
    """The same in one oneDNN product, its weight laid out for it."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS), bias)
        # The overloads themselves: looking them up in each call takes longer than a small product.
        self.product = torch.ops.mkldnn._linear_pointwise.default
        self.product_with = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias, "none", [], "")

    def silu(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias, "swish", [], "")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return self.product_with(x, other, self.weight, self.bias, "mul")


@dataclass(frozen=True, slots=True)
class Block:
    qkv: Linear
    o: Linear
    gate: Linear
    up: Linear
    down: Linear
    attn_norm_M: Tensor
    mlp_norm_M: Tensor

    def mlp(self, x_NM: Tensor) -> Tensor:
        """What goes into `down`."""
        return self.up.times(x_NM, self.gate.silu(x_NM))


class PackedTransformer:
    """Of a config that `has_packed_form`."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, named: Mapping[str, Tensor]):
        self.config, self.dtype = config, dtype
        self.low_rank = LowRankRows(named["embed.weight"].device)
        self.load(named)

    def add_adapter(self, adapter: Pairs) -> int:
        return self.low_rank.add(adapter)

    @torch.no_grad()
    def load(self, named: Mapping[str, Tensor]) -> None:
        """Take all weights, by the names of `Transformer.named_parameters()`."""
        kind = PackedLinear if can_pack(self.dtype, named["embed.weight"].device) else Linear

        def linear(names: list[str], norm: str | None = None) -> Linear:
            weight = torch.cat([named[f"{name}.weight"].float() for name in names])
            if norm is not None:
                weight = weight * named[f"{norm}.weight"].float()
            biases = [named.get(f"{name}.bias") for name in names]
            bias = None
            if any(b is not None for b in biases):
                rows = [named[f"{name}.weight"].shape[0] for name in names]
                bias = torch.cat(
                    [weight.new_zeros(n) if b is None else b.float() for b, n in zip(biases, rows, strict=True)]
                )
            return kind(weight.to(self.dtype), None if bias is None else bias.to(self.dtype))

        self.eps = torch.tensor(self.config.norm_eps, device=named["embed.weight"].device)
        self.embed_VM = named["embed.weight"].detach().to(self.dtype, copy=True)
        self.blocks = []
        for i in range(self.config.n_layers):
            attn, mlp = f"layers.{i}.attn", f"layers.{i}.mlp"
            self.blocks.append(
                Block(
                    qkv=linear([f"{attn}.q", f"{attn}.k", f"{attn}.v"], f"layers.{i}.attn_norm"),
                    o=linear([f"{attn}.o"]),
                    gate=linear([f"{mlp}.gate"], f"layers.{i}.mlp_norm"),
                    up=linear([f"{mlp}.up"], f"layers.{i}.mlp_norm"),
                    down=linear([f"{mlp}.down"]),
                    attn_norm_M=named[f"layers.{i}.attn_norm.weight"].detach().to(torch.float32, copy=True),
                    mlp_norm_M=named[f"layers.{i}.mlp_norm.weight"].detach().to(torch.float32, copy=True),
                )
            )
        self.head = linear(["embed" if self.config.tied_head else "head"], "norm")

    def __call__(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """Hidden states after the final norm, its weight left to the head; [N, M]."""
        heads = self.config.attention
        assert isinstance(heads, GQA)
        H, K, D = heads.n_heads, heads.n_kv_heads, heads.head_dim
        N = len(ids_N)
        cos, sin = rope_tables(positions_N, D, self.config.rope_theta, self.dtype, self.config.rope_scaling)
        # Written out for every head, [N, (H + K) * D]: one flat product is twice as fast as a broadcast one.
        cos_NX, sin_NX = (torch.cat((a, b), -1).expand(N, H + K, D).flatten(1) for a, b in ((cos, cos), (-sin, sin)))
        x_NM = self.embed_VM[ids_N].float()
        for layer, block in enumerate(self.blocks):
            normed_NM = self._norm(x_NM)
            qkv_NX = block.qkv(normed_NM)
            if self.low_rank:
                for name, part_NX in zip("qkv", qkv_NX.split([H * D, K * D, K * D], dim=1), strict=True):
                    self.low_rank.change(f"layers.{layer}.attn.{name}", normed_NM, part_NX, block.attn_norm_M)
            qk_NX = qkv_NX[:, : (H + K) * D]
            swapped_NX = qk_NX.view(N, H + K, 2, D // 2).roll(1, 2).view(N, -1)
            qk_NXD = torch.addcmul(qk_NX * cos_NX, swapped_NX, sin_NX).view(N, -1, D)
            v_NKD = qkv_NX.view(N, -1, D)[:, H + K :]
            out_NHD = attend(layer, qk_NXD[:, :H], qk_NXD[:, H:], v_NKD)
            mixed_NX = out_NHD.reshape(N, -1)
            x_NM += self.low_rank.change(f"layers.{layer}.attn.o", mixed_NX, block.o(mixed_NX))
            normed_NM = self._norm(x_NM)
            wide_NF = self._adapted_mlp(layer, normed_NM) if self.low_rank else block.mlp(normed_NM)
            x_NM += self.low_rank.change(f"layers.{layer}.mlp.down", wide_NF, block.down(wide_NF))
        return self._norm(x_NM)

    def _adapted_mlp(self, layer: int, x_NM: Tensor) -> Tensor:
        """What goes into `down`, the adapters added to its two products before they meet."""
        block, mlp = self.blocks[layer], f"layers.{layer}.mlp"
        gate_NF = self.low_rank.change(f"{mlp}.gate", x_NM, block.gate(x_NM), block.mlp_norm_M)
        up_NF = self.low_rank.change(f"{mlp}.up", x_NM, block.up(x_NM), block.mlp_norm_M)
        return F.silu(gate_NF).mul_(up_NF)

    def logits(self, hidden_NM: Tensor) -> Tensor:
        return self.head(hidden_NM)

    def _norm(self, x_NM: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + eps), in the dtype of the products."""
        norm_N1 = torch.linalg.vector_norm(x_NM, dim=-1, keepdim=True)
        inverse_N1 = torch.addcmul(self.eps, norm_N1, norm_N1, value=1 / x_NM.shape[-1]).rsqrt_()
        return (x_NM * inverse_N1).to(self.dtype)
