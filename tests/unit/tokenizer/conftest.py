"""A tokenizer small enough to read: one token a byte, three merges, six control tokens, ChatML."""

import pytest

from smallpress.tokenizer.spelling import byte_of_letter
from smallpress.tokenizer.tokenizer import Tokenizer

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<think>", "</think>", "<tool_call>"]
MERGES = ["Ġ t", "h e", "Ġt he"]
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tiny_metadata() -> dict:
    """A GGUF's: ids 0-2 controls, 3-5 tags, 6-261 bytes, 262-264 " t", "he" and " the"."""
    letters = sorted(byte_of_letter(), key=byte_of_letter().get)
    words = [merge.replace(" ", "") for merge in MERGES]
    types = [CONTROL] * 3 + [USER_DEFINED] * 3 + [NORMAL] * (256 + len(words))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": CONTROLS + TAGS + letters + words,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHATML,
    }


@pytest.fixture
def metadata() -> dict:
    """The small tokenizer's, to be changed."""
    return tiny_metadata()


@pytest.fixture(scope="session")
def tiny() -> Tokenizer:
    return Tokenizer.from_gguf(tiny_metadata())
