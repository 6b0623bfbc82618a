"""What a model is, as types that cannot contradict themselves. No torch here: listings and planners read it too."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from smallpress.run.settings import Settings

Activation = Literal["silu", "gelu_tanh"]


class Window(Settings):
    """The layers named see the last `length` tokens only, the query's own among them (Beltagy et al. 2020).

    `rope_theta`: those layers rotate with this base and no scaling (Gemma 3); None: as the others do.
    """

    length: int = Field(gt=0)
    layers: tuple[int, ...] = Field(min_length=1)
    rope_theta: float | None = Field(default=None, gt=0)


class GQA(Settings):
    """Grouped-query attention (Ainslie et al. 2023): `n_heads` queries share `n_kv_heads` keys and values.

    Each of the four projections carries a bias or not, independently: Qwen2 has them on q, k, v; llamafied Qwen on all.
    `qk_norm`: every head of q and k is normed, before its rotation (Qwen3, Gemma 3) or after it (Hunyuan).
    `scale` multiplies the scores; None: head_dim^-0.5.
    """

    kind: Literal["gqa"] = "gqa"
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0, multiple_of=2)
    q_bias: bool = False
    k_bias: bool = False
    v_bias: bool = False
    o_bias: bool = False
    qk_norm: Literal["before_rope", "after_rope"] | None = None
    scale: float | None = Field(default=None, gt=0)
    window: Window | None = None

    @property
    def rope_dim(self) -> int:
        return self.head_dim

    @property
    def cache_shape(self) -> tuple[int, int]:
        """Of one token in one layer: keys and values of every kv head."""
        return 2, self.n_kv_heads * self.head_dim

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> "GQA":
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")
        return self


class MLA(Settings):
    """Multi-head latent attention (DeepSeek-V2, 2024): one latent a token, from which all heads make keys and values.

    `q_lora_rank` None: queries come straight from the stream. The biases are those of the projections into the latents
    and of the output. `latent_norm_eps` is of the two norms inside, whatever `norm_eps` is elsewhere.
    """

    kind: Literal["mla"] = "mla"
    n_heads: int = Field(gt=0)
    q_lora_rank: int | None = Field(default=None, gt=0)
    kv_lora_rank: int = Field(gt=0)
    qk_nope_head_dim: int = Field(gt=0)
    qk_rope_head_dim: int = Field(gt=0, multiple_of=2)
    v_head_dim: int = Field(gt=0)
    bias: bool = False
    latent_norm_eps: float = Field(default=1e-6, gt=0)

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def rope_dim(self) -> int:
        return self.qk_rope_head_dim

    @property
    def window(self) -> None:
        """Every token sees all before it."""
        return None

    @property
    def cache_shape(self) -> tuple[int, int]:
        """Of one token in one layer: the latent after its norm, and the rotated key that all heads share."""
        return 1, self.kv_lora_rank + self.qk_rope_head_dim


class Dense(Settings):
    """Gated feed-forward (Shazeer 2020): down(activation(gate x) * up x)."""

    kind: Literal["dense"] = "dense"
    inter_dim: int = Field(gt=0)
    bias: bool = False
    activation: Activation = "silu"


class MoE(Settings):
    """Sparse experts (DeepSeekMoE 2024): `n_active_experts` of the routed ones for each token, and all shared ones.

    Every expert is a gated feed-forward of width `moe_inter_dim`; the shared ones together are one of
    `n_shared_experts` times that. A token's experts are the best by score, plus `expert_bias` where there is one, among
    those of its `n_active_groups` best groups; a group is as good as its two best experts together ("top2_sum") or its
    best one ("max"). A chosen expert weighs its score without the bias, divided by the sum over the chosen where
    `normalize`, times `routed_scale`. Layers in `dense_layers` have the feed-forward `dense` instead.
    """

    kind: Literal["moe"] = "moe"
    n_routed_experts: int = Field(gt=0)
    n_active_experts: int = Field(gt=0)
    n_shared_experts: int = Field(default=0, ge=0)
    moe_inter_dim: int = Field(gt=0)
    score: Literal["softmax", "sigmoid"] = "softmax"
    expert_bias: bool = False
    n_groups: int = Field(default=1, gt=0)
    n_active_groups: int = Field(default=1, gt=0)
    group_score: Literal["top2_sum", "max"] = "top2_sum"
    normalize: bool = True
    routed_scale: float = Field(default=1.0, gt=0)
    activation: Activation = "silu"
    dense_layers: tuple[int, ...] = ()
    dense: Dense | None = None

    @property
    def shared(self) -> Dense | None:
        width = self.n_shared_experts * self.moe_inter_dim
        return Dense(inter_dim=width, activation=self.activation) if width else None

    @model_validator(mode="after")
    def _experts_can_be_chosen(self) -> "MoE":
        if self.n_routed_experts % self.n_groups:
            raise ValueError(f"{self.n_routed_experts} experts do not make {self.n_groups} equal groups")
        if self.n_active_groups > self.n_groups:
            raise ValueError(f"{self.n_active_groups} of {self.n_groups} groups cannot be active")
        eligible = self.n_routed_experts // self.n_groups * self.n_active_groups
        if self.n_active_experts > eligible:
            raise ValueError(f"{self.n_active_experts} experts cannot be chosen from {eligible}")
        if (self.dense is None) != (not self.dense_layers):
            raise ValueError("dense_layers and dense go together")
        return self


class Linear(Settings):
    """Every frequency divided by `factor` (Chen et al. 2023)."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(ge=1)


