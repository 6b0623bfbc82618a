"""General prompts: questions without an answer that a program could check; only judges reward what is said to them."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from smallpress.corpus.conversations import Message, read_conversations
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example

GENERAL = "general"


def read_prompts(files: Sequence[str], form: str) -> list[Example]:
    """The questions of files of any shape, answers left off, no question twice. Raises UserError where a file cannot be
    read or holds none, or one that the prompt form cannot put."""
    found: dict[str, Example] = {}
    for file in files:
        for conversation in read_conversations(Path(file)):
            messages = list(conversation.messages)
            while messages and messages[-1]["role"] != "user":
                messages.pop()
            if not messages:
                continue
            if form != "chat" and len(messages) > 1:
                what = f"{file}: a conversation of {len(messages)} messages cannot be put in the form {form}"
                raise UserError(what, "set form=chat, or keep single questions")
            example = _example(messages)
            found.setdefault(example.key, example)
    if files and not found:
        raise UserError(f"{', '.join(files)}: no question in them", "rows have messages, or prompt and completion")
    return list(found.values())


def drawn(prompts: Sequence[Example], n: int, seed: int, step: int, first: int) -> list[Example]:
    """`n` of them, none twice while there are enough; a matter of the seed and the place in the run alone."""
    dice = Random(derive_seed(seed, "general", step, first))
    chosen: list[Example] = []
    while len(chosen) < n:
        chosen += dice.sample(prompts, min(n - len(chosen), len(prompts)))
    return chosen


def messages_of(example: Example) -> Sequence[Message]:
    """The conversation that asks it: a general prompt's own, or the question of a task."""
    messages: Sequence[Message] = example.meta.get("messages") or ({"role": "user", "content": example.prompt},)
    return messages


def _example(messages: Sequence[Message]) -> Example:
    key = "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
    return Example(str(messages[-1]["content"]), "", GENERAL, 0, key, {"messages": tuple(messages)})
