"""What a model is, as a type that cannot contradict itself. No torch here: listings and planners read it too."""

from pydantic import Field, model_validator

from smallpress.run.settings import Settings


class GQA(Settings):
    """Grouped-query attention (Ainslie et al. 2023): `n_heads` queries share `n_kv_heads` keys and values.

    Each of the four projections carries a bias or not, independently: Qwen2 has them on q, k, v; llamafied Qwen on all.
    """

    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0, multiple_of=2)
    q_bias: bool = False
    k_bias: bool = False
    v_bias: bool = False
    o_bias: bool = False

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> "GQA":
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")
        return self


class Dense(Settings):
    """SwiGLU feed-forward (Shazeer 2020): down(silu(gate x) * up x)."""

    inter_dim: int = Field(gt=0)
    bias: bool = False


class ModelConfig(Settings):
    """A decoder of `n_layers` equal blocks over a residual stream of width `dim`."""

    family: str
    vocab_size: int = Field(gt=0)
    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    attention: GQA
    ffn: Dense
    norm_eps: float = Field(gt=0)
    rope_theta: float = Field(gt=0)
    max_seq_len: int = Field(gt=0)
    tied_head: bool = False
