"""Text <-> ids, from a model folder or a GGUF file.

Ordinary text never becomes a control token: `encode` merges bytes and knows none. Only `encode(text, special=True)`,
for text the program wrote itself, and the chat templates (`smallpress.tokenizer.chat`) make them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError, disk_error
from smallpress.tokenizer.calls import TAGS
from smallpress.tokenizer.control import ControlTokens
from smallpress.tokenizer.definition import Definition, build, check_definition, parts
from smallpress.tokenizer.gguf_metadata import to_metadata
from smallpress.tokenizer.gguf_vocabulary import from_metadata
from smallpress.tokenizer.spelling import spelled_bytes
from smallpress.tokenizer.templates import TemplateRenderer
from smallpress.tokenizer.thinking import CLOSE, OPEN

END_TOKENS = frozenset(
    {
        "<|endoftext|>",
        "<|im_end|>",
        "<|end_of_text|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|EOT|>",
        "</s>",
        "<end_of_turn>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)
"""Control tokens that end a document, a turn or a message in every family; a completion never goes on after one."""


SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Tokenizer:
    """Safe to use from several threads.

    vocab_size        one more than the highest id
    bos_id, eos_id    None where the vocabulary has none
    eos_ids           every id that ends a completion
    special_ids       control tokens: those ordinary text cannot become
    adds_bos          whether plain text (not a chat, whose template says so itself) begins with bos
    chat_template     jinja source, or None
    special_tokens    role ("bos_token", ...) -> text, as templates see them
    """

    def __init__(self, definition: Definition, config: Mapping[str, Any], end_ids: Iterable[int] = ()) -> None:
        self._definition, self._config = definition, dict(config)
        self._start, self._following = build(definition)
        controls = [token for token in definition.added if token.control]
        self.controls = ControlTokens(controls)
        self.renderer = TemplateRenderer()
        self.vocab_size = max(definition.vocab.values(), default=-1) + 1
        self.special_ids = frozenset(token.id for token in controls)
        self.special_tokens = _special_tokens(config)
        self.bos_id, self.eos_id = (self.id_of(self.special_tokens.get(f"{role}_token")) for role in ("bos", "eos"))
        ends = {token.id for token in controls if token.text in END_TOKENS} | set(end_ids)
        self.eos_ids = frozenset(ends if self.eos_id is None else ends | {self.eos_id})
        adds_bos = config.get("add_bos_token")
        self.adds_bos = self.bos_id is not None and (self._puts_bos_first() if adds_bos is None else adds_bos is True)
        self.chat_template = _template(config.get("chat_template"))
        self._hidden_ids = frozenset(t.id for t in definition.added if t.special and t.text not in {OPEN, CLOSE} | TAGS)

    @classmethod
    def from_folder(cls, path: str | Path) -> Self:
        """A Hugging Face folder with a `tokenizer.json`. Raises UserError."""
        folder = Path(path)
        if not (folder / "tokenizer.json").is_file():
            raise UserError(
                f"{folder} has no tokenizer.json",
                "load it once with transformers' AutoTokenizer and save it again with save_pretrained",
            )
        raw, config = _read_json(folder / "tokenizer.json"), _optional_json(folder / "tokenizer_config.json")
        config |= {
            role: token
            for role, token in _optional_json(folder / "special_tokens_map.json").items()
            if role not in config
        }
        if (folder / "chat_template.jinja").is_file():
            config["chat_template"] = _read(folder / "chat_template.jinja").decode(errors="replace")
        _take_over_added_tokens(raw, config)
        definition = check_definition(raw, str(folder / "tokenizer.json"))
        return cls(definition, config, _end_ids(folder))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Self:
        """The vocabulary in a GGUF file's metadata. Raises UserError."""
        vocabulary = from_metadata(metadata)
        definition = check_definition(vocabulary.definition, "the GGUF's vocabulary")
        return cls(definition, vocabulary.config, vocabulary.end_ids)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of `text`, without bos. With `special`, control tokens written in it become their ids."""
        if special:
            return self.encode_pieces(self.controls.split(text))
        return self._start.encode(_mended(text), add_special_tokens=False).ids

    def encode_pieces(self, pieces: Iterable[str | int]) -> list[int]:
        """The ids of ordinary texts between control ids. Neighbouring texts are not merged with each other."""
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
            elif piece:
                library = self._following if ids else self._start
                ids += library.encode(_mended(piece), add_special_tokens=False).ids
        return ids

    def encode_many(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of each, on all threads of the library."""
        mended = [_mended(text) for text in texts]
        return [encoding.ids for encoding in self._start.encode_batch_fast(mended, add_special_tokens=False)]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD, ids outside the vocabulary nothing.

        `skip_special` hides special tokens, but not the tags around thinking and calls, whatever they are marked as.
        """
        data = b"".join(map(self.shown_bytes if skip_special else self.token_bytes, ids))
        if self.strips_space and data.startswith(b" "):
            data = data[1:]
        return data.decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes one token stands for; a character may be spread over several tokens."""
        known = self._bytes.get(id)
        if known is None:
            known = self._bytes[id] = self._spelled(id)
        return known

    def shown_bytes(self, id: int) -> bytes:
        """As `token_bytes`, but nothing for a special token."""
        return b"" if id in self._hidden_ids else self.token_bytes(id)

    def id_of(self, token: str | None) -> int | None:
        """The id of a token as the vocabulary spells it."""
        return None if token is None else self._definition.vocab.get(token)

    @property
    def end_of_text_id(self) -> int | None:
        """What ends a document, where `eos_id` may only end a turn."""
        ends = (self.id_of(text) for text in ("<|endoftext|>", "<|end_of_text|>"))
        return next((id for id in ends if id in self.special_ids), self.eos_id)

    def words(self) -> Mapping[str, int]:
        """Every token as the vocabulary spells it, with its id."""
        return self._definition.vocab

    @property
    def strips_space(self) -> bool:
        """Whether a decoded text loses one space at its start (SentencePiece put it there)."""
        return self._definition.strips_space

    def pad_with(self, token: str | None) -> int | None:
        """Make it what fills up batches where `save` is read; its id."""
        if token is not None:
            self._config["pad_token"] = self.special_tokens["pad_token"] = token
        return self.id_of(token)

    def save(self, folder: str | Path) -> None:
        """Write the files that transformers' AutoTokenizer loads with the same ids and chat template."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"writing {folder}") from error
        for name, content in (
            ("tokenizer.json", self._definition.json),
            ("tokenizer_config.json", self._config),
            ("special_tokens_map.json", self.special_tokens),
        ):
            write_file(folder / name, json.dumps(content, ensure_ascii=False, indent=1).encode())
        if self.chat_template is not None:
            write_file(folder / "chat_template.jinja", self.chat_template.encode())

    def gguf_metadata(self, n_ids: int) -> dict[str, Any]:
        """The `tokenizer.` keys of a GGUF with `n_ids` embeddings, from which `from_gguf` makes the same tokenizer.

        Raises UserError for what a GGUF cannot say.
        """
        eos_id = min(self.eos_ids, default=None) if self.eos_id is None else self.eos_id
        known = {token.id for token in self._definition.added if token.control and token.text in END_TOKENS}
        unnamed = sorted(self.eos_ids - known - {eos_id})
        keys = {f"tokenizer.ggml.{name}_token_id": id for name, id in zip(("eot", "eom"), unnamed, strict=False)}
        if len(unnamed) > len(keys):
            raise UserError(f"more ids end a completion ({unnamed}) than a GGUF has names for", "remove some of them")
        if eos_id is not None:
            keys["tokenizer.ggml.eos_token_id"] = eos_id  # without one llama.cpp takes 11, whatever that is
        metadata = to_metadata(self._definition, self.special_tokens, n_ids) | keys
        metadata["tokenizer.ggml.add_bos_token"] = self.adds_bos
        if self.chat_template is not None:
            metadata["tokenizer.chat_template"] = self.chat_template
        return metadata

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        """What has been asked for; all of a vocabulary would take longer than a short answer."""
        return {}

    @cached_property
    def _tokens(self) -> dict[int, str]:
        return {id: token for token, id in self._definition.vocab.items()}

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        return frozenset(token.id for token in self._definition.added)

    def _spelled(self, id: int) -> bytes:
        token = self._tokens.get(id)
        return b"" if token is None else spelled_bytes(token, self._definition.spelling, id in self._added_ids)

    def _puts_bos_first(self) -> bool:
        """Whether the post-processor of `tokenizer.json` begins every text with bos."""
        post = self._definition.json.get("post_processor")
        for part in parts(post, "processors"):
            single = part.get("single")
            first = single[0] if isinstance(single, list) and single else None
            if part.get("type") == "TemplateProcessing" and isinstance(first, dict) and "SpecialToken" in first:
                token = first["SpecialToken"]
                return isinstance(token, dict) and token.get("id") == self.special_tokens.get("bos_token")
        return False


def _mended(text: str) -> str:
    """`text` as it can be written in UTF-8: surrogate pairs joined, lone surrogates as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    roles = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
    texts = {role: _text_of(config.get(role)) for role in roles}
    return {role: text for role, text in texts.items() if text is not None}


