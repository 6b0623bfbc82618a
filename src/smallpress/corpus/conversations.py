"""Files of examples as people have them, read into one shape: a list of messages.

    messages     {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    completion   {"prompt": "..." or messages, "completion": "..." or messages}
    Alpaca       {"instruction": "...", "input": "... or nothing", "output": "..."}
    ShareGPT     {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}
    preference   {"prompt": "..." or messages, "chosen": "..." or messages, "rejected": ...}; without a prompt, chosen
                 and rejected are whole conversations that differ in their last answer

JSON Lines, or one JSON list. A row of no shape is an error with its line; other keys of a row are left alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallpress.run.errors import UserError, disk_error

Message = dict[str, Any]

SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "model": "assistant", "system": "system", "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip
MAX_LINE_CHARS = 1 << 24
SHAPES = "messages, prompt and completion, instruction and output, or conversations"


@dataclass(frozen=True, slots=True)
class Conversation:
    """`messages` with text contents. `plain`: a prompt and a completion given as bare texts, not as turns of a chat."""

    messages: tuple[Message, ...]
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt: conversations that differ in their last message alone."""

    chosen: Conversation
    rejected: Conversation


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Raises UserError with the line for what is not JSON or of none of the shapes."""
    for number, row in read_rows(path):
        try:
            yield conversation_of(row)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}", f"rows have {SHAPES}") from None


def read_preferences(path: Path) -> Iterator[Preference]:
    """Raises UserError with the line, as `read_conversations`."""
    for number, row in read_rows(path):
        try:
            yield preference_of(row)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}", "rows have prompt, chosen and rejected") from None


def conversation_of(row: Mapping[str, Any]) -> Conversation:
    """One row of any shape. Raises ValueError that says what is wrong.

    >>> conversation_of({"instruction": "Add.", "input": "2 + 2", "output": "4"}).messages[0]["content"]
    'Add.\\n\\n2 + 2'
    """
    if "messages" in row:
        return Conversation(_messages(row["messages"], "messages"))
    if "conversations" in row:
        return Conversation(_messages(row["conversations"], "conversations"))
    if "prompt" in row and "completion" in row:
        return _pair(row["prompt"], row["completion"], "completion")
    if "instruction" in row and "output" in row:
        parts = [_text(row["instruction"], "instruction"), _text(row.get("input") or "", "input")]
        question = "\n\n".join(part for part in parts if part)
        system = _text(row.get("system") or "", "system")
        head = [{"role": "system", "content": system}] if system else []
        return Conversation((*head, *_turns(question, _text(row["output"], "output"))))
    raise ValueError(f"it has none of the shapes known, but {', '.join(map(repr, list(row)[:6])) or 'no key'}")


def preference_of(row: Mapping[str, Any]) -> Preference:
    """One row. Raises ValueError that says what is wrong."""
    for key in ("chosen", "rejected"):
        if key not in row:
            raise ValueError(f"{key} is missing")
    if "prompt" in row:
        pair = [_pair(row["prompt"], row[key], key) for key in ("chosen", "rejected")]
    else:
        pair = [Conversation(_messages(row[key], key)) for key in ("chosen", "rejected")]
    chosen, rejected = pair
    if chosen.messages[:-1] != rejected.messages[:-1]:
        raise ValueError("chosen and rejected differ before their last message")
    return Preference(chosen, rejected)


def _pair(prompt: Any, completion: Any, key: str) -> Conversation:
    if isinstance(prompt, str) and isinstance(completion, str):
        return Conversation(_turns(prompt, completion), plain=True)
    asked = _turns(prompt, "")[:1] if isinstance(prompt, str) else _messages(prompt, "prompt")
    if isinstance(completion, str):
        return Conversation((*asked, {"role": "assistant", "content": completion}))
    return Conversation((*asked, *_messages(completion, key)))


def _turns(question: str, answer: str) -> tuple[Message, ...]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} is no list of messages")
    return tuple(_message(item, key) for item in value)


def _message(item: Any, key: str) -> Message:
    """In OpenAI's words; everything else the message holds (reasoning, tool calls) stays."""
    if not isinstance(item, Mapping):
        raise ValueError(f"{key} holds a {type(item).__name__}, not a message")
    if "from" in item and "value" in item:
        role = SHAREGPT_ROLES.get(str(item["from"]))
        if role is None:
            raise ValueError(f"a message is from {item['from']!r}")
        return {"role": role, "content": _text(item["value"], "value")}
    if not isinstance(item.get("role"), str):
        raise ValueError(f"a message of {key} has no role")
    content = item.get("content")
    return {**item, "content": "" if content is None else _text(content, "content")}


def _text(value: Any, key: str) -> str:
    """A text, or a list of text parts joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    raise ValueError(f"{key} is no text, but a {type(value).__name__}")


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of a file of JSON lines; of one JSON list, its n-th object as line n. Empty lines are skipped."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            head = file.read(1)
            while head and head.isspace():
                head = file.read(1)
            file.seek(0)
            if head == "[":
                yield from enumerate(_list(path, file.read()), start=1)
                return
            for number, line in enumerate(file, start=1):
                if len(line) > MAX_LINE_CHARS:
                    raise UserError(f"{path}: line {number} is over {MAX_LINE_CHARS >> 20} MB", "cut it into samples")
                if line.strip():
                    yield number, _object(path, number, line)
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})", "save it as UTF-8") from error


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: line {number} is not JSON: {error}", "write one JSON object a line") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}: line {number} is a {type(row).__name__}, not an object", f"rows have {SHAPES}")
    return row


def _list(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}", "write one JSON object a line, or one list") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: item {number} is a {type(row).__name__}, not an object", f"rows have {SHAPES}")
    return rows
