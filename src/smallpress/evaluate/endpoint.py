"""A model behind an OpenAI-shaped API, asked as `evaluate.ask` asks an engine."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from smallpress.evaluate.evaluate import Answered, in_rows
from smallpress.evaluate.result import Sampling
from smallpress.evaluate.store import AnswerStore, Said, answer_key
from smallpress.run.endpoint import Client, Reply
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example
from smallpress.tokenizer.thinking import CLOSE, OPEN


def ask_endpoint(
    client: Client,
    model: str,
    examples: Sequence[Example],
    sampling: Sampling,
    on_answer: Callable[[], None] = lambda: None,
    store: AnswerStore | None = None,
) -> Answered:
    """Every question `sampling.samples` times of the endpoint's `model`; the server applies its template."""
    if not examples:
        raise UserError("there is no question to ask", "give --n of at least 1, or a file with questions")
    began = time.perf_counter()
    asked = [(one, i) for one in examples for i in range(sampling.samples)]
    keys = [answer_key(one, i, "chat", sampling) for one, i in asked]
    kept = {at: said for at, key in enumerate(keys) if store is not None and (said := store.get(key)) is not None}
    for _ in kept:
        on_answer()
    missing = [at for at in range(len(keys)) if at not in kept]
    with closing(client.replies(question(model, *asked[at], sampling) for at in missing)) as replies:
        for i, reply in replies:
            kept[missing[i]] = said = _said(reply)
            if store is not None:
                store.put(keys[missing[i]], said)
            on_answer()
    rows = in_rows(kept, sampling.samples)
    return Answered(examples, "chat", sampling, rows, [False] * len(examples), time.perf_counter() - began)


def question(model: str, example: Example, i: int, sampling: Sampling) -> dict[str, Any]:
    """What is sent for an example's i-th answer."""
    seed = derive_seed("evaluate", sampling.seed, example.family, example.key, i) >> 32
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": example.prompt}],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
    }
    return asked if sampling.thinking is None else {**asked, "thinking_budget": sampling.thinking}


def _said(reply: Reply) -> Said:
    """Thinking that the server gives apart stands before the answer, in its tags."""
    text = reply.text if reply.thinking is None else f"{OPEN}{reply.thinking}{CLOSE}{reply.text}"
    return Said(text, reply.completion_tokens, reply.reasoning_tokens, not reply.finished)
