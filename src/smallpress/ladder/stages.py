"""The stages in their order: what each starts from, and the settings of its run.

    0-r1-zero               RL from the base alone, where the cold start is to learn from its answers
    1-cold-start            the base learns a few right, well-formed, readable answers
    2-reasoning-rl          RL from there, with a reward for keeping to one language
    3-rejection-sampling    the base again learns the right and readable answers of 2, and what needs no reasoning
    4-all-scenarios-rl      RL from there, on everything

Each is a folder of `smallpress grpo`, `distill` or `sft`, which those verbs read, watch and go on with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallpress.ladder.settings import R1Settings
from smallpress.rl.settings import GRPOSettings
from smallpress.run.errors import UserError
from smallpress.run.settings import nearest
from smallpress.train.distill_settings import DistillSettings
from smallpress.train.settings import SFTSettings

RunSettings = GRPOSettings | DistillSettings | SFTSettings

BASE, ZERO = "base", "r1_zero"
GENERAL = "general-answers"
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Stage:
    """`key` names its section of the settings, `start` whose model it trains, `teacher` who answers it.

    `forms`: how it is asked when it is measured; `given`: a model made elsewhere takes the stage's place.
    """

    key: str
    name: str
    title: str
    start: str = BASE
    teacher: str | None = None
    forms: tuple[str, ...] = ("chat",)
    given: str | None = None

    def folder(self, out: Path) -> Path:
        return out / self.name

    def model(self, out: Path) -> Path:
        return Path(self.given) if self.given else self.folder(out) / MODEL


def stages(settings: R1Settings) -> list[Stage]:
    zero = Stage(
        ZERO, "0-r1-zero", "R1-Zero: reinforcement learning from the base",
        forms=tuple(dict.fromkeys((settings.r1_zero.form, "chat"))), given=settings.trained_r1_zero,
    )  # fmt: skip
    elsewhere = settings.cold_start.teacher != settings.model
    from_zero = not settings.cold_start_data and not elsewhere
    cold = Stage("cold_start", "1-cold-start", "cold start", teacher=ZERO if from_zero else None)
    return [
        *([zero] if from_zero or settings.trained_r1_zero else []),
        cold,
        Stage("reasoning_rl", "2-reasoning-rl", "reinforcement learning of reasoning", start="cold_start"),
        Stage(
            "rejection_sampling", "3-rejection-sampling", "rejection sampling, and the base learns again",
            teacher="reasoning_rl",
        ),
        Stage(
            "all_scenarios_rl", "4-all-scenarios-rl", "reinforcement learning for all scenarios",
            start="rejection_sampling",
        ),
    ]  # fmt: skip


def find_stage(word: str, known: Sequence[Stage]) -> Stage:
    """By its number, its name or both: "1", "cold-start", "1-cold-start". Raises UserError."""
    for stage in known:
        number, _, name = stage.name.partition("-")
        if word.replace("_", "-") in (number, name, stage.name):
            return stage
    raise UserError(f"there is no stage {word!r} in this ladder", nearest(word, [stage.name for stage in known]))


def run_settings(settings: R1Settings, stage: Stage, out: Path, minutes: float | None) -> RunSettings:
    """Those of the stage's run in the ladder's folder `out`, with at most so many minutes."""
    models = {BASE: settings.model} | {one.key: str(one.model(out)) for one in stages(settings)}
    section = getattr(settings, stage.key)
    limits = [limit for limit in (section.minutes, minutes) if limit is not None]
    change: dict[str, Any] = {"model": models[stage.start], "minutes": min(limits, default=None)}
    if isinstance(section, GRPOSettings):
        return section.model_copy(update=change)
    assert isinstance(section, DistillSettings)
    if stage.key == "cold_start" and settings.cold_start_data:
        shared = section.sft("").model_dump() | {"data": settings.cold_start_data}
        return SFTSettings.model_validate(shared | change)
    if stage.teacher is not None:
        change["teacher"] = models[stage.teacher]
    if change["minutes"] is not None:
        asking = change["minutes"] * settings.shares.asking
        change["ask_minutes"] = min(asking, section.ask_minutes or asking)
        change["minutes"] -= change["ask_minutes"]
    if stage.key == "rejection_sampling":
        change["others"] = (*section.others, *settings.general_data, *general_file(settings, out))
    return section.model_copy(update=change)


def general_file(settings: R1Settings, out: Path) -> list[str]:
    """Where the base's answers to what needs no reasoning are kept; none where nothing is asked."""
    return [str(out / GENERAL / "data.jsonl")] if settings.general_prompts else []


def general_settings(settings: R1Settings) -> DistillSettings:
    """How the base is asked for them: each prompt `general_each` times, filtered as the third stage filters."""
    section = settings.rejection_sampling
    asked: Mapping[str, Any] = {
        "model": settings.model,
        "teacher": settings.model,
        "tasks": (),
        "prompts": settings.general_prompts,
        "teacher_form": "chat",
        "temperature": 0.7,
        "answers_each": settings.general_each,
        "keep_each": settings.general_each,
        "answer_tokens": settings.general_tokens,
        "others": (),
    }
    return section.model_copy(update=asked)


def share_of(settings: R1Settings, stage: Stage, seconds_left: float) -> float:
    """Minutes for this stage, of the seconds that are left for it and those after it.

    With the shares 3, 1 and 4 of the last three stages, the first of them has three eighths.
    """
    rest = [one for one in stages(settings) if one.given is None]
    shares = {one.key: getattr(settings.shares, one.key) for one in rest[[one.key for one in rest].index(stage.key) :]}
    return max(0.0, seconds_left) / 60 * shares[stage.key] / sum(shares.values())
