"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): pairs of answers, no reward model.

    loss = -log sigmoid(beta ((log p(chosen) - log ref(chosen)) - (log p(rejected) - log ref(rejected))))

with log p of a whole answer, and ref the model as it was before training. Its log-probabilities of the data never
change, so they are computed once for each pair, when it is first met, and need no second model: full training keeps
the frozen weights beside, adapters are switched off.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from smallpress.corpus.conversations import Preference, read_preferences
from smallpress.model.low_rank import without_adapters
from smallpress.model.transformer import Transformer
from smallpress.optim.master import MasterWeights
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.train.data import Data, OnRow, apart, checked, sampler_of, without_copies
from smallpress.train.objective import logprobs_of
from smallpress.train.packing import MicroBatch, pack
from smallpress.train.samples import Sample, Sampler
from smallpress.train.settings import SFTSettings
from smallpress.weights.load import ModelFiles, load_transformer


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, only the answers trained on."""

    chosen: Sample
    rejected: Sample


def read_pairs(settings: SFTSettings, tokenizer: Tokenizer, on_row: OnRow = lambda: None) -> Data:
    """Pairs of the settings' files, those for measuring apart."""
    sampler = sampler_of(settings.model_copy(update={"train_on": "last_answer", "too_long": "drop"}), tokenizer)
    pairs = list(_pairs(sampler, settings.data, on_row))
    if settings.eval_data:
        items, held_out = pairs, list(_pairs(sampler, settings.eval_data, on_row))
    else:
        items, held_out = apart(pairs, settings.eval_n, settings.seed)
    return checked(without_copies(items, held_out, sampler.census), held_out, sampler.census, settings.data)


def _pairs(sampler: Sampler, files: Iterable[str], on_row: OnRow) -> Iterator[Pair]:
    for file in files:
        for preference in read_preferences(Path(file)):
            on_row()
            if (pair := _pair(sampler, preference)) is not None:
                yield pair


def _pair(sampler: Sampler, preference: Preference) -> Pair | None:
    """None, and counted, where an answer is empty or too long, or both are the same."""
    if preference.chosen == preference.rejected:
        sampler.census.n_conversations += 1
        sampler.census.dropped["chosen and rejected are the same"] += 1
        return None
    chosen = sampler.samples([preference.chosen])
    if not chosen:
        return None
    rejected = sampler.samples([preference.rejected])
    sampler.census.n_conversations -= 1  # a pair is one row
    return Pair(chosen[0], rejected[0]) if rejected else None


class Preferences:
    """The objective; `reward_accuracy` is the share of pairs whose chosen answer gained more than the rejected one."""

    def __init__(self, settings: SFTSettings, files: ModelFiles, weights: MasterWeights):
        assert settings.dpo is not None
        self.dpo, self.budget = settings.dpo, settings.micro_batch_tokens
        self.reference: Transformer | None = None
        if settings.lora is None:
            self.reference = load_transformer(files, weights.dtype).requires_grad_(False)
        self._known: dict[Pair, list[float]] = {}

    def accumulate(self, model: Transformer, items: Sequence[Pair], step: int = 0) -> dict[str, float]:
        return self._run(model, items)

    @torch.no_grad()
    def measure(self, model: Transformer, items: Sequence[Pair]) -> dict[str, float]:
        log = self._run(model, items)
        return {name: log[name] for name in ("loss", "reward_accuracy", "reward_margin")}

    def fingerprint(self, item: Pair) -> str:
        return f"{item.chosen.ids}{item.rejected.ids}"

    def _run(self, model: Transformer, items: Sequence[Pair]) -> dict[str, float]:
        """The loss couples the two answers of a pair, which may lie in different batches: so first the values, then
        the derivative of the loss by each answer's log-probability as that answer's weight."""
        samples = [sample for pair in items for sample in (pair.chosen, pair.rejected)]
        batches = pack(samples, self.budget, [1.0] * len(samples))
        ref_S = self._reference_of(model, items)
        with torch.no_grad():
            policy_S = summed(model, batches, len(samples))
        policy_S.requires_grad_(torch.is_grad_enabled())
        gain_S = policy_S - ref_S
        margin = self.dpo.beta * (gain_S[::2] - gain_S[1::2])
        loss = -F.logsigmoid(margin).mean()
        log: dict[str, float] = defaultdict(float)
        log |= {
            "loss": float(loss.detach()),
            "reward_margin": float(margin.detach().mean()),
            "reward_accuracy": float((margin.detach() > 0).float().mean()),
            "chosen_logprob": float(policy_S.detach()[::2].mean()),
            "rejected_logprob": float(policy_S.detach()[1::2].mean()),
            "tokens": float(sum(len(sample.ids) for sample in samples)),
        }
        if not torch.is_grad_enabled():
            return dict(log)
        n_chosen = sum(pair.chosen.n_trained for pair in items)
        likelihood = -policy_S[::2].sum() / n_chosen
        (loss + self.dpo.sft_weight * likelihood).backward()
        assert policy_S.grad is not None
        for batch in batches:
            logprob_P, _ = logprobs_of(model, batch)
            (logprob_P * policy_S.grad[batch.sample_P]).sum().backward()
        return dict(log)

    @torch.no_grad()
    def _reference_of(self, model: Transformer, items: Sequence[Pair]) -> Tensor:
        """[2 x pairs] log-probabilities of the answers under the untrained model.

        Each pair is a batch of its own, so what is known of it does not depend on when it was first met.
        """
        for pair in items:
            if pair not in self._known:
                batches = pack((pair.chosen, pair.rejected), self.budget, [1.0, 1.0])
                with without_adapters(model):
                    found = summed(self.reference or model, batches, 2)
                self._known[pair] = found.tolist()
        return torch.tensor([value for pair in items for value in self._known[pair]])


def summed(model: Transformer, batches: Sequence[MicroBatch], n_samples: int) -> Tensor:
    """[S]: the log-probability of each sample's trained tokens together."""
    total_S = torch.zeros(n_samples)
    for batch in batches:
        total_S = total_S.index_add(0, batch.sample_P, logprobs_of(model, batch)[0])
    return total_S
