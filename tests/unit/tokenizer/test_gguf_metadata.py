"""A tokenizer written as GGUF metadata is the same tokenizer when it is read back, or it is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpress.run.errors import UserError
from smallpress.tokenizer.pre_tokenizers import CUTTING_RULES
from smallpress.tokenizer.spelling import byte_of_letter
from smallpress.tokenizer.tokenizer import Tokenizer

GGML = "tokenizer.ggml."
WORDS = ["\u2581", "a", "b", "t", "h", "e", "\u2581t", "he", "\u2581the", "ab", "ba", "aa", "\u2581\u2581", "aba"]


def byte_level_metadata(pre="gpt-2"):
    letters = sorted(byte_of_letter(), key=byte_of_letter().get)
    words = ["Ġt", "he", "Ġthe"]
    return {
        GGML + "model": "gpt2",
        GGML + "pre": pre,
        GGML + "tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", *letters, *words],
        GGML + "token_type": [3] * 3 + [4] + [1] * (256 + len(words)),
        GGML + "merges": ["Ġ t", "h e", "Ġt he"],
        GGML + "bos_token_id": 1,
        GGML + "eos_token_id": 2,
        GGML + "unknown_token_id": 0,
        GGML + "padding_token_id": 2,
        GGML + "add_bos_token": False,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }


def sentencepiece_metadata(prefix=True):
    ranks = {word: float(-rank) for rank, word in enumerate(word for word in WORDS if len(word) > 1)}
    return {
        GGML + "model": "llama",
        GGML + "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS],
        GGML + "token_type": [2, 3, 3] + [6] * 256 + [1] * len(WORDS),
        GGML + "scores": [-8.0] * 259 + [ranks.get(word, -8.0) for word in WORDS],
        GGML + "bos_token_id": 1,
        GGML + "eos_token_id": 2,
        GGML + "unknown_token_id": 0,
        GGML + "add_bos_token": True,
        GGML + "add_space_prefix": prefix,
    }


def through_a_folder(metadata, folder, change=None):
    """The tokenizer of the metadata, saved for Hugging Face, `tokenizer.json` changed, and loaded again."""
    Tokenizer.from_gguf(metadata).save(folder)
    raw = json.loads((folder / "tokenizer.json").read_text())
    if change:
        change(raw)
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    return Tokenizer.from_folder(folder)


@pytest.mark.parametrize("pre", CUTTING_RULES)
def test_a_byte_level_vocabulary_comes_back_key_by_key(tmp_path, pre):
    metadata = byte_level_metadata(pre)
    found = through_a_folder(metadata, tmp_path).gguf_metadata(263)
    same = next(name for name, rule in CUTTING_RULES.items() if rule == CUTTING_RULES[pre])
    assert found == metadata | {GGML + "pre": same}


@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_vocabulary_comes_back_key_by_key(tmp_path, prefix):
    metadata = sentencepiece_metadata(prefix)
    assert through_a_folder(metadata, tmp_path).gguf_metadata(273) == metadata


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory):
    """(a tokenizer of a folder, the one of its GGUF metadata) of each kind."""
    pairs = []
    for metadata in (byte_level_metadata("smollm"), sentencepiece_metadata()):
        ours = through_a_folder(metadata, tmp_path_factory.mktemp("folder"))
        pairs.append((ours, Tokenizer.from_gguf(ours.gguf_metadata(ours.vocab_size))))
    return pairs


@given(st.text(alphabet="ab the\n1中<s>|", max_size=40))
def test_any_text_has_the_same_ids(both_ways, text):
    for ours, again in both_ways:
        assert again.encode(text) == ours.encode(text)
        assert again.encode(text, special=True) == ours.encode(text, special=True)
        assert again.decode(ours.encode(text)) == text


def test_roles_and_ends_are_the_same(both_ways):
    for ours, again in both_ways:
        assert (again.bos_id, again.eos_ids, again.adds_bos) == (ours.bos_id, ours.eos_ids, ours.adds_bos)
        assert again.special_ids == ours.special_ids and again.special_tokens == ours.special_tokens


def test_parts_that_change_no_id_may_be_spelt_otherwise(tmp_path):
    def change(raw):
        raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [raw["pre_tokenizer"]]}
        del raw["pre_tokenizer"]["pretokenizers"][0]["pretokenizers"][0]["use_regex"]
        raw["pre_tokenizer"]["pretokenizers"][0]["pretokenizers"][0]["trim_offsets"] = False
        raw["normalizer"] = {"type": "Sequence", "normalizers": []}
        raw["model"]["merges"] = [merge.split(" ") for merge in raw["model"]["merges"]]

    metadata = byte_level_metadata()
    assert through_a_folder(metadata, tmp_path, change).gguf_metadata(263) == metadata


def test_line_breaks_in_a_pattern_may_be_written_out(tmp_path):
    def change(raw):
        pattern = raw["pre_tokenizer"]["pretokenizers"][0]["pattern"]
        assert "\\r\\n" in pattern["Regex"]
        pattern["Regex"] = pattern["Regex"].replace("\\r", "\r").replace("\\n", "\n")

    metadata = byte_level_metadata("llama-bpe")
    assert through_a_folder(metadata, tmp_path, change).gguf_metadata(263) == metadata


def test_ids_that_only_the_settings_call_ends_get_a_name(tmp_path):
    def of(ends):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        return through_a_folder(byte_level_metadata(), tmp_path)

    metadata = of([2, 3, 100]).gguf_metadata(263)
    assert (metadata[GGML + "eot_token_id"], metadata[GGML + "eom_token_id"]) == (3, 100)
    assert Tokenizer.from_gguf(metadata).eos_ids == {0, 2, 3, 100}
    with pytest.raises(UserError, match="more ids end a completion"):
        of([2, 3, 100, 101]).gguf_metadata(263)


def test_a_vocabulary_without_a_named_end_still_has_one_in_the_file(tmp_path):
    metadata = byte_level_metadata()
    del metadata[GGML + "eos_token_id"]
    tokenizer = through_a_folder(metadata, tmp_path)
    assert tokenizer.eos_id is None and tokenizer.eos_ids == {0, 2}
    assert tokenizer.gguf_metadata(263)[GGML + "eos_token_id"] == 0


def set_flag(flag):
    def change(raw):
        raw["added_tokens"][1][flag] = True

    return change


def incomplete_alphabet(raw):
    raw["model"]["unk_token"] = "<|endoftext|>"
    raw["model"]["vocab"]["?!"] = raw["model"]["vocab"].pop("!")


def other_digits(raw):
    raw["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": False})


def empty_token(raw):
    raw["model"]["vocab"][""] = raw["model"]["vocab"].pop("Ġthe")
    raw["model"]["merges"].pop()


def merge_with_a_space(raw):
    raw["model"]["vocab"] |= {"a b": 263, "a bc": 264}
    raw["model"]["merges"] = [["a b", "c"]]


BYTE_LEVEL_REFUSALS = {
    "lstrip": (set_flag("lstrip"), "has the flag lstrip"),
    "rstrip": (set_flag("rstrip"), "has the flag rstrip"),
    "single_word": (set_flag("single_word"), "has the flag single_word"),
    "other digits": (other_digits, "cuts text in a way that has no name among gpt-2, smollm"),
    "normalizer": (lambda raw: raw.update(normalizer={"type": "Lowercase"}), "no name among"),
    "whole words": (lambda raw: raw["model"].update(ignore_merges=True), "no name among"),
    "no pre-tokenizer": (lambda raw: raw.update(pre_tokenizer=None), "no name among"),
    "incomplete alphabet": (incomplete_alphabet, "bytes without a token become '<|endoftext|>'"),
    "empty token": (empty_token, "an empty token"),
    "space in a merge": (merge_with_a_space, "has a space"),
}


@pytest.mark.parametrize("name", BYTE_LEVEL_REFUSALS)
def test_what_a_gguf_cannot_say_is_refused(tmp_path, name):
    change, said = BYTE_LEVEL_REFUSALS[name]
    tokenizer = through_a_folder(byte_level_metadata(), tmp_path, change)
    with pytest.raises(UserError, match=said.replace("|", r"\|")) as caught:
        tokenizer.gguf_metadata(300)
    assert "--to hf" in caught.value.remedy


def other_order(raw):
    raw["model"]["merges"] = raw["model"]["merges"][::-1]


def missing_byte(raw):
    raw["model"]["vocab"]["<0xFFF>"] = raw["model"]["vocab"].pop("<0xFF>")


def first_word_only(raw):
    raw["normalizer"] = None
    raw["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}


SENTENCEPIECE_REFUSALS = {
    "a merge less": (lambda raw: raw["model"]["merges"].pop(), "not those of a SentencePiece vocabulary"),
    "a byte less": (missing_byte, "not every byte has a token"),
    "no bytes": (lambda raw: raw["model"].update(byte_fallback=False, unk_token=None), "not every byte has a token"),
    "first word only": (first_word_only, "treats spaces in a way"),
}


@pytest.mark.parametrize("name", SENTENCEPIECE_REFUSALS)
def test_what_is_no_sentencepiece_vocabulary_is_refused(tmp_path, name):
    change, said = SENTENCEPIECE_REFUSALS[name]
    tokenizer = through_a_folder(sentencepiece_metadata(), tmp_path, change)
    with pytest.raises(UserError, match=said):
        tokenizer.gguf_metadata(300)


def test_another_order_of_merges_is_another_order_of_scores(tmp_path):
    ours = through_a_folder(sentencepiece_metadata(), tmp_path, other_order)
    again = Tokenizer.from_gguf(ours.gguf_metadata(273))
    for text in ("the aba ba", "ab aab the", "abaabaab"):
        assert again.encode(text) == ours.encode(text)
