"""A tokenizer as data: a `tokenizer.json`, checked before the `tokenizers` library sees it.

The library is exact but trusting: a merge outside the vocabulary ends in a Rust panic, two tokens with one id go
unnoticed. So only byte-pair vocabularies of the two shapes that language models use are let through, once checked:

    byte_level     a token is spelled in GPT-2's alphabet of 256 letters, one for each byte
    byte_fallback  SentencePiece: U+2581 stands for a space, bytes without a token of their own are spelled <0x0A>
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import tokenizers

from smallpress.run.errors import UserError

MAX_VOCAB = 1 << 22
FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
REMEDY = "the file is damaged or of an unknown kind: fetch it again"


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token matched as a whole before any merging. `special`: hidden when decoding. `lstrip`: takes spaces along."""

    id: int
    text: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def control(self) -> bool:
        """Whether it steers the model, so that no text from a user may become it: marked special, or written as markup.

        The mark alone is not enough: DeepSeek-V3's tag of a user's turn and Qwen's `<tool_call>` are not marked.
        """
        return self.special or re.fullmatch("[<\\[\uff5c].+[>\\]\uff5c]", self.text, re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class Definition:
    """A checked `tokenizer.json`. `vocab` has every token with its id, the added ones included."""

    json: dict[str, Any]
    vocab: dict[str, int]
    added: tuple[AddedToken, ...]
    spelling: Literal["byte_level", "byte_fallback"]
    strips_space: bool
    """Whether decoding drops one space at the start of the text."""


def check_definition(raw: object, where: str) -> Definition:
    """`raw` is a parsed `tokenizer.json`; `where` names it in the UserError that any departure raises."""
    try:
        return _check(raw)
    except _Wrong as wrong:
        raise UserError(f"{where}: {wrong}", REMEDY) from wrong


class _Wrong(Exception):
    pass


def _check(raw: object) -> Definition:
    if not isinstance(raw, dict) or not isinstance(raw.get("model"), dict):
        raise _Wrong("no tokenizer in it")
    model = raw["model"]
    if model.get("type", "BPE") != "BPE":
        raise _Wrong(f"a {model['type']} tokenizer, where only BPE is supported")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise _Wrong(f"{key} is {model[key]!r}, where none is supported")
    vocab = dict(_checked_vocab(model.get("vocab")))
    _check_merges(model.get("merges"), vocab)
    added = tuple(_checked_added(raw.get("added_tokens") or [], vocab))
    if model.get("unk_token") is not None and model["unk_token"] not in vocab:
        raise _Wrong("unk_token is not in the vocabulary")
    spelling, strips_space = _spelling(raw.get("decoder"))
    return Definition(raw, vocab, added, spelling, strips_space)


def _checked_vocab(vocab: object) -> Iterator[tuple[str, int]]:
    if not isinstance(vocab, dict):
        raise _Wrong("no vocabulary")
    ids: set[int] = set()
    for token, id in vocab.items():
        if type(id) is not int or not 0 <= id < MAX_VOCAB:
            raise _Wrong(f"token {token[:40]!r} has the id {id!r}")
        if id in ids:
            raise _Wrong(f"two tokens have the id {id}")
        ids.add(id)
        yield token, id


def _check_merges(merges: object, vocab: dict[str, int]) -> None:
    if not isinstance(merges, list):
        raise _Wrong("no merges")
    for rank, merge in enumerate(merges):
        try:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            inside = left in vocab and right in vocab and left + right in vocab
        except (TypeError, ValueError):
            inside = False
        if not inside:
            raise _Wrong(f"merge {rank} ({str(merge)[:80]!r}) is no pair of the vocabulary")


def _checked_added(entries: object, vocab: dict[str, int]) -> Iterator[AddedToken]:
    """The added tokens; those the vocabulary lacks are put into it."""
    if not isinstance(entries, list):
        raise _Wrong("added_tokens is not a list")
    taken = {id: text for text, id in vocab.items()}
    for entry in entries:
        if not isinstance(entry, dict):
            raise _Wrong("an added token is not an object")
        id, text = entry.get("id"), entry.get("content")
        if not isinstance(text, str) or not text or type(id) is not int or not 0 <= id < MAX_VOCAB:
            raise _Wrong(f"added token {text!r} with the id {id!r}")
        if taken.setdefault(id, text) != text or vocab.setdefault(text, id) != id:
            raise _Wrong(f"added token {text!r} and another token share an id")
        flags = {key: entry.get(key) is True for key in FLAGS}
        yield AddedToken(id, text, **flags)


def _spelling(decoder: object) -> tuple[Literal["byte_level", "byte_fallback"], bool]:
    steps = list(parts(decoder, "decoders"))
    types = {step.get("type") for step in steps}
    if types == {"ByteLevel"}:
        return "byte_level", False
    strips = any(step.get("type") == "Strip" and step.get("start") == 1 for step in steps)
    if "ByteFallback" in types and types <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        return "byte_fallback", strips
    raise _Wrong(f"its decoder ({', '.join(sorted(map(str, types))) or 'none'}) is not supported")


def parts(component: object, inner: str) -> Iterator[dict[str, Any]]:
    """The components of a `Sequence`, nested ones too."""
    if isinstance(component, dict) and component.get("type") == "Sequence":
        for part in component.get(inner) or []:
            yield from parts(part, inner)
    elif isinstance(component, dict):
        yield component


def build(definition: Definition) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """The library's tokenizer for the start of a text and for what follows a control token; neither knows the latter.

    They differ only where a space is put before the first word of a text and of nothing else.
    """
    raw = definition.json
    ordinary = [token for token in definition.added if not token.control]
    entries = [{"id": t.id, "content": t.text} | {flag: getattr(t, flag) for flag in FLAGS} for t in ordinary]
    start = _library_tokenizer(raw | {"model": raw["model"] | {"vocab": definition.vocab}, "added_tokens": entries})
    _check_controls_unreachable(start, definition)
    if not _first_word_only(raw):
        return start, start
    never = json.loads(json.dumps(raw.get("pre_tokenizer")).replace('"first"', '"never"'))
    following = tokenizers.Tokenizer(start.model)
    following.normalizer = start.normalizer
    following.pre_tokenizer = _library_tokenizer({"model": EMPTY_MODEL, "pre_tokenizer": never}).pre_tokenizer
    following.add_tokens(
        [tokenizers.AddedToken(t.text, **{flag: getattr(t, flag) for flag in FLAGS}) for t in ordinary]
    )
    return start, following


EMPTY_MODEL = {"type": "BPE", "vocab": {}, "merges": []}


def _first_word_only(raw: dict[str, Any]) -> bool:
    steps = parts(raw.get("pre_tokenizer"), "pretokenizers")
    return any(step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first" for step in steps)


def _check_controls_unreachable(plain: tokenizers.Tokenizer, definition: Definition) -> None:
    """Merging cannot reach a control token unless the vocabulary is made for it; such a vocabulary is refused."""
    for token in definition.added:
        if token.control and token.id in plain.encode(token.text, add_special_tokens=False).ids:
            raise UserError(f"ordinary text can become the control token {token.text!r}", "do not use this tokenizer")


def _library_tokenizer(parts: dict[str, Any]) -> tokenizers.Tokenizer:
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
    }
    whole |= {"pre_tokenizer": None} | parts | {"decoder": None, "post_processor": None}
    with _LibraryErrors():
        return tokenizers.Tokenizer.from_str(json.dumps(whole))


class _LibraryErrors:
    """Turns the library's errors, which are of the bare type Exception, into ours; subclasses are bugs and pass."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is Exception:
            raise UserError(f"the tokenizer is not usable: {error}", REMEDY) from error
