"""The plan of a ladder: every stage with its minutes, memory and pace, before anything is trained."""

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from smallpress.cli.foresight import foresee_distill, foresee_learning, summary
from smallpress.run.progress import clock_time

if TYPE_CHECKING:
    from smallpress.ladder.settings import R1Settings
    from smallpress.ladder.stages import RunSettings
    from smallpress.planner.plan import Plan
    from smallpress.train.distill_settings import DistillSettings
    from smallpress.train.settings import SFTSettings
    from smallpress.weights.load import ModelFiles

SAMPLED_PROMPTS = 64


def foretell(settings: "R1Settings", out: Path, offline: bool) -> None:
    """Print it. Raises UserError where a stage cannot fit into memory, or a file it needs cannot be read."""
    from smallpress.ladder.stages import run_settings, share_of, stages
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    files = open_model(resolve(settings.model, offline))
    length = "as long as its steps" if settings.minutes is None else f"{settings.minutes:g} minutes"
    print(f"{settings.model}, {length}; {settings.measure_n} held-out problems after each stage")
    left = None if settings.minutes is None else 60 * settings.minutes
    for stage in stages(settings):
        print(f"\n{stage.name}: {stage.title}")
        if stage.given is not None:
            print(f"  is {stage.given}, which is only measured")
            continue
        minutes = None if left is None else share_of(settings, stage, left)
        left = None if left is None or minutes is None else left - 60 * minutes
        plan, words = _foretold(files, run_settings(settings, stage, out, minutes), minutes, offline)
        plan.require_room()
        limit = "" if minutes is None else f"; at most {clock_time(60 * minutes)}"
        print(f"  {words}{limit}\n  " + summary(plan).replace("\n", "\n  "))


def _foretold(files: "ModelFiles", told: "RunSettings", minutes: float | None, offline: bool) -> tuple["Plan", str]:
    """The plan of a stage's run, and the run in words. Every model of a ladder has the base's shape."""
    from smallpress.cli.grpo import plan_of
    from smallpress.rl.settings import GRPOSettings
    from smallpress.train.distill_settings import DistillSettings

    if isinstance(told, DistillSettings):
        return _taught(files, told)
    if not isinstance(told, GRPOSettings):
        return _learning(files, told), f"from {told.model}; learns {', '.join(told.data)}"
    tokenizer = files.tokenizer()
    pace = plan_of(files, tokenizer, told, offline).figures["seconds a step"]
    fitting = [told.steps] if told.steps else []
    fitting += [max(1, int(60 * minutes / pace))] if minutes is not None else []
    plan = plan_of(files, tokenizer, told.model_copy(update={"steps": min(fitting)}), offline)
    asked = f"{told.prompts_per_step} problems x {told.group_size} answers a step"
    parts = told.rewards | {name: judge.weight for name, judge in told.judges.items()}
    rewards = ", ".join(f"{name} {weight:g}" for name, weight in parts.items())
    return plan, f"from {told.model}; {asked}, about {min(fitting)} steps; rewards: {rewards}"


def _taught(files: "ModelFiles", told: "DistillSettings") -> tuple["Plan", str]:
    """As if as many answers were kept as may be, of the length the planner takes answers to have."""
    from smallpress.tokenizer.prompts import encode_prompt
    from smallpress.train.gather import questions

    asked, tokenizer = questions(told), files.tokenizer()
    n_prompt = fmean(
        len(encode_prompt(tokenizer, "chat", str(one.messages[-1]["content"]))) for one in asked[:SAMPLED_PROMPTS]
    )
    others_share = told.others_share if told.others else 0.0
    with_others = told.model_copy(update={"epochs": told.epochs / (1 - others_share)})
    others = f", and {', '.join(told.others)} as {100 * others_share:.0f} % of it" if told.others else ""
    questions_ = f"{len(asked)} questions, {told.answers_each} each"
    plan = foresee_distill(files, with_others, len(asked), n_prompt, files)
    return plan, f"from {told.model}; learns what {told.teacher} answers to {questions_}{others}"


def _learning(files: "ModelFiles", told: "SFTSettings") -> "Plan":
    """As if a step were one micro-batch: what the files hold is read when the stage begins."""
    asked = {
        "n_tokens": told.micro_batch_tokens,
        "batch_tokens": told.micro_batch_tokens,
        "seq_len": min(told.max_tokens, told.micro_batch_tokens // told.samples_per_step),
        "micro_tokens": told.micro_batch_tokens,
        "dtype": told.dtype,
        "backward": told.backward,
        "optimizer": told.optimizer,
    }
    return foresee_learning("sft", told.model, files.config, asked)
