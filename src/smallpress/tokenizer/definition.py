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
import tokenizers.models

from smallpress.run.errors import UserError

MAX_VOCAB = 1 << 22
FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
HTML = re.compile(
    "<s>|</?(a|b|bbox|blockquote|body|caption|code|div|em|footer|h[1-6]|html|i|iframe|img|li|span|strong|sub|sup"
    "|table|tbody|td|tfoot|th|thead|tr|u|ul)>"
)
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

        The mark alone is not enough: DeepSeek-V3's tag of a user's turn and Qwen's `<tool_call>` are not marked. But
        Gemma's tokens for the tags of HTML, which are not marked either, are text, all but `</s>`.
        """
        if not self.special and HTML.fullmatch(self.text):
            return False
        return self.special or re.fullmatch("[<\\[\uff5c].+[>\\]\uff5c]", self.text, re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class Definition:
    """A checked `tokenizer.json`. `vocab` has every token with its id, the added ones included."""

    json: dict[str, Any]
    vocab: dict[str, int]
    merges: list[tuple[str, str]]
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
    vocab = _checked_vocab(model.get("vocab"))
    merges = _checked_merges(model.get("merges"), vocab)
    added = tuple(_checked_added(raw.get("added_tokens") or [], vocab))
    unk = model.get("unk_token")
    if unk is not None and not (isinstance(unk, str) and unk in vocab):
        raise _Wrong("unk_token is not in the vocabulary")
    spelling, strips_space = _spelling(raw.get("decoder"))
    return Definition(raw, vocab, merges, added, spelling, strips_space)


def _checked_vocab(vocab: object) -> dict[str, int]:
    if not isinstance(vocab, dict):
        raise _Wrong("no vocabulary")
    ids = vocab.values()
    try:
        "".join(vocab).encode()
    except UnicodeEncodeError as error:
        raise _Wrong("half of a surrogate pair is in a token") from error
    within = set(map(type, ids)) <= {int} and min(ids, default=0) >= 0 and max(ids, default=0) < MAX_VOCAB
    if within and len(set(ids)) == len(ids):
        return dict(vocab)
    taken: set[int] = set()
    for token, id in vocab.items():
        if type(id) is not int or not 0 <= id < MAX_VOCAB:
            raise _Wrong(f"token {token[:40]!r} has the id {id!r}")
        if id in taken:
            break
        taken.add(id)
    raise _Wrong(f"two tokens have the id {id}")


def _checked_merges(merges: object, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The merges as pairs of texts whose union is a token; that they are tokens themselves, the library checks."""
    if not isinstance(merges, list):
        raise _Wrong("no merges")
    pairs: list[Any]
    try:
        pairs = [tuple(merge.split(" ")) if type(merge) is str else tuple(merge) for merge in merges]
        if set(map(len, pairs)) <= {2} and all(map(vocab.__contains__, map("".join, pairs))):
            return pairs
    except TypeError:  # not iterable, or no texts
        pass
    rank = next(rank for rank, merge in enumerate(merges) if not _is_pair(merge, vocab))
    raise _Wrong(f"merge {rank} ({str(merges[rank])[:80]!r}) is no pair of the vocabulary")


def _is_pair(merge: object, vocab: dict[str, int]) -> bool:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        return False
    return "".join(pair) in vocab


def _checked_added(entries: object, vocab: dict[str, int]) -> Iterator[AddedToken]:
    """The added tokens; those the vocabulary lacks are put into it."""
    if not isinstance(entries, list):
        raise _Wrong("added_tokens is not a list")
    taken = dict(zip(vocab.values(), vocab, strict=True))
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
    types = {str(step.get("type")) for step in steps}
    if types == {"ByteLevel"}:
        return "byte_level", False
    strips = any(step.get("type") == "Strip" and step.get("start") == 1 for step in steps)
    if "ByteFallback" in types and types <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        return "byte_fallback", strips
    raise _Wrong(f"its decoder ({', '.join(sorted(types)) or 'none'}) is not supported")


def parts(component: object, inner: str) -> Iterator[dict[str, Any]]:
    """The components of a `Sequence`, nested ones too."""
    if isinstance(component, dict) and component.get("type") == "Sequence":
        inside = component.get(inner)
        for part in inside if isinstance(inside, list) else []:
            yield from parts(part, inner)
    elif isinstance(component, dict):
        yield component


def build(definition: Definition) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """The library's tokenizer for the start of a text and for what follows a control token; neither knows the latter.

    They differ only where a space is put before the first word of a text and of nothing else.
    """
    start = _library_tokenizer(definition, definition.json.get("pre_tokenizer"))
    _check_controls_unreachable(start, definition)
    if not _first_word_only(definition.json):
        return start, start
    never = json.loads(json.dumps(definition.json.get("pre_tokenizer")).replace('"first"', '"never"'))
    return start, _library_tokenizer(definition, never, start.model)


EMPTY_MODEL = {"type": "BPE", "vocab": {}, "merges": []}


def _first_word_only(raw: dict[str, Any]) -> bool:
    steps = parts(raw.get("pre_tokenizer"), "pretokenizers")
    return any(step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first" for step in steps)


def _check_controls_unreachable(plain: tokenizers.Tokenizer, definition: Definition) -> None:
    """Merging cannot reach a control token unless the vocabulary is made for it; such a vocabulary is refused."""
    for token in definition.added:
        if token.control and token.id in plain.encode(token.text, add_special_tokens=False).ids:
            raise UserError(f"ordinary text can become the control token {token.text!r}", "do not use this tokenizer")


def _library_tokenizer(
    definition: Definition, pre_tokenizer: object, model: tokenizers.models.Model | None = None
) -> tokenizers.Tokenizer:
    """The library's tokenizer over `model`, else over one made here; vocabulary and merges do not go through JSON."""
    whole: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": []}
    whole |= {"normalizer": definition.json.get("normalizer"), "pre_tokenizer": pre_tokenizer}
    whole |= {"decoder": None, "post_processor": None}
    with _LibraryErrors():
        library = tokenizers.Tokenizer.from_str(json.dumps(whole | {"model": EMPTY_MODEL}))
        library.model = _library_model(definition) if model is None else model
    ordinary = [token for token in definition.added if not token.control]
    library.add_tokens([tokenizers.AddedToken(t.text, **{flag: getattr(t, flag) for flag in FLAGS}) for t in ordinary])
    return library


def _library_model(definition: Definition) -> tokenizers.models.BPE:
    settings = definition.json["model"]
    flags = {key: settings.get(key) is True for key in ("fuse_unk", "byte_fallback", "ignore_merges")}
    return tokenizers.models.BPE(definition.vocab, definition.merges, unk_token=settings.get("unk_token"), **flags)


class _LibraryErrors:
    """Turns the library's errors, which are of the bare type Exception, into ours; subclasses are bugs and pass."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is Exception:
            raise UserError(f"the tokenizer is not usable: {error}", REMEDY) from error
