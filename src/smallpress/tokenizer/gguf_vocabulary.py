"""The vocabulary in a GGUF file's metadata, as a `tokenizer.json`.

Keys (`tokenizer.ggml.`): model ("gpt2": byte-level; "llama": SentencePiece), pre, tokens, token_type, merges (gpt2) or
scores (llama), `*_token_id`, add_bos_token, add_space_prefix; and `tokenizer.chat_template`. Source: gguf-py's
constants.py, llama.cpp's llama-vocab.cpp, and the published `tokenizer.json` of each model family.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from smallpress.run.errors import UserError
from smallpress.tokenizer.pre_tokenizers import BYTES, CuttingRule, cutting_rule

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""`token_type`."""
REMEDY = "the file is damaged: fetch or make it again"
SPACE = "\u2581"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GGUFVocabulary:
    """`definition` as a `tokenizer.json`, `config` as a `tokenizer_config.json`; `end_ids` end a turn or a message."""

    definition: Json
    config: Json
    end_ids: tuple[int, ...]


def from_metadata(metadata: Mapping[str, Any]) -> GGUFVocabulary:
    """Raises UserError where the metadata hold no vocabulary that can be rebuilt exactly."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise UserError(f"a GGUF vocabulary of the kind {kind!r}", "use a model whose vocabulary is gpt2 or llama")
    vocab, types = _vocab_and_types(metadata)
    tokens = list(vocab)
    config = _config(metadata, tokens)
    if kind == "gpt2":
        rule = cutting_rule(metadata.get("tokenizer.ggml.pre"))
        config.setdefault("add_bos_token", rule.adds_bos)
        definition = _byte_level(vocab, _texts(metadata, "merges"), rule)
    else:
        config.setdefault("add_bos_token", True)  # llama.cpp's default for this kind
        prefix = metadata.get("tokenizer.ggml.add_space_prefix", True) is True
        definition = sentencepiece(tokens, types, _scores(metadata, len(tokens)), config.get("unk_token"), prefix)
    definition["added_tokens"] = list(_added(tokens, types))
    definition["post_processor"] = None
    if config["add_bos_token"]:
        if "bos_token" not in config:
            raise UserError("the GGUF asks for a first token (add_bos_token) and names none", REMEDY)
        definition["post_processor"] = _puts_first(config["bos_token"], vocab[config["bos_token"]])
    ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    return GGUFVocabulary(definition, config, tuple(id for id in ends if type(id) is int and 0 <= id < len(tokens)))


def _texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    values = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(values, list) or not set(map(type, values)) <= {str}:
        raise UserError(f"the GGUF has no list tokenizer.ggml.{key}", REMEDY)
    return values


def _vocab_and_types(metadata: Mapping[str, Any]) -> tuple[dict[str, int], list[int]]:
    """Token -> id, in the order of the ids, and the type of each."""
    tokens = _texts(metadata, "tokens")
    vocab = dict(zip(tokens, range(len(tokens)), strict=True))
    if not tokens or len(vocab) != len(tokens) or "" in vocab:
        raise UserError("the GGUF's vocabulary has no tokens, a token twice, or an empty one", REMEDY)
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens) or not set(types) <= set(range(7)):
        raise UserError("the GGUF's tokenizer.ggml.token_type does not fit its tokens", REMEDY)
    return vocab, types


def _scores(metadata: Mapping[str, Any], n_tokens: int) -> list[float]:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != n_tokens or not set(map(type, scores)) <= {float}:
        raise UserError("the GGUF's tokenizer.ggml.scores do not fit its tokens", REMEDY)
    return scores


def _config(metadata: Mapping[str, Any], tokens: list[str]) -> Json:
    config: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        id = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if id is None:
            continue
        if type(id) is not int or not 0 <= id < len(tokens):
            raise UserError(f"the GGUF's tokenizer.ggml.{key}_token_id is {id!r}", REMEDY)
        config[f"{name}_token"] = tokens[id]
    if isinstance(add_bos := metadata.get("tokenizer.ggml.add_bos_token"), bool):
        config["add_bos_token"] = add_bos
    if isinstance(template := metadata.get("tokenizer.chat_template"), str):
        config["chat_template"] = template
    return config


def _added(tokens: list[str], types: list[int]) -> Iterator[Json]:
    for id in [id for id, type_ in enumerate(types) if type_ in (CONTROL, UNKNOWN, USER_DEFINED)]:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        yield {"id": id, "content": tokens[id], "special": types[id] != USER_DEFINED, **flags}


def _byte_level(vocab: dict[str, int], merges: list[str], rule: CuttingRule) -> Json:
    model: Json = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False}
    model |= {"ignore_merges": rule.whole_words, "vocab": vocab}
    return {
        "version": "1.0",
        "normalizer": rule.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(rule.steps)},
        "decoder": BYTES | {"use_regex": True},
        "model": model | {"merges": merges},
    }


def sentencepiece(tokens: list[str], types: list[int], scores: list[float], unk: str | None, prefix: bool) -> Json:
    """SentencePiece BPE: join the neighbours whose union has the best score, the leftmost first.

    As merges: every way to cut an ordinary token in two ordinary tokens, ranked by the token's score.
    """
    kinds = (NORMAL, USER_DEFINED, UNUSED)
    ordinary = {token: id for id, (token, type_) in enumerate(zip(tokens, types, strict=True)) if type_ in kinds}
    merges: list[tuple[str, str]] = []
    for token in sorted(ordinary, key=lambda token: -scores[ordinary[token]]):  # equals in the order of their ids
        pairs = []
        for at in range(1, len(token)):
            if (left := token[:at]) in ordinary and (right := token[at:]) in ordinary:
                pairs.append((left, right))
        merges += sorted(pairs, key=lambda pair: (ordinary[pair[0]], ordinary[pair[1]])) if len(pairs) > 1 else pairs
    to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    to_space = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    model = {"type": "BPE", "dropout": None, "unk_token": unk, "fuse_unk": True, "byte_fallback": True}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "version": "1.0",
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE}, to_mark] if prefix else [to_mark],
        },
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [to_space, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": model | {"vocab": dict(zip(tokens, range(len(tokens)), strict=True)), "merges": merges},
    }


def _puts_first(bos: str, id: int) -> Json:
    """transformers' way of saying that every text begins with `bos`."""
    first, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second, pair = {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second, pair],
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    }
