"""Files in, items to train on and items held out; and what became of the rest."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from smallpress.corpus.conversations import Conversation, read_conversations
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.train.samples import Census, Sample, Sampler
from smallpress.train.settings import SFTSettings

HELD_OUT_SHARE = 0.1
"""At most so much of the data is held out."""

Item = TypeVar("Item")
OnRow = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Data:
    """`items` and `held_out` are samples, or pairs of them."""

    items: Sequence
    held_out: Sequence
    census: Census


def sampler_of(settings: SFTSettings, tokenizer: Tokenizer) -> Sampler:
    return Sampler(tokenizer, settings.form, settings.train_on, settings.max_tokens, settings.too_long)


def read_samples(settings: SFTSettings, tokenizer: Tokenizer, on_row: OnRow = lambda: None) -> Data:
    """Samples of the settings' files, those for measuring apart. `on_row` is told of each conversation."""
    sampler = sampler_of(settings, tokenizer)
    samples = sampler.samples(_counted(_all_of(settings.data), on_row))
    if settings.eval_data:
        held_out = sampler_of(settings, tokenizer).samples(_counted(_all_of(settings.eval_data), on_row))
        items = samples
    else:
        items, held_out = apart(samples, settings.eval_n, settings.seed)
    return checked(without_copies(items, held_out, sampler.census), held_out, sampler.census, settings.data)


def apart(items: Sequence[Item], n: int, seed: int) -> tuple[list[Item], list[Item]]:
    """(to train on, held out): n of them, at most a tenth, drawn by the seed."""
    places = list(range(len(items)))
    Random(derive_seed(seed, "held out")).shuffle(places)
    chosen = set(places[: min(n, int(HELD_OUT_SHARE * len(items)))])
    return [item for i, item in enumerate(items) if i not in chosen], [items[i] for i in sorted(chosen)]


def without_copies(items: Sequence[Item], held_out: Iterable[Item], census: Census) -> list[Item]:
    """The items that are not word for word held out too."""
    measured = set(held_out)
    kept = [item for item in items if item not in measured]
    if len(kept) < len(items):
        census.dropped["a copy of what is held out"] += len(items) - len(kept)
    return kept


def checked(items: Sequence, held_out: Sequence, census: Census, files: Sequence[str]) -> Data:
    if not items:
        why = ", ".join(f"{n} {reason}" for reason, n in census.dropped.items()) or "the files are empty"
        raise UserError(f"{', '.join(files)}: nothing to train on: {why}", "look at the data and at max_tokens")
    return Data(items, held_out, census)


def describe(data: Data) -> str:
    """The counts a person wants before a run: samples, tokens, held out, cut, dropped and why."""
    n_all, n_trained = total_tokens(sample for item in data.items for sample in samples_of(item))
    census = data.census
    lines = [
        f"{census.n_conversations} rows: {len(data.items)} samples to train on, {len(data.held_out)} held out",
        f"{n_all} tokens, {n_trained} of them trained on",
    ]
    if census.n_cut:
        lines.append(f"{census.n_cut} samples are cut to the longest length")
    return "\n".join(lines + [f"{n} dropped: {reason}" for reason, n in census.dropped.most_common()])


def samples_of(item: Any) -> tuple[Sample, ...]:
    """A sample alone, or the samples of a pair."""
    return (item,) if isinstance(item, Sample) else (item.chosen, item.rejected)


def total_tokens(samples: Iterable[Sample]) -> tuple[int, int]:
    """(all tokens, those trained on)."""
    n_all = n_trained = 0
    for sample in samples:
        n_all, n_trained = n_all + len(sample.ids), n_trained + sample.n_trained
    return n_all, n_trained


def _all_of(files: Sequence[str]) -> Iterator[Conversation]:
    for file in files:
        yield from read_conversations(Path(file))


def _counted(rows: Iterable[Item], on_row: OnRow) -> Iterator[Item]:
    for row in rows:
        on_row()
        yield row
