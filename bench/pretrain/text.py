"""A corpus of real text for small experiments: English, Chinese and code, with a tokenizer trained on it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from smallpress.corpus.shard_writer import Vocabulary, new_corpus
from smallpress.corpus.shards import Corpus

END = "<|endoftext|>"
DEFAULT = ("tinyshakespeare/input.txt", "gsm8k/train.jsonl", "exercism-python/practice.jsonl", "chinese-poetry")
HELD_OUT = 50  # of so many documents one


def strings(value: object) -> Iterator[str]:
    """Every text within a JSON value, in its order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def documents(path: Path) -> Iterator[str]:
    """A document for each row of JSON, and for each ten paragraphs of plain text; folders by name."""
    if path.is_dir():
        for file in sorted(path.glob("*.json*")):
            yield from documents(file)
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            yield "\n".join(strings(json.loads(line)))
    elif path.suffix == ".json":
        yield from ("\n".join(strings(row)) for row in json.loads(path.read_text(encoding="utf-8")))
    else:
        paragraphs = path.read_text(encoding="utf-8").split("\n\n")
        yield from ("\n\n".join(paragraphs[first : first + 10]) for first in range(0, len(paragraphs), 10))


def byte_level(texts: list[str], vocab_size: int) -> Tokenizer:
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    return library


def make_corpus(folder: Path, sources: list[Path], vocab_size: int) -> Corpus:
    """The corpus at `folder`, made where it is not there yet; the side of a document is a matter of its words."""
    if folder.exists():
        return Corpus.open(folder)
    texts = [text for source in sources for text in documents(source)]
    library = byte_level(texts, vocab_size)

    def save(path: Path) -> None:
        path.mkdir()
        library.save(str(path / "tokenizer.json"))
        config = {"eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"}
        (path / "tokenizer_config.json").write_text(json.dumps(config))

    words = sorted(library.get_vocab().items(), key=lambda item: item[1])
    bytes_of = np.array([0 if word == END else len(word) for word, _ in words])  # a letter stands for a byte
    end = library.token_to_id(END)
    with new_corpus(folder, Vocabulary(bytes_of, end, save)) as writer:
        for text in texts:
            share = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
            writer.add("train" if share % HELD_OUT else "held_out", [*library.encode(text).ids, end])
    return Corpus.open(folder)