def _text_of(token: object) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _template(value: object) -> str | None:
    """The template itself, or the one named "default" of a list of named ones."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _take_over_added_tokens(raw: object, config: Mapping[str, Any]) -> None:
    """Add to `tokenizer.json` what only the older `added_tokens_decoder` of the config lists."""
    decoder = config.get("added_tokens_decoder")
    if not isinstance(raw, dict) or not isinstance(decoder, dict):
        return
    listed = [token for token in raw.get("added_tokens") or [] if isinstance(token, dict)]
    known = {token.get("content") for token in listed}
    missing = [(id, token) for id, token in decoder.items() if isinstance(token, dict)]
    missing = [(id, token) for id, token in missing if token.get("content") not in known and id.isdecimal()]
    raw["added_tokens"] = listed + [{"id": int(id)} | token for id, token in missing]


def _end_ids(folder: Path) -> set[int]:
    """`eos_token_id` of generation_config.json, else of config.json: a number or a list of them."""
    for name in ("generation_config.json", "config.json"):
        value = _optional_json(folder / name).get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        if found := {id for id in ids if type(id) is int and id >= 0}:
            return found
    return set()


def _optional_json(path: Path) -> dict[str, Any]:
    content = _read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object", "the file is damaged: fetch it again")
    return content


def _read_json(path: Path) -> Any:
    data = _read(path)
    try:
        value = json.loads(data)
        if SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()  # Half a pair has no form in UTF-8: a UnicodeError.
        return value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}", "the file is damaged: fetch it again") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
