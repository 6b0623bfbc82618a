"""A reward model learned from pairs of answers (Bradley and Terry 1952; Stiennon et al. 2020, arXiv 2009.01325).

    loss = -log sigmoid(r(chosen) - r(rejected) - margin) + center (r(chosen) + r(rejected))^2

r is the score of a whole conversation. The margin is that of Llama 2 (arXiv 2307.09288, eq. 2), the same for all pairs.
Pairs tell differences alone; `center` keeps the scores about 0 (Eisenstein et al. 2023, arXiv 2312.09244).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from smallpress.corpus.conversations import read_preferences
from smallpress.corpus.filters import unlike_lengths
from smallpress.model.reward_model import RewardModel, all_scores, batches_of, tokens_of
from smallpress.model.transformer import Transformer
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.tokenizer.whole import encode_whole
from smallpress.train.data import Data, OnRow, apart, checked, without_copies
from smallpress.train.samples import Census, Sample
from smallpress.train.settings import SFTSettings


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two answered conversations. Nothing in them is predicted: a Sample's mask says which token is scored."""

    chosen: Sample
    rejected: Sample

    @property
    def texts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.chosen.ids, self.rejected.ids


def read_scored_pairs(settings: SFTSettings, tokenizer: Tokenizer, on_row: OnRow = lambda: None) -> Data:
    """Pairs of the settings' files, those for measuring apart. What is measured on is filtered by nothing but length
    in tokens."""
    census, assessed = Census(), Census()
    assert settings.pairwise is not None
    pairs = list(_pairs(settings, tokenizer, census, settings.data, settings.pairwise.longest, on_row))
    if settings.eval_data:
        items, held_out = pairs, list(_pairs(settings, tokenizer, assessed, settings.eval_data, None, on_row))
    else:
        items, held_out = apart(pairs, settings.eval_n, settings.seed)
    return checked(without_copies(items, held_out, census), held_out, census, settings.data)


def _pairs(
    settings: SFTSettings,
    tokenizer: Tokenizer,
    census: Census,
    files: Iterable[str],
    longest: float | None,
    on_row: OnRow,
) -> Iterator[ScoredPair]:
    for file in files:
        for preference in read_preferences(Path(file)):
            on_row()
            census.n_conversations += 1
            two = (preference.chosen.messages, preference.rejected.messages)
            answers = [str(messages[-1]["content"]) for messages in two]
            chosen, rejected = (encode_whole(tokenizer, messages) for messages in two)
            if chosen == rejected:
                census.dropped["chosen and rejected are the same"] += 1
            elif max(len(chosen), len(rejected)) > settings.max_tokens:
                census.dropped[f"over {settings.max_tokens} tokens"] += 1
            elif longest is not None and (why := unlike_lengths(answers[0], answers[1], longest)):
                census.dropped[why] += 1
            else:
                yield ScoredPair(_scored(chosen), _scored(rejected))


def _scored(ids: tuple[int, ...]) -> Sample:
    return Sample(ids, (False,) * (len(ids) - 1) + (True,))


class Pairwise:
    """The objective. `reward_accuracy` is the share of pairs whose chosen answer has the higher score, `longer_wins`
    what always taking the longer one would get right."""

    def __init__(self, settings: SFTSettings):
        assert settings.pairwise is not None
        self.how, self.budget = settings.pairwise, settings.micro_batch_tokens

    def accumulate(self, model: Transformer, items: Sequence[ScoredPair], step: int = 0) -> dict[str, float]:
        assert isinstance(model, RewardModel)
        sums: dict[str, float] = defaultdict(float)
        texts = [item.texts for item in items]
        for places in batches_of(texts, self.budget):
            score_S = model.scores([texts[i] for i in places])
            gap_B, middle_B = score_S[::2] - score_S[1::2], score_S[::2] + score_S[1::2]
            loss_B = -F.logsigmoid(gap_B - self.how.margin) + self.how.center * middle_B**2
            loss = loss_B.sum() / len(items)
            loss.backward()
            sums["loss"] += float(loss.detach())
            sums["reward_accuracy"] += float((gap_B.detach() > 0).sum()) / len(items)
            sums["reward_margin"] += float(gap_B.detach().sum()) / len(items)
            sums["reward_mean"] += float(middle_B.detach().sum()) / 2 / len(items)
        return dict(sums) | {"tokens": float(sum(map(tokens_of, texts)))}

    @torch.no_grad()
    def measure(self, model: Transformer, items: Sequence[ScoredPair]) -> dict[str, float]:
        assert isinstance(model, RewardModel)
        gap_B = torch.tensor([a - b for a, b in all_scores(model, [item.texts for item in items], self.budget)])
        longer = [_longer(len(item.chosen.ids), len(item.rejected.ids)) for item in items]
        return {
            "loss": float(-F.logsigmoid(gap_B).mean()),
            "reward_accuracy": float((gap_B > 0).float().mean()),
            "reward_margin": float(gap_B.mean()),
            "longer_wins": sum(longer) / len(longer),
        }

    def fingerprint(self, item: ScoredPair) -> str:
        return f"{item.chosen.ids}{item.rejected.ids}"


def _longer(chosen: int, rejected: int) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)
