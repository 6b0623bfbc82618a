"""The settings of an RL run; what `smallpress grpo --recipe` reads. Names as in style: see TRL_NAMES for others'."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from smallpress.rl.judge_settings import JudgeSettings
from smallpress.rl.reward import PARTS
from smallpress.run.settings import Settings, nearest
from smallpress.tasks.mixture import parse_mixture, readable

TRL_NAMES = {
    "learning_rate": "lr",
    "num_generations": "group_size",
    "max_completion_length": "max_tokens",
    "max_steps": "steps",
    "loss_type": "algorithm",
}
"""Keys of TRL's and open-r1's recipes that mean the same thing here."""


class GRPOSettings(Settings):
    """One run of reinforcement learning with checkable rewards."""

    other_names: ClassVar[Mapping[str, str]] = TRL_NAMES

    model: str
    tasks: tuple[str, ...] = Field(min_length=1)  # "family", "family:level" or "family:first-last"
    seed: int = 0

    # what is asked
    form: Literal["chat", "r1_zero", "r1_zero_example"] = "r1_zero_example"
    prompts_per_step: int = Field(8, ge=1)
    group_size: int = Field(8, ge=2)
    train_on: int | None = Field(None, ge=2)  # of a group, those whose rewards differ most; None: all
    temperature: float = Field(1.0, ge=1e-3, le=1e3)
    max_temperature: float = Field(1.5, gt=0)
    target_entropy: float = Field(0.0, ge=0)  # nats a token; while it is less the temperature rises; 0: it stays
    max_tokens: int = Field(64, ge=1)

    # what is learned
    algorithm: Literal["grpo", "dr_grpo", "rloo", "dapo", "gspo", "cispo"] = "grpo"
    clip_low: float | None = Field(None, gt=0)  # None: the algorithm's own
    clip_high: float | None = Field(None, gt=0)
    beta: float = Field(0.0, ge=0)  # weight of the KL to the reference model; 0: there is none
    ref_reset_every: int = Field(400, ge=1)  # steps until the policy becomes its own reference
    sampler_cap: float = Field(2.0, gt=0)  # of the importance weight between trainer and sampler
    updates_per_rollout: int = Field(1, ge=1)
    rewards: dict[str, float] = Field(default_factory=lambda: {"accuracy": 1.0, "format": 1.0})

    # what no program can check (DeepSeek-R1, section 2.3.4)
    helpfulness: JudgeSettings | None = None  # judged by the summary alone
    harmlessness: JudgeSettings | None = None  # by the whole answer
    judges_from_step: int = Field(0, ge=0)  # the first step with judges and `prompts`; R1: 1,300 of 1,700
    prompts: tuple[str, ...] = ()  # files of questions without a checkable answer; judges alone know what is good
    prompts_share: float = Field(0.25, gt=0, le=1)  # of a step's prompts

    # how fast
    lr: float = Field(1e-6, gt=0)
    lr_shape: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = Field(2, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adamw", "adamw8"] = "adamw"  # adamw8: its moments in 8 bits, 2 bytes a parameter instead of 8
    max_grad_norm: float = Field(1.0, gt=0)
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # of the update
    backward: Literal["same", "int8"] = "same"  # products of gradients in linear layers
    rollout_dtype: Literal["auto", "int8", "bfloat16", "float32"] = "auto"
    micro_batch_tokens: int = Field(2048, ge=64)

    # how long
    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)  # of the whole run, measuring included

    # the curriculum
    curriculum: bool = True
    unlock_at: float = Field(0.6, gt=0, le=1)  # accuracy at which the next level of a family opens

    # what is written down
    eval_every: int = Field(20, ge=1)
    eval_n: int = Field(120, ge=1)
    eval_tasks: tuple[str, ...] = ()  # none: the tasks trained on
    eval_max_tokens: int = Field(128, ge=1)
    measure_n: int = Field(0, ge=0)  # held-out problems asked before and after, against the fairest baseline; 0: not
    save_every: int = Field(20, ge=1)
    samples_every: int = Field(5, ge=1)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """The (family, level) pairs trained on."""
        return parse_mixture(",".join(self.tasks))

    @property
    def eval_pairs(self) -> list[tuple[str, int]]:
        """Those measured."""
        return parse_mixture(",".join(self.eval_tasks)) if self.eval_tasks else self.pairs

    @field_validator("rewards")
    @classmethod
    def _known_parts(cls, rewards: dict[str, float]) -> dict[str, float]:
        for name in rewards:
            if name not in PARTS:
                raise ValueError(f"there is no reward part {name!r}; {nearest(name, PARTS)}")
        if not rewards or all(weight == 0 for weight in rewards.values()):
            raise ValueError("no reward part has a weight")
        return rewards

    @property
    def judges(self) -> dict[str, JudgeSettings]:
        """By what they judge."""
        named = {"helpfulness": self.helpfulness, "harmlessness": self.harmlessness}
        return {name: one for name, one in named.items() if one is not None}

    def n_general(self, n_prompts: int) -> int:
        """How many of so many prompts are general."""
        return round(self.prompts_share * n_prompts) if self.prompts else 0

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("tasks", "eval_tasks")
    @classmethod
    def _readable(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return readable(tasks)

    def model_post_init(self, _: object) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("give steps, minutes or both: the run has no end")
        if self.train_on is not None and self.train_on > self.group_size:
            raise ValueError(f"train_on={self.train_on} is above group_size={self.group_size}")
        if self.lr_shape != "constant" and self.steps is None:
            raise ValueError(f"lr_shape={self.lr_shape} needs steps: it must know where the run ends")
        if self.prompts and not self.judges:
            raise ValueError("prompts have no answer to check: give helpfulness or harmlessness, who judges them")
        if self.prompts and not self.n_general(self.prompts_per_step):
            raise ValueError(f"prompts_share={self.prompts_share} of {self.prompts_per_step} prompts a step is none")
        for name, judge in self.judges.items():
            if judge.on == "prompts" and not self.prompts:
                raise ValueError(f"{name}.on=prompts: there are no prompts to judge")
        if self.judges_from_step and not self.judges:
            raise ValueError("judges_from_step: there are no judges: give helpfulness or harmlessness")
        if self.steps is not None and self.judges_from_step >= self.steps:
            raise ValueError(f"judges_from_step={self.judges_from_step} is after the last of {self.steps} steps")
        if self.target_entropy and self.temperature > self.max_temperature:
            raise ValueError(f"temperature={self.temperature} is above max_temperature={self.max_temperature}")
