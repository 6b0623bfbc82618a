"""Functions a model may call: how it is told of them, and what a call that it must make looks like."""

import json
import re
from collections.abc import Sequence
from typing import Any

from smallpress.server.errors import ApiError
from smallpress.server.fields import Message, SentCall, Tool
from smallpress.server.grammar import json_rule
from smallpress.tokenizer.calls import DEEPSEEK, DEEPSEEK_ONE, DEEPSEEK_SEPARATOR, HERMES, CallForm

MOST_AT_ONCE = 8
"""Calls in one answer where calls are required."""

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_LLAMA3 = re.compile(r"ipython|python_tag|\"parameters\":")

INTRODUCTION = (
    "These functions are there for you to call, one on each line, with the JSON Schema of its arguments:\n"
    "{functions}\n"
    "Where one helps, write nothing but the call, in exactly this form, and its result comes in the next turn:\n"
    "<tool_call>\n"
    '{{"name": "the function\'s name", "arguments": {{"an argument": "its value"}}}}\n'
    "</tool_call>\n"
    "Several calls are written one after another. Otherwise just answer."
)
"""What a model whose template knows no tools is told, behind the client's own system text."""


def knows_tools(template: str) -> bool:
    """Whether a template has a place for functions."""
    return re.search(r"\btools\b", _COMMENT.sub("", template)) is not None


def form_of(template: str) -> CallForm:
    """How a model with this template writes calls; the generic form where the template knows none."""
    if not knows_tools(template) or HERMES[0] in template:
        return "hermes"
    if DEEPSEEK[0] in template:
        return "deepseek"
    return "llama3" if _LLAMA3.search(template) else "hermes"


def told_turns(template: str, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[dict[str, Any]], Any]:
    """(the turns as the template takes them, its variable `tools`)."""
    if not knows_tools(template):
        return _generic_turns(messages, tools), None
    as_text = form_of(template) == "deepseek"  # its template joins arguments to other text
    turns = [_turn(message, i, as_text) for i, message in enumerate(messages)]
    return turns, [tool.model_dump(exclude_none=True) for tool in tools] or None


def _turn(message: Message, i: int, as_text: bool) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    turn: dict[str, Any] = {"role": role, "content": message.text}
    turn |= {"name": message.name} if message.name else {}
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        if as_text and not message.text:
            turn["content"] = None
        turn["tool_calls"] = [_sent(call, _place(i, k), as_text) for k, call in enumerate(message.tool_calls)]
    return turn


def _sent(call: SentCall, place: str, as_text: bool) -> dict[str, Any]:
    arguments = _arguments(call, place)
    given = json.dumps(arguments, ensure_ascii=False) if as_text else arguments
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": given}}


def _generic_turns(messages: Sequence[Message], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Calls and results as texts of the turns that every template knows."""
    turns: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        if message.role == "tool":
            text = f"<tool_response>\n{message.text}\n</tool_response>"
            if turns and turns[-1].pop("of_tools", False):
                turns[-1] |= {"content": f"{turns[-1]['content']}\n{text}", "of_tools": True}
            else:
                turns.append({"role": "user", "content": text, "of_tools": True})
            continue
        turn = _turn(message.model_copy(update={"tool_calls": None, "tool_call_id": None}), i, False)
        calls = [_written(call, _place(i, k)) for k, call in enumerate(message.tool_calls or [])]
        turns.append(turn | {"content": "\n".join(filter(None, [turn["content"], *calls]))})
    turns = [{key: value for key, value in turn.items() if key != "of_tools"} for turn in turns]
    if not tools:
        return turns
    told = INTRODUCTION.format(functions="\n".join(_described(tool) for tool in tools))
    if turns[0]["role"] == "system":
        return [turns[0] | {"content": "\n\n".join(filter(None, [turns[0]["content"], told]))}, *turns[1:]]
    return [{"role": "system", "content": told}, *turns]


def _described(tool: Tool) -> str:
    return json.dumps(tool.function.model_dump(exclude_none=True, exclude={"strict"}), ensure_ascii=False)


def _written(call: SentCall, place: str) -> str:
    value = {"name": call.function.name, "arguments": _arguments(call, place)}
    return f"{HERMES[0]}\n{json.dumps(value, ensure_ascii=False)}\n{HERMES[1]}"


def _place(message: int, call: int) -> str:
    return f"messages[{message}].tool_calls[{call}].function.arguments"


def _arguments(call: SentCall, place: str) -> dict[str, Any]:
    try:
        value = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, f"{place} is not the JSON of an object", place, "invalid_value")
    return value


def call_rules(form: CallForm, tools: Sequence[Tool], several: bool) -> str:
    """Rules of a grammar, the first called `calls`: one call of one of `tools`, or several."""
    more = MOST_AT_ONCE - 1 if several else 0
    begin, open, middle, close, between, end = _MARKS[form]
    names = [f"{_quoted(open + tool.function.name + middle)} arguments_{i}" for i, tool in enumerate(tools)]
    arguments = [f"arguments_{i}: {json_rule(_parameters(tool, i), f'tools[{i}]')}" for i, tool in enumerate(tools)]
    first, last = (f" {_quoted(text)}" if text else "" for text in (begin, end))
    return "\n".join(
        [
            f"calls:{first} call ({_quoted(between)} call){{0,{more}}}{last}" if more else f"calls:{first} call{last}",
            f"call: ({' | '.join(names)}) {_quoted(close)}",
            *arguments,
        ]
    )


_MARKS: dict[CallForm, tuple[str, str, str, str, str, str]] = {
    "hermes": ("", f'{HERMES[0]}\n{{"name": "', '", "arguments": ', f"}}\n{HERMES[1]}", "\n", ""),
    "llama3": ("", '{"name": "', '", "parameters": ', "}", "; ", ""),
    "deepseek": (DEEPSEEK[0], f"{DEEPSEEK_ONE[0]}function{DEEPSEEK_SEPARATOR}", "\n```json\n",
                 f"\n```{DEEPSEEK_ONE[1]}", "\n", DEEPSEEK[1]),
}  # fmt: skip
"""Of each form: what stands before all calls, before a name, between name and arguments, after them, between two calls,
and after all."""


def _parameters(tool: Tool, i: int) -> dict[str, Any]:
    schema = tool.function.parameters
    if not schema:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if schema.get("type", "object") != "object":
        place = f"tools[{i}].function.parameters"
        raise ApiError(
            400, f"{place} is a schema of {schema['type']!r}: arguments are an object", place, "invalid_value"
        )
    return schema | {"type": "object"}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