class DynamicNTK(Settings):
    """Beyond `original_max_seq_len` the base grows with the length, so that the slowest turn stays within a circle:
    theta (factor n / original - factor + 1)^(d / (d - 2)), where n counts the tokens up to the rotated one."""

    kind: Literal["dynamic_ntk"] = "dynamic_ntk"
    factor: float = Field(ge=1)
    original_max_seq_len: int = Field(gt=0)


class FixedNTK(Settings):
    """The base once for all: theta alpha^(d / (d - 2)) (Hunyuan)."""

    kind: Literal["fixed_ntk"] = "fixed_ntk"
    alpha: float = Field(gt=0)


class Llama3(Settings):
    """Slow turns are divided by `factor`, fast ones kept, those between mixed (Llama 3.1, 2024). Slow: fewer than
    `low_freq_factor` turns in the original length; fast: more than `high_freq_factor`."""

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low_freq_factor: float = Field(gt=0)
    high_freq_factor: float = Field(gt=0)
    original_max_seq_len: int = Field(gt=0)

    @model_validator(mode="after")
    def _slow_is_below_fast(self) -> "Llama3":
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(f"{self.low_freq_factor=} is not below {self.high_freq_factor=}")
        return self


class Yarn(Settings):
    """YaRN (Peng et al. 2023): a ramp from kept to divided frequencies, and a gain on what is rotated.

    The gain is `attention_factor` where given, else m(mscale) / m(mscale_all_dim) where both are, else m(1), with
    m(s) = 0.1 s ln(factor) + 1. MLA multiplies its scores by m(mscale_all_dim)^2 besides. `truncate`: the ends of the
    ramp are whole numbers.
    """

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1)
    original_max_seq_len: int = Field(gt=0)
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)
    mscale: float | None = Field(default=None, ge=0)
    mscale_all_dim: float | None = Field(default=None, ge=0)
    attention_factor: float | None = Field(default=None, gt=0)
    truncate: bool = True


RopeScaling = Annotated[Linear | DynamicNTK | FixedNTK | Llama3 | Yarn, Field(discriminator="kind")]


class MTP(Settings):
    """Multi-token prediction (DeepSeek-V3, 2024): module k guesses the token k + 2 places ahead.

    `hidden_first`: the projection takes [hidden; embedding], as the paper writes it; the released weights take
    [embedding; hidden].
    """

    n_modules: int = Field(gt=0, le=16)
    hidden_first: bool = False


class ModelConfig(Settings):
    """A decoder of `n_layers` blocks over a residual stream of width `dim`.

    `post_norms`: what attention and feed-forward give is normed once more before it joins the stream (Gemma 3).
    `embed_scale` multiplies the embeddings. `rope_interleaved`: neighbours (2i, 2i + 1) turn together, as DeepSeek's
    weights have it, else halves (i, i + d/2).
    """

    family: str
    vocab_size: int = Field(gt=0)
    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    attention: Annotated[GQA | MLA, Field(discriminator="kind")]
    ffn: Annotated[Dense | MoE, Field(discriminator="kind")]
    norm_eps: float = Field(gt=0)
    rope_theta: float = Field(gt=0)
    rope_scaling: RopeScaling | None = None
    rope_interleaved: bool = False
    max_seq_len: int = Field(gt=0)
    tied_head: bool = False
    post_norms: bool = False
    embed_scale: float = Field(default=1.0, gt=0)
    mtp: MTP | None = None

    def body(self) -> "ModelConfig":
        """Of the decoder below its head: no words come out of it, and it predicts no further ones."""
        return self.model_copy(update={"tied_head": True, "mtp": None})

    def ffn_of(self, layer: int) -> Dense | MoE:
        """Layers from `n_layers` on are those of the MTP modules."""
        if isinstance(self.ffn, MoE) and self.ffn.dense is not None and layer in self.ffn.dense_layers:
            return self.ffn.dense
        return self.ffn

    def window_of(self, layer: int) -> int | None:
        """How many tokens a query of the layer sees, itself among them; None: all before it."""
        window = self.attention.window
        return window.length if window is not None and layer in window.layers else None

    def rope_of(self, layer: int) -> tuple[float, RopeScaling | None]:
        """Base and scaling of the layer's rotation."""
        window = self.attention.window
        if window is not None and window.rope_theta is not None and layer in window.layers:
            return window.rope_theta, None
        return self.rope_theta, self.rope_scaling

    @model_validator(mode="after")
    def _layers_are_there(self) -> "ModelConfig":
        window, ffn = self.attention.window, self.ffn
        for name, layers in (
            ("attention.window.layers", () if window is None else window.layers),
            ("ffn.dense_layers", ffn.dense_layers if isinstance(ffn, MoE) else ()),
        ):
            if list(layers) != sorted(set(layers)) or not all(0 <= layer < self.n_layers for layer in layers):
                raise ValueError(f"{name} must name layers 0 to {self.n_layers - 1}, each once, in order")
        if isinstance(self.rope_scaling, DynamicNTK | FixedNTK) and self.attention.rope_dim <= 2:
            raise ValueError("NTK scaling needs more than two rotated dimensions")
        return self
