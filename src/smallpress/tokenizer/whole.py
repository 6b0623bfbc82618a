"""A whole conversation, answered, as the ids of which a reward model scores the last."""

from collections.abc import Sequence

from smallpress.tokenizer.chat import Message, encode_chat
from smallpress.tokenizer.tokenizer import Tokenizer

JOINT = "\n\n"
SHORTEST = ({"role": "user", "content": "?"}, {"role": "assistant", "content": "!"})


def encode_whole(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[int, ...]:
    """Through the chat template, as `apply_chat_template` gives it; without one the texts with an empty line between
    them, begun and ended as the model expects. Nothing in a message becomes a control token."""
    if tokenizer.chat_template is not None:
        return tuple(encode_chat(tokenizer, messages, add_generation_prompt=False))
    text = JOINT.join(str(message["content"]) for message in messages)
    first = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    last = [tokenizer.eos_id] if tokenizer.eos_id is not None else []
    return (*first, *tokenizer.encode(text), *last)


def padding(tokenizer: Tokenizer) -> str | None:
    """The token that fills up batches elsewhere: a control token no conversation ends with, the tokenizer's own where
    it is one. transformers scores the last token that is not this one. None where there is no such token."""
    end = encode_whole(tokenizer, SHORTEST)[-1:]
    roles = ("pad_token", "unk_token", "bos_token", *sorted(tokenizer.special_tokens))
    named = (tokenizer.special_tokens.get(role) for role in roles)
    return next((text for text in named if text is not None and tokenizer.id_of(text) not in (None, *end)), None)
