"""A tokenizer made from text: byte-level pairs, merged in the order of their frequency (Sennrich et al. 2016).

Text is cut as DeepSeek-V3's tokenizer cuts it: at most three digits together, Chinese and Japanese apart from other
letters, words with the space or the sign before them. llama.cpp knows that rule by name, so a GGUF of the tokenizer
gives the same ids there. The same texts give the same tokenizer, whatever their order.
"""

import json
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import models, trainers

from smallpress.run.errors import UserError
from smallpress.tokenizer.definition import check_definition
from smallpress.tokenizer.pre_tokenizers import BYTES, CUTTING_RULES
from smallpress.tokenizer.spelling import byte_of_letter
from smallpress.tokenizer.thinking import CLOSE, OPEN
from smallpress.tokenizer.tokenizer import Tokenizer

RULE = "deepseek-v3"
END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
FIM = ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>")
"""What stands before the beginning of a text, before what is between, and before its end, where the middle is asked."""
CONTROLS = (END_OF_TEXT, TURN, END_OF_TURN, *FIM, OPEN, CLOSE)
SHOWN = (OPEN, CLOSE)
MAX_TOKEN_CHARS = 24  # of its spelling, a letter for each byte: eight Chinese characters, and no long rules of dashes
MIN_COUNT = 2
MIN_VOCAB = len(CONTROLS) + 256

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def make_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of `vocab_size` tokens: the control tokens, the 256 bytes, then what the texts repeat.

    Its documents end with `<|endoftext|>`, its chats are in ChatML with thinking between `<think>` and `</think>`.
    Fewer tokens where the texts do not repeat as much. Raises UserError for a size that does not hold the bytes.
    """
    if vocab_size < MIN_VOCAB:
        raise UserError(f"a vocabulary of {vocab_size} does not hold bytes and control tokens", f"give {MIN_VOCAB} up")
    rule = CUTTING_RULES[RULE]
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": rule.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(rule.steps)},
        "post_processor": None,
        "decoder": BYTES,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    library = tokenizers.Tokenizer.from_str(json.dumps(whole))
    assert isinstance(library.model, models.BPE)
    library.train_from_iterator(texts, _trainer(vocab_size))
    learned = json.loads(library.to_str())
    for token in learned["added_tokens"]:
        token["special"] = token["content"] not in SHOWN
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    return Tokenizer(check_definition(learned, "the new tokenizer"), config)


def _trainer(vocab_size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_COUNT,
        max_token_length=MAX_TOKEN_CHARS,
        initial_alphabet=sorted(byte_of_letter()),
        special_tokens=[tokenizers.AddedToken(text, special=True, normalized=False) for text in CONTROLS],
        show_progress=False,
    )
