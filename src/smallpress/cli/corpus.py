"""smallpress corpus"""

import json as json_format
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smallpress.cli.table import table
from smallpress.corpus.text_files import Split
from smallpress.run.errors import UserError, one_line
from smallpress.run.progress import Progress

if TYPE_CHECKING:
    from smallpress.corpus.build import Plan
    from smallpress.corpus.documents import Tally
    from smallpress.corpus.shard_writer import Vocabulary
    from smallpress.tokenizer.tokenizer import Tokenizer

TOKENIZER_BYTES = 1 << 28
"""A tokenizer is made from so much text at most: its memory grows with the number of different words."""


def corpus(
    *files: Annotated[Path, Parameter(help="Text, JSON lines, Parquet (each as .gz too, but Parquet), or folders.")],
    out: Annotated[Path, Parameter(help="The corpus, a folder to be made.")],
    tokenizer: Annotated[
        str | None, Parameter(help="Of a model, a corpus, or a folder; by default a new one is made from the files.")
    ] = None,
    vocab: Annotated[int, Parameter(help="Tokens of a new tokenizer.")] = 8192,
    field: Annotated[
        tuple[str, ...], Parameter(help="Key of a row's text; several are tried in turn, question+answer joins two.")
    ] = ("text", "content"),
    split: Annotated[
        Split, Parameter(help="What of a text file is a document: all of it, what is between blank lines, or a line.")
    ] = "file",
    held_out: Annotated[float, Parameter(help="Share of the documents to measure on, never trained on.")] = 0.01,
    not_in: Annotated[
        tuple[Path, ...], Parameter(help="Files of evaluations: what shares 10 words in a row with them is left out.")
    ] = (),
    near_duplicates: Annotated[
        bool, Parameter(negative="", help="Leave out what is nearly the same as an earlier document, too.")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say what would be read.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Make a corpus to pretrain on: files of text and code in, shards of tokens and their tokenizer out.

    The same documents are kept once. OUT is there whole or not at all. See docs/corpus.md.
    """
    from smallpress.corpus.build import Plan, build
    from smallpress.corpus.documents import Tally
    from smallpress.corpus.sources import Reading, find_sources

    if not 0 <= held_out < 1:
        raise UserError(f"--held-out is {held_out}", "give a share from 0 up, below 1")
    if out.exists():
        raise UserError(f"{out} already exists", "remove it, or choose another name")
    found = Tally()
    plan = Plan(find_sources(files, found), Reading(split, field), held_out, not_in, near_duplicates)
    if dry_run:
        return _say_plan(plan, found, json)
    made = _made(plan, vocab) if tokenizer is None else _opened(tokenizer, offline)
    origin = {
        "files": [str(source.path) for source in plan.sources],
        "split": split,
        "fields": list(field),
        "held_out": held_out,
        "not_in": [str(path) for path in not_in],
        "near_duplicates": near_duplicates,
    }
    starts = [made.bos_id] if made.adds_bos and made.bos_id is not None else []

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [[*starts, *ids] for ids in made.encode_many(texts)]

    with Progress(f"writing {out.name}", plan.n_bytes, "B") as progress:
        left_out = build(out, plan, _vocabulary(made), encode, origin, progress.advance)
    _say_corpus(out, found, left_out, json)


def _made(plan: "Plan", vocab_size: int) -> "Tokenizer":
    from smallpress.tokenizer.made import make_tokenizer

    with Progress("reading for the tokenizer", plan.n_bytes, "B") as progress:
        made = make_tokenizer(plan.training_texts(TOKENIZER_BYTES, progress.advance), vocab_size)
    return made


def _opened(reference: str, offline: bool) -> "Tokenizer":
    """The tokenizer of a folder that has one, or of a corpus; else of the model the reference names."""
    from smallpress.tokenizer.tokenizer import Tokenizer
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    for folder in (Path(reference), Path(reference) / "tokenizer"):
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_folder(folder)
    return open_model(resolve(reference, offline)).tokenizer()


def _vocabulary(tokenizer: "Tokenizer") -> "Vocabulary":
    import numpy as np

    from smallpress.corpus.shard_writer import Vocabulary

    if tokenizer.end_of_text_id is None:
        raise UserError("the tokenizer has no token that ends a text", "take another, or let one be made")
    ids = range(tokenizer.vocab_size)
    counts = [0 if id in tokenizer.special_ids else len(tokenizer.token_bytes(id)) for id in ids]
    return Vocabulary(np.array(counts, np.int64), tokenizer.end_of_text_id, tokenizer.save)


def _say_plan(plan: "Plan", found: "Tally", json: bool) -> None:
    kinds: dict[str, list[int]] = {}
    for source in plan.sources:
        sums = kinds.setdefault(source.kind, [0, 0])
        sums[:] = sums[0] + 1, sums[1] + source.n_bytes
    if json:
        kinds_read = {kind: {"files": n, "bytes": n_bytes} for kind, (n, n_bytes) in kinds.items()}
        print(json_format.dumps({"read": kinds_read, "left_out": dict(found.counts)}, indent=2))
        return
    rows = [[kind, str(n), f"{n_bytes / 1e6:.1f}"] for kind, (n, n_bytes) in sorted(kinds.items())]
    print(table([["would read", "files", "MB"], *rows]))
    _say_left_out(found)


def _say_corpus(out: Path, found: "Tally", left_out: "Tally", json: bool) -> None:
    from smallpress.corpus.shards import Corpus

    opened = Corpus.open(out)
    parts = {"train": opened.train, "held out": opened.held_out}
    if json:
        counts: dict[str, Any] = {"out": str(out), "vocab_size": opened.vocab_size}
        for side, entry in opened.manifest.parts.items():
            counts[side] = entry.model_dump(include={"n_documents", "n_tokens", "n_bytes"})
        print(json_format.dumps(counts | {"left_out": dict(found.counts + left_out.counts)}, indent=2))
        return
    rows = [["", "documents", "tokens", "MB of text", "bytes per token"]]
    for name, part in parts.items():
        per_token = f"{part.n_bytes / part.n_tokens:.2f}" if part.n_tokens else ""
        rows.append([name, f"{part.n_documents:,}", f"{part.n_tokens:,}", f"{part.n_bytes / 1e6:.1f}", per_token])
    print(table(rows))
    for tally in (found, left_out):
        _say_left_out(tally)
    print(f"{out} is written: {opened.vocab_size:,} different tokens")


def _say_left_out(tally: "Tally") -> None:
    for reason, n in tally.counts.most_common():
        more = ", ..." if n > len(tally.places[reason]) else ""
        print(one_line(f"left out: {n:,} {reason} ({', '.join(tally.places[reason])}{more})"))
