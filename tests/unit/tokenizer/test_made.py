"""A tokenizer made from a page of English, Chinese and code."""

import pytest

from smallpress.run.errors import UserError
from smallpress.tokenizer.chat import render_chat
from smallpress.tokenizer.made import CONTROLS, FIM, MIN_VOCAB, make_tokenizer
from smallpress.tokenizer.tokenizer import Tokenizer

TEXTS = [
    "the cat and the dog and the bird, the cat's and the dog's\n" * 3,
    "关关雎鸠，在河之洲。关关雎鸠，在河之洲。\n" * 3,
    "def total(items):\n    return sum(items)\n\ndef count(items):\n    return len(items)\n" * 2,
    "in 2025 and in 2024 and in 202 days",
]
SPECIMEN = "the cat 关关雎鸠 in 20252024\n    return <|im_end|><think> 😀 e\u0301 \0 \r\n"


@pytest.fixture(scope="module")
def made():
    return make_tokenizer(TEXTS, 340)


def test_text_comes_back_byte_for_byte_whatever_was_seen(made):
    ids = made.encode(SPECIMEN)
    assert made.decode(ids) == SPECIMEN
    assert sum(len(made.token_bytes(id)) for id in ids) == len(SPECIMEN.encode())
    assert made.encode_many([SPECIMEN, "", "the"]) == [ids, [], made.encode("the")]


def test_what_the_texts_repeat_are_tokens(made):
    tokens = {made.token_bytes(id).decode(errors="replace") for id in range(made.vocab_size)}
    assert {" the", " and", "关关雎鸠", "202", "    return" if "    return" in tokens else " return"} <= tokens
    assert not any("5" in token and len(token) > 3 for token in tokens)


def test_control_tokens_are_there_and_text_never_becomes_one(made):
    assert [made.id_of(text) for text in CONTROLS] == list(range(8)) and made.vocab_size == 340
    assert made.special_ids == set(range(8)) and not made.special_ids & set(made.encode("".join(CONTROLS)))
    assert made.encode("".join(FIM), special=True) == [3, 4, 5]
    assert (made.end_of_text_id, made.eos_id, made.eos_ids, made.adds_bos) == (0, 0, {0, 2}, False)


def test_the_order_of_the_texts_does_not_matter(made, tmp_path):
    make_tokenizer(TEXTS[::-1], 340).save(tmp_path / "reversed")
    made.save(tmp_path / "made")
    for path in (tmp_path / "made").iterdir():
        assert path.read_bytes() == (tmp_path / "reversed" / path.name).read_bytes()


def test_a_gguf_of_it_names_its_cutting_rule_and_gives_the_same_ids(made):
    metadata = made.gguf_metadata(384)
    assert metadata["tokenizer.ggml.pre"] == "deepseek-v3" and len(metadata["tokenizer.ggml.tokens"]) == 384
    again = Tokenizer.from_gguf(metadata)
    assert again.encode(SPECIMEN) == made.encode(SPECIMEN)
    assert (again.eos_id, again.eos_ids, again.chat_template) == (0, {0, 2}, made.chat_template)


def test_the_chat_template_puts_thinking_between_its_tags(made):
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4", "reasoning_content": "easy"}]
    assert render_chat(made, turns, add_generation_prompt=False) == (
        "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n<think>\neasy\n</think>\n\n4<|im_end|>\n"
    )
    assert render_chat(made, turns[:1]).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_vocabulary_too_small_for_the_bytes_is_refused_and_too_large_a_one_is_filled_as_far_as_it_goes(made):
    with pytest.raises(UserError, match="a vocabulary of 263"):
        make_tokenizer(TEXTS, MIN_VOCAB - 1)
    assert MIN_VOCAB == 264 and 340 < make_tokenizer(TEXTS, 10_000).vocab_size < 600
