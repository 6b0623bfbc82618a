"""The settings of pretraining; what a recipe of `smallpress pretrain` says."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from smallpress.model.config import ModelConfig, MoE
from smallpress.optim.schedule import Fall
from smallpress.parallel.settings import Parallel
from smallpress.run.settings import Settings

Arithmetic = Literal["float32", "bfloat16", "int8", "fp8"]

OF_THE_CORPUS = 1
"""A vocabulary's size that nobody means: the model takes the corpus's."""

SHAPE = {"family": "deepseek_v3", "vocab_size": OF_THE_CORPUS, "norm_eps": 1e-6, "rope_theta": 1e4}
"""What a recipe's shape need not say."""


class MTPLoss(Settings):
    """The share of the losses of multi-token prediction, V3's lambda: 0.3, and 0.1 from 10T of 14.8T tokens on."""

    weight: float = Field(0.3, ge=0)
    late_weight: float = Field(0.1, ge=0)
    late_from: float = Field(0.676, ge=0, le=1)  # share of the run's tokens

    def at(self, share: float) -> float:
        return self.weight if share < self.late_from else self.late_weight


class Balance(Settings):
    """How experts are kept evenly used: V3's bias, moved by gamma until 14.3T of 14.8T tokens, and its loss within
    single sequences."""

    gamma: float = Field(0.001, ge=0)
    gamma_until: float = Field(0.966, ge=0, le=1)  # share of the run's tokens
    alpha: float = Field(1e-4, ge=0)

    def gamma_at(self, share: float) -> float:
        return self.gamma if share < self.gamma_until else 0.0


class PretrainSettings(Settings):
    """One run of pretraining on a corpus that `smallpress corpus` made."""

    other_names: ClassVar[Mapping[str, str]] = {
        "learning_rate": "lr",
        "max_steps": "steps",
        "sequence_length": "seq_len",
        "gradient_checkpointing": "recompute",
    }

    shape: ModelConfig
    corpus: str
    seed: int = 0
    init_std: float = Field(0.006, gt=0)

    # how much, in tokens
    tokens: float | None = Field(None, ge=1)  # of the run; none: what `steps` take
    steps: int | None = Field(None, ge=1)  # none: what `tokens` need
    minutes: float | None = Field(None, gt=0)
    seq_len: int = Field(1024, ge=2)
    batch_tokens: int = Field(16_384, ge=1)
    first_batch_tokens: int | None = Field(None, ge=1)  # none: no ramp
    ramp_tokens: float = Field(0.0, ge=0)  # over so many the batch grows from the first size to the last
    micro_batch_tokens: int = Field(4096, ge=1)

    # how it learns
    lr: float = Field(3e-4, gt=0)
    lr_shape: Fall = "v3"
    warmup: int = Field(100, ge=1)  # steps
    weight_decay: float = Field(0.1, ge=0)
    optimizer: Literal["adamw", "adamw8"] = "adamw"
    max_grad_norm: float = Field(1.0, gt=0)
    arithmetic: Arithmetic = "bfloat16"  # of the linear layers
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the rest; auto: the same, beside 8 bits the faster one
    recompute: bool = False
    mask_documents: bool = False  # no token sees another document
    fim_rate: float = Field(0.0, ge=0, le=1)  # share of documents told as beginning, end, middle
    mtp: MTPLoss = MTPLoss.model_validate({})
    balance: Balance = Balance.model_validate({})
    ema: float | None = Field(None, ge=0, lt=1)  # decay of an average of the weights
    export: Literal["weights", "ema"] = "weights"

    # on how many processes
    parallel: Parallel = Parallel()

    # when it goes wrong
    roll_back_after: int = Field(5, ge=1)  # so many steps skipped in a row

    # what is written down
    eval_every: int = Field(50, ge=1)
    eval_tokens: int = Field(65_536, ge=1)
    save_every: int = Field(100, ge=1)

    @field_validator("shape", mode="before")
    @classmethod
    def _what_a_shape_need_not_say(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        attention = tree.get("attention")
        is_latent = isinstance(attention, dict) and attention.get("kind") == "mla"
        return SHAPE | {"rope_interleaved": is_latent} | tree

    @model_validator(mode="after")
    def _makes_sense(self) -> "PretrainSettings":
        if self.tokens is None and self.steps is None:
            raise ValueError("say how long: tokens or steps")
        if self.export == "ema" and self.ema is None:
            raise ValueError("export = ema needs the decay, such as ema = 0.999")
        kind = self.arithmetic
        if kind in ("float32", "bfloat16") and self.dtype not in ("auto", kind):
            raise ValueError(f"dtype={self.dtype} is of what 8 bits leave out: with arithmetic={kind} drop it")
        if self.seq_len > self.shape.max_seq_len:
            raise ValueError(f"seq_len={self.seq_len} is above shape.max_seq_len={self.shape.max_seq_len}")
        smallest = min(self.batch_tokens, self.first_batch_tokens or self.batch_tokens)
        if smallest < self.seq_len:
            raise ValueError(f"a batch of {smallest} tokens does not hold a row of seq_len={self.seq_len}")
        self._can_be_spread()
        n_further = self.shape.mtp.n_modules if self.shape.mtp else 0
        if self.seq_len <= n_further:
            raise ValueError(f"rows of {self.seq_len} tokens leave nothing to {n_further} modules that look further")
        return self

    def _can_be_spread(self) -> None:
        spread = self.parallel
        if spread.stages > 1 and isinstance(self.shape.ffn, MoE) and self.balance.alpha > 0:
            raise ValueError("a pipeline does not hold the loss within sequences: set balance.alpha = 0")
        if spread.sync_every > 1 and self.save_every % spread.sync_every:
            raise ValueError(f"save_every={self.save_every} is no multiple of sync_every={spread.sync_every}")
        if spread.sync_every > 1 and self.ema is not None:
            raise ValueError("an average of the weights (ema) needs replicas that agree at every step: sync_every = 1")
