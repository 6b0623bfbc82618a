"""Who judges what no program can check; what a recipe of `smallpress grpo` says of it."""

from typing import Any, Literal

from pydantic import Field, model_validator

from smallpress.run.bill import EndpointSettings
from smallpress.run.settings import Settings

RULES = "rules"


class JudgeSettings(Settings):
    """A judge, and what its scores count. `helpfulness = "rules"` is short for a table with `by` alone."""

    by: str = Field(min_length=1)  # a reward model's folder, the address of an endpoint: http://.../v1, or "rules"
    weight: float = Field(1.0, gt=0)
    scale: Literal["unit", "group", "raw"] = (
        "unit"  # 0 to 1; or away from the group's mean, in its spreads; or as given
    )
    on: Literal["all", "prompts"] = "all"  # every rollout, or those of `prompts` alone

    # of an endpoint
    endpoint: EndpointSettings = EndpointSettings.model_validate({})
    prompt: str | None = (
        None  # a file with {mark}, {question} and {answer}; none: rl/judge_helpfulness.txt and the like
    )
    judgments: int = Field(1, ge=1)  # of each answer, averaged
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(1024, ge=1)  # of a judgment, its thinking included

    @property
    def is_remote(self) -> bool:
        return self.by.startswith(("http://", "https://"))

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, tree: Any) -> Any:
        return {"by": tree} if isinstance(tree, str) else tree

    def model_post_init(self, _: object) -> None:
        if self.judgments > 1 and self.temperature == 0:
            raise ValueError(f"judgments={self.judgments} at temperature=0 would all be the same: give a temperature")
        if self.prompt is not None and not self.is_remote:
            raise ValueError("prompt is for an endpoint")
