"""Conversations -> ids, through the model's own chat template.

The template's control tokens become their ids, and nothing a message, a tool or an argument contains does; harmless
conversations give the ids of transformers' `apply_chat_template`. See `smallpress.tokenizer.control` for how.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from smallpress.run.errors import UserError
from smallpress.tokenizer.control import unused_mark
from smallpress.tokenizer.thinking import CLOSE, OPEN
from smallpress.tokenizer.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "model")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
MAX_DEPTH = 64

Message = Mapping[str, Any]


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any
) -> list[int]:
    """The prompt's ids. `variables` are passed to the template: tools, documents, enable_thinking, ...

    Raises UserError where the tokenizer has no template, a role is unknown, or the template refuses.
    """
    mark, text = _rendered(tokenizer, messages, add_generation_prompt, variables)
    pieces = tokenizer.controls.split(text)
    return tokenizer.encode_pieces(piece if isinstance(piece, int) else _unmarked(piece, mark) for piece in pieces)


def render_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any
) -> str:
    """The prompt as text, for a person to read: a `<|im_end|>` in it may be the template's or a user's."""
    mark, text = _rendered(tokenizer, messages, add_generation_prompt, variables)
    return _unmarked(text, mark)


def _rendered(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool, variables: Mapping[str, Any]
) -> tuple[str, str]:
    """(guard character, the template's text with guards in all that came from outside)."""
    if tokenizer.chat_template is None:
        raise UserError("the model has no chat template", "choose the prompt form r1_zero, or an instruct model")
    plain_messages = [_checked(message) for message in messages]
    plain_variables = _plain(dict(variables))
    mark = unused_mark([tokenizer.chat_template, *_texts([plain_messages, plain_variables])])

    def guard(text: str) -> str:
        return tokenizer.controls.guard(text, mark)

    def guard_own_turn(text: str) -> str:
        return tokenizer.controls.guard(text, mark, keep=(OPEN, CLOSE))

    guarded = [
        {key: _mapped(value, guard_own_turn if _own_turn(message, key) else guard) for key, value in message.items()}
        | {"role": message["role"]}
        for message in plain_messages
    ]
    inputs = {"tools": None, "documents": None} | _mapped(plain_variables, guard) | tokenizer.special_tokens
    inputs |= {"messages": guarded, "add_generation_prompt": add_generation_prompt}
    return mark, tokenizer.renderer.render(tokenizer.chat_template, inputs)


def _own_turn(message: Message, key: str) -> bool:
    """Whether thinking tags in this text are the model's own: they steer its turn only, and templates look for them."""
    return message["role"] == "assistant" and key == "content"


def _unmarked(text: str, mark: str) -> str:
    r"""Without guards, also where a template wrote JSON with `\ue000` for one."""
    return text.replace(mark, "").replace(f"\\u{ord(mark):04x}", "")


def _checked(message: Message) -> dict[str, Any]:
    """The message in plain types, with its reasoning under every name that templates read."""
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        role = message.get("role") if isinstance(message, Mapping) else message
        raise UserError(f"a message has the role {role!r}", f"use one of: {', '.join(ROLES)}")
    plain: dict[str, Any] = _plain(message)
    reasoning = next((plain[key] for key in REASONING_KEYS if plain.get(key) is not None), None)
    return plain if reasoning is None else {"thinking": reasoning, **plain, "reasoning_content": reasoning}


def _plain(value: Any, depth: int = 0) -> Any:
    """`value` in JSON's types only: a template must not get at an object's methods."""
    if depth > MAX_DEPTH:
        raise UserError(f"a message is nested more than {MAX_DEPTH} deep", "make it flatter")
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    raise UserError(f"a message holds a {type(value).__name__}", "give texts, numbers, lists and objects only")


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
