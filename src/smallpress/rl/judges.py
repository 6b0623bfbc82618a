"""Judges: what no program can check is scored by a reward model, by an endpoint, or by rules of form.

DeepSeek-R1 (arXiv 2501.12948, section 2.3.4): helpfulness is judged by the summary alone, so that the thinking stays
free; harmlessness by the whole answer. An answer without a summary helps nobody: it is not put to a judge, and gets the
least. A judge that gives no score has failed: NaN, never 0, and a group with NaN teaches nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from smallpress.model.sizes import parameters
from smallpress.rl.judge import Judge, Message
from smallpress.rl.judge_settings import RULES, JudgeSettings
from smallpress.run.errors import UserError
from smallpress.tokenizer.prompts import summary_of

if TYPE_CHECKING:
    import torch

    from smallpress.rl.settings import GRPOSettings
    from smallpress.weights.reward_model import RewardFiles

SPREAD_FLOOR = 1e-4


@dataclass(frozen=True, slots=True)
class JudgedGroup:
    """The answers to one prompt. `general`: no program can check them."""

    messages: Sequence[Message]
    texts: Sequence[str]
    general: bool


@dataclass(frozen=True, slots=True)
class Judges:
    """Those of a run, by what they judge."""

    settings: Mapping[str, JudgeSettings]
    judges: Mapping[str, Judge]

    def weights(self) -> dict[str, float]:
        return {name: one.weight for name, one in self.settings.items()}

    def parts(self, groups: Sequence[JudgedGroup]) -> list[list[dict[str, float]]]:
        """The judges' parts of the reward, for each text of each group."""
        found: list[list[dict[str, float]]] = [[{} for _ in group.texts] for group in groups]
        for name, settings in self.settings.items():
            places = [i for i, group in enumerate(groups) if group.general or settings.on == "all"]
            judge = self.judges[name]
            for i, values in zip(places, _raw(name, judge, [groups[i] for i in places]), strict=True):
                for parts, value in zip(found[i], scaled(values, settings.scale, judge.bounded), strict=True):
                    parts[name] = value
        return found

    def rehearse(self) -> dict[str, float]:
        """Each judge's score of one plain answer: it is there, and can be asked."""
        group = JudgedGroup(({"role": "user", "content": "What is 2 + 2?"},), ("2 + 2 is 4.",), general=True)
        return self.parts([group])[0][0]

    def keep_in(self, folder: Path) -> None:
        """Judgments that were paid for are kept there, and asked for once."""
        from smallpress.rl.endpoint_judge import EndpointJudge

        for name, judge in self.judges.items():
            if isinstance(judge, EndpointJudge):
                judge.keep_in(folder / f"judgments-{name}.jsonl")


def seen_by(name: str, text: str) -> str:
    """What of an answer the judge is shown."""
    return summary_of(text) if name == "helpfulness" else text.strip()


def _raw(name: str, judge: Judge, groups: Sequence[JudgedGroup]) -> list[list[float]]:
    """Scores as the judge gives them, -inf where there is nothing to judge."""
    shown = [[seen_by(name, text) for text in group.texts] for group in groups]
    asked = [(group.messages, text) for group, texts in zip(groups, shown, strict=True) for text in texts if text]
    values = iter(judge.scores(asked))
    return [[next(values) if text else -math.inf for text in texts] for texts in shown]


def scaled(values: Sequence[float], scale: str, bounded: bool) -> list[float]:
    """A group's scores as parts of the reward; -inf becomes the least there is, NaN stays.

    >>> scaled([0.0, -math.inf], "unit", bounded=False), scaled([3.0, 1.0, -math.inf], "raw", bounded=False)
    ([0.5, 0.0], [3.0, 1.0, 1.0])
    >>> [round(value, 3) for value in scaled([0.2, 0.6], "group", bounded=True)]
    [-1.0, 1.0]
    """
    if scale == "unit":
        return [max(value, 0.0) if bounded else _sigmoid(value) for value in values]
    known = [value for value in values if math.isfinite(value)]
    floor = min(known, default=0.0)
    filled = [floor if value == -math.inf else value for value in values]
    if scale == "raw":
        return filled
    finite = [value for value in filled if math.isfinite(value)]
    mean, spread = (fmean(finite), pstdev(finite)) if finite else (0.0, 0.0)
    return [(value - mean) / (spread + SPREAD_FLOOR) for value in filled]


def _sigmoid(value: float) -> float:
    """
    >>> _sigmoid(-math.inf), _sigmoid(800.0), _sigmoid(0.0), _sigmoid(math.nan)
    (0.0, 1.0, 0.5, nan)
    """
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return value if math.isnan(value) else math.exp(value) / (1 + math.exp(value))


def open_judges(settings: "GRPOSettings", dtype: "torch.dtype", offline: bool) -> Judges | None:
    """Those the settings name, a reward model that judges both loaded once; None where there are none."""
    from smallpress.rl.endpoint_judge import EndpointJudge
    from smallpress.rl.reward_judge import RewardJudge
    from smallpress.rl.rules_judge import RulesJudge
    from smallpress.weights.reward_model import load_reward_model

    named = settings.judges
    judges: dict[str, Judge] = {}
    for name, one in named.items():
        if one.is_remote and offline:
            raise UserError(f"{name}.by is the address {one.by}", "leave out --offline, or give a folder")
        if one.is_remote:
            judges[name] = EndpointJudge(name, one, settings.seed)
        if one.by == RULES:
            judges[name] = RulesJudge()
    for by, files in _reward_models(named, offline).items():
        judge = RewardJudge(load_reward_model(files, dtype), files.tokenizer(), settings.micro_batch_tokens)
        judges |= {name: judge for name, one in named.items() if one.by == by}
    return Judges(named, judges) if named else None


def reward_model_bytes(settings: "GRPOSettings", offline: bool) -> float:
    """What the reward models hold in the run's dtype, which is resolved."""
    width = 2 if settings.dtype == "bfloat16" else 4
    found = _reward_models(settings.judges, offline).values()
    return float(sum(width * parameters(files.config).total for files in found))


def _reward_models(named: Mapping[str, JudgeSettings], offline: bool) -> dict[str, "RewardFiles"]:
    """Each opened once, by what the settings call it; no weight is read."""
    from smallpress.weights.reference import resolve
    from smallpress.weights.reward_model import open_reward_model

    local = dict.fromkeys(one.by for one in named.values() if one.by != RULES and not one.is_remote)
    return {by: open_reward_model(resolve(by, offline)) for by in local}
