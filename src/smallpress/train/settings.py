"""The settings of supervised training; what a recipe of `smallpress sft` says."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from smallpress.lowbit.frozen import FrozenFormat
from smallpress.run.settings import Settings
from smallpress.train.samples import Form, TrainOn

OTHER_NAMES = {
    "learning_rate": "lr",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "max_length": "max_tokens",
    "gradient_checkpointing": "recompute",
}
"""Keys of other trainers' recipes that mean the same thing here."""

LINEAR = ("q", "k", "v", "o", "gate", "up", "down")


class LoRA(Settings):
    """Low-rank adapters over frozen weights; `base` quantizes those: QLoRA."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    targets: tuple[str, ...] = Field(LINEAR, min_length=1)  # last names of linear layers
    rank_stabilized: bool = False  # scale alpha / sqrt(rank) instead of alpha / rank
    base: FrozenFormat | None = None


class DPO(Settings):
    """Direct preference optimization (Rafailov et al. 2023); the data are pairs of answers."""

    beta: float = Field(0.1, gt=0)
    sft_weight: float = Field(0.0, ge=0)  # of the chosen answer's own likelihood, which DPO alone lets fall


class Pairwise(Settings):
    """A reward model of pairs of answers: a score in the place of the head; see train/pairwise.py."""

    margin: float = Field(0.0, ge=0)  # by which the chosen answer's score is to be the higher
    center: float = Field(0.0, ge=0)  # weight of the squared sum of both scores
    longest: float | None = Field(None, gt=1)  # pairs with an answer over so many times the other are left out


class TrainSettings(Settings):
    """What every supervised run is told."""

    other_names: ClassVar[Mapping[str, str]] = OTHER_NAMES

    model: str
    seed: int = 0

    # what is learned
    lora: LoRA | None = None  # none: all weights
    lr: float = Field(2e-5, gt=0)
    lr_shape: Literal["constant", "linear", "cosine"] = "cosine"  # to a tenth at the last step
    warmup: int = Field(5, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adamw", "adamw8"] = "adamw"
    max_grad_norm: float = Field(1.0, gt=0)

    # how fast
    samples_per_step: int = Field(16, ge=1)
    micro_batch_tokens: int = Field(2048, ge=64)
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # of the passes
    backward: Literal["same", "int8"] = "same"  # products of gradients in linear layers
    recompute: bool = False  # each block's activations in the backward pass: less memory, a third more time

    # how long
    epochs: float = Field(1.0, gt=0)
    steps: int | None = Field(None, ge=1)  # none: what the epochs need
    minutes: float | None = Field(None, gt=0)

    # what is written down
    eval_every: int = Field(20, ge=1)
    save_every: int = Field(50, ge=1)


class SFTSettings(TrainSettings):
    """One run of supervised fine-tuning on files of conversations, or on pairs of answers where `dpo` or `pairwise` is
    given."""

    data: tuple[str, ...] = Field(min_length=1)  # JSON lines
    eval_data: tuple[str, ...] = ()  # none: `eval_n` samples of the data, at most a tenth, are held out
    eval_n: int = Field(64, ge=0)
    form: Form = "auto"
    train_on: TrainOn = "answers"
    max_tokens: int = Field(1024, ge=2)  # of a sample
    too_long: Literal["drop", "cut"] = "drop"
    dpo: DPO | None = None
    pairwise: Pairwise | None = None

    @field_validator("data", "eval_data", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def model_post_init(self, _: object) -> None:
        if self.pairwise is not None and self.dpo is not None:
            raise ValueError("dpo and pairwise are two ways to learn from pairs: give one")
        if self.pairwise is not None and self.lora is not None:
            raise ValueError("pairwise trains all weights: leave out lora")
        if self.pairwise is not None and self.form not in ("auto", "chat"):
            raise ValueError(f"pairwise scores whole conversations: leave out form={self.form}")
