"""A tokenizer made here is the same one in transformers, ids and chats alike."""

import random

import pytest

from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.made import make_tokenizer

TEXTS = ["the cat and the dog, the bird and the fish\n" * 5, "关关雎鸠，在河之洲。\n" * 5, "    return x + 100\n" * 5]
CHARS = "the cat关雎鸠，。 0123456789\n\t\r+-_<|>{}\"'é\u0301\u00a0😀あア한ß²½"
CHAT = [
    {"role": "user", "content": "the cat?"},
    {"role": "assistant", "content": "关关雎鸠", "reasoning_content": "return 100"},
    {"role": "user", "content": "the dog?"},
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(ours, transformers' of the folder we saved)."""
    transformers = pytest.importorskip("transformers")
    ours, folder = make_tokenizer(TEXTS, 330), tmp_path_factory.mktemp("made")
    ours.save(folder)
    return ours, transformers.AutoTokenizer.from_pretrained(folder)


def test_transformers_gives_the_same_ids_and_the_text_back(pair):
    ours, theirs = pair
    draw = random.Random(0)
    for text in (*TEXTS, *("".join(draw.choices(CHARS, k=draw.randint(1, 60))) for _ in range(300))):
        ids = ours.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == theirs.encode(text) == ids, repr(text)
        assert theirs.decode(ids) == ours.decode(ids) == text
    assert theirs.eos_token_id == theirs.bos_token_id == theirs.pad_token_id == ours.end_of_text_id
    assert len(theirs) == ours.vocab_size


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_transformers_gives_the_same_chat(pair, add_generation_prompt):
    ours, theirs = pair
    expected = theirs.apply_chat_template(CHAT, add_generation_prompt=add_generation_prompt, return_dict=False)
    assert encode_chat(ours, CHAT, add_generation_prompt=add_generation_prompt) == expected
