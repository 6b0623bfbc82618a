"""The settings of a ladder: what all its stages share, and a section for each, in the words of its own verb.

A section is the whole settings of a run of `smallpress grpo` or `distill`, which the ladder fills in from what is
shared, from R1's own values (`R1`), and from what the recipe says; unknown keys are refused as there. What a stage
starts from and how long it may take, the ladder says when its turn comes (stages.py).
"""

from typing import Any

from pydantic import Field, field_validator, model_validator

from smallpress.rl.settings import GRPOSettings
from smallpress.run.seeds import derive_seed
from smallpress.run.settings import Settings
from smallpress.tasks.mixture import parse_mixture, readable
from smallpress.train.distill_settings import DistillSettings

RL_KEYS = ("r1_zero", "reasoning_rl", "all_scenarios_rl")
TAUGHT_KEYS = ("cold_start", "rejection_sampling")
JUDGES = ("helpfulness", "harmlessness")

_FROM_ANSWERS: dict[str, Any] = {
    "form": "chat",
    "reading": "strict",
    "temperature": 1.0,
    "filters": {"correct": True, "well_formed": True, "paragraph_words": 150, "code_blocks": False},
    "answers_each": 4,
    "keep_each": 1,
    "epochs": 2,
    "lr": 5e-5,
}
"""Of both stages that learn from a teacher's answers."""

R1: dict[str, dict[str, Any]] = {
    "r1_zero": {"form": "r1_zero_example"},
    "cold_start": {"teacher_form": "r1_zero_example", **_FROM_ANSWERS},
    "reasoning_rl": {"form": "chat", "temperature": 1.0, "rewards": {"accuracy": 1.0, "format": 1.0, "language": 1.0}},
    "rejection_sampling": {"teacher_form": "chat", **_FROM_ANSWERS},
    "all_scenarios_rl": {
        "form": "chat",
        "temperature": 0.7,
        "rewards": {"accuracy": 1.0, "format": 1.0, "language": 1.0},
    },
}
"""What the paper says of each stage (arXiv 2501.12948, 2.2 and 2.3), where a recipe says nothing else."""


class Shares(Settings):
    """Of the minutes that are left, by stage: what a stage does not use is shared by those after it."""

    r1_zero: float = Field(8.0, gt=0)
    cold_start: float = Field(3.0, gt=0)
    reasoning_rl: float = Field(5.0, gt=0)
    rejection_sampling: float = Field(5.0, gt=0)
    all_scenarios_rl: float = Field(4.0, gt=0)
    asking: float = Field(0.4, gt=0, lt=1)  # of a stage that learns from answers, until the asking ends


class R1Settings(Settings):
    """One ladder. `model` is the base, from which every supervised stage begins."""

    model: str
    seed: int = 0
    minutes: float | None = Field(None, gt=0)  # of the whole, measuring included
    shares: Shares = Shares.model_validate({})
    tasks: tuple[str, ...] = Field(min_length=1)

    # where the cold start's answers come from, if not from a stage of R1-Zero
    trained_r1_zero: str | None = None  # a model: measured as stage 0, and answers for the cold start
    cold_start_data: tuple[str, ...] = ()  # files of conversations: there is no stage 0

    # what needs no reasoning: a quarter of what the third stage learns, and a part of what the last is asked
    general_prompts: tuple[str, ...] = ()  # files of prompts that the base answers; in the last stage judges judge them
    general_data: tuple[str, ...] = ()  # files of conversations, learned as they are
    general_each: int = Field(1, ge=1)  # answers to a prompt
    general_tokens: int = Field(256, ge=1)  # of an answer

    # what is measured after each stage, on the same held-out problems
    eval_tasks: tuple[str, ...] = ()  # none: the tasks trained on
    measure_n: int = Field(200, ge=1)
    measure_tokens: int = Field(128, ge=1)

    r1_zero: GRPOSettings
    cold_start: DistillSettings
    reasoning_rl: GRPOSettings
    rejection_sampling: DistillSettings
    all_scenarios_rl: GRPOSettings

    @property
    def eval_pairs(self) -> list[tuple[str, int]]:
        """The (family, level) pairs measured."""
        return parse_mixture(",".join(self.eval_tasks or self.tasks))

    @field_validator("tasks", "eval_tasks")
    @classmethod
    def _readable(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return readable(tasks)

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, tree: Any) -> Any:
        """Every section whole, so that it is refused for what its own verb would refuse it for; with a seed of its own,
        or every stage would ask the same problems."""
        if not isinstance(tree, dict):
            return tree
        shared = {key: tree[key] for key in ("model", "tasks", "minutes") if tree.get(key) is not None}
        measured = {"eval_tasks": tree["eval_tasks"]} if "eval_tasks" in tree else {}
        filled, seed = dict(tree), tree.get("seed", 0)
        for key, own in R1.items():
            section = tree.get(key, {})
            if isinstance(section, dict):
                drawn = {"seed": derive_seed(seed, key) % 2**31} if isinstance(seed, int) else {}
                filled[key] = _filled(own | shared | drawn | (measured if key in RL_KEYS else {}), section)
                if key in TAUGHT_KEYS:
                    filled[key].setdefault("teacher", tree.get("model"))
        last = filled["all_scenarios_rl"]
        if isinstance(last, dict) and last.get("form") == "chat" and any(last.get(name) for name in JUDGES):
            last.setdefault("prompts", tree.get("general_prompts", ()))
        return filled

    def model_post_init(self, _: object) -> None:
        for key in RL_KEYS + TAUGHT_KEYS:
            section = getattr(self, key)
            if section.model != self.model:
                raise ValueError(f"{key}.model is {section.model!r}: a ladder has one model, which stands above")
        for key in TAUGHT_KEYS:
            if getattr(self, key).lora is not None:
                raise ValueError(f"{key}.lora: the next stage needs a model, not adapters")
        for key in RL_KEYS:
            if getattr(self, key).measure_n:
                raise ValueError(f"{key}.measure_n: the ladder measures every stage; measure_n stands above")
        if self.cold_start_data and self.trained_r1_zero:
            raise ValueError("cold_start_data and trained_r1_zero are both given: the cold start has one source")


def _filled(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over`, and what it does not say from `under`; tables of settings are filled alike, a choice of rewards is not.

    >>> _filled({"lr": 1, "filters": {"correct": True}}, {"filters": {"repeated": 0.1}})
    {'lr': 1, 'filters': {'correct': True, 'repeated': 0.1}}
    """
    below, above = under.get("filters"), over.get("filters")
    both = {"filters": {**below, **above}} if isinstance(below, dict) and isinstance(above, dict) else {}
    return {**under, **over, **both}
