"""A tokenizer as a GGUF file's metadata: the way back of `gguf_vocabulary.py`, which lists the keys.

A GGUF says less than a `tokenizer.json`: a cutting rule only by its name, scores where there were merges, added tokens
without their flags. Whoever reads it must get the same ids; what it cannot say is refused.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from smallpress.run.errors import UserError
from smallpress.tokenizer.definition import Definition, parts
from smallpress.tokenizer.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, sentencepiece
from smallpress.tokenizer.pre_tokenizers import CUTTING_RULES
from smallpress.tokenizer.spelling import byte_of_letter

ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
"""Hugging Face's word for a special token -> GGUF's."""
REMEDY = "convert to a Hugging Face folder (--to hf)"


def to_metadata(definition: Definition, special_tokens: Mapping[str, str], n_ids: int) -> dict[str, Any]:
    """The `tokenizer.ggml.` keys of the vocabulary and its special tokens, for a model of `n_ids` embeddings.

    Ids without a token are filled with unused ones. Raises UserError for what a GGUF cannot say.
    """
    _refuse_flags(definition)
    tokens, types = _tokens_and_types(definition, special_tokens.get("unk_token"), n_ids)
    pairs = definition.merges
    keys: dict[str, Any]
    if definition.spelling == "byte_level":
        keys = {"model": "gpt2", "pre": _rule_name(definition), "tokens": tokens, "token_type": types}
        keys["merges"] = _joined(pairs)
    else:
        scores = _scores(tokens, pairs)
        prefix = _space_prefix(definition, tokens, types, scores, pairs)
        keys = {"model": "llama", "tokens": tokens, "token_type": types, "scores": scores, "add_space_prefix": prefix}
    for role, theirs in ROLES.items():
        if (id := definition.vocab.get(special_tokens.get(role, ""))) is not None:
            keys[f"{theirs}_token_id"] = id
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def _refuse_flags(definition: Definition) -> None:
    for token in definition.added:
        for flag in ("lstrip", "rstrip", "single_word"):
            if getattr(token, flag):
                raise UserError(f"added token {token.text!r} has the flag {flag}, which a GGUF cannot say", REMEDY)


def _tokens_and_types(definition: Definition, unk: str | None, n_ids: int) -> tuple[list[str], list[int]]:
    texts = {id: text for text, id in definition.vocab.items()}
    if max(texts, default=0) >= n_ids:
        raise UserError(f"the tokenizer has the id {max(texts)}, the model only {n_ids} embeddings", REMEDY)
    if "" in definition.vocab:
        raise UserError("the vocabulary has an empty token, which a GGUF cannot hold", REMEDY)
    types = dict.fromkeys(texts, NORMAL)
    sentencepiece_like = definition.spelling == "byte_fallback"
    if sentencepiece_like:
        types |= {definition.vocab[spelled]: BYTE for spelled in _byte_tokens() if spelled in definition.vocab}
    for token in definition.added:
        special = UNKNOWN if sentencepiece_like and token.text == unk else CONTROL
        types[token.id] = special if token.special else USER_DEFINED
    tokens = [texts.get(id) or _unused_name(id, definition.vocab) for id in range(n_ids)]
    return tokens, [types.get(id, UNUSED) for id in range(n_ids)]


def _unused_name(id: int, taken: Mapping[str, int]) -> str:
    name = f"[PAD{id}]"
    while name in taken:
        name += "]"
    return name


def _byte_tokens() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _joined(pairs: Iterable[tuple[str, str]]) -> list[str]:
    merges = []
    for left, right in pairs:
        if " " in left + right:
            raise UserError(f"the merge of {left!r} and {right!r} has a space, which a GGUF cannot hold", REMEDY)
        merges.append(f"{left} {right}")
    return merges


def _rule_name(definition: Definition) -> str:
    """The name by which a GGUF knows how this tokenizer cuts text."""
    raw, model = definition.json, definition.json["model"]
    if model.get("unk_token") is not None and not set(byte_of_letter()) <= set(definition.vocab):
        raise UserError(f"bytes without a token become {model['unk_token']!r}, which a GGUF cannot say", REMEDY)
    found = (*_rules(raw.get("pre_tokenizer"), raw.get("normalizer")), bool(model.get("ignore_merges")))
    for name, rule in CUTTING_RULES.items():
        steps = {"type": "Sequence", "pretokenizers": list(rule.steps)}
        if (*_rules(steps, rule.normalizer), rule.whole_words) == found:
            return name
    known = ", ".join(CUTTING_RULES)
    raise UserError(f"the tokenizer cuts text in a way that has no name among {known}", REMEDY)


def _rules(pre_tokenizer: object, normalizer: object) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Both as flat lists, spelt one way where there are several."""
    return list(map(_one_spelling, parts(pre_tokenizer, "pretokenizers"))), list(parts(normalizer, "normalizers"))


def _one_spelling(step: dict[str, Any]) -> dict[str, Any]:
    if step.get("type") == "ByteLevel":  # offsets are nothing to ids
        return {key: value for key, value in ({"use_regex": True} | step).items() if key != "trim_offsets"}
    pattern = step.get("pattern")
    if isinstance(pattern, dict) and isinstance(regex := pattern.get("Regex"), str):
        return step | {"pattern": {"Regex": regex.replace("\\r", "\r").replace("\\n", "\n")}}
    return step


def _scores(tokens: list[str], pairs: list[tuple[str, str]]) -> list[float]:
    """The earlier a token is first made by a merge, the better its score; those never made come last."""
    ranks: dict[str, int] = {}
    for left, right in pairs:
        ranks.setdefault(left + right, len(ranks))
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _space_prefix(
    definition: Definition, tokens: list[str], types: list[int], scores: list[float], pairs: list[tuple[str, str]]
) -> bool:
    """Whether a space is put before a text. Raises UserError unless the scores give the tokenizer back."""
    raw = definition.json
    model, rules = raw["model"], _rules(raw.get("pre_tokenizer"), raw.get("normalizer"))
    if not {*_byte_tokens()} <= definition.vocab.keys() or not model.get("byte_fallback"):
        raise UserError("not every byte has a token, which a SentencePiece vocabulary in a GGUF needs", REMEDY)
    prefix = definition.strips_space
    same = sentencepiece(tokens, types, scores, model.get("unk_token"), prefix)
    if rules != _rules(same["pre_tokenizer"], same["normalizer"]):
        raise UserError("the tokenizer treats spaces in a way that a GGUF cannot say", REMEDY)
    if model.get("ignore_merges") or _as_ranked(pairs) != _as_ranked(same["model"]["merges"]):
        raise UserError("the tokenizer's merges are not those of a SentencePiece vocabulary", REMEDY)
    return prefix


def _as_ranked(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, set[tuple[str, ...]]]]:
    """Each token that merges make with the pairs that make it, by rank.

    Which of a token's own pairs comes first matters only where the token overlaps itself; SentencePiece then takes the
    leftmost, whatever the merges say.
    """
    return [(token, set(map(tuple, group))) for token, group in groupby(pairs, key="".join)]
