"""POST /v1/completions: text goes on, no template, no thinking told apart."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Request, Response

from smallpress.server.asked import Asked, checked_ids, sampling_params
from smallpress.server.chat import LEAST_LOGPROB
from smallpress.server.errors import ApiError, Json
from smallpress.server.fields import CompletionBody
from smallpress.server.forms import answer_grammar
from smallpress.server.generation import Delta, Token, Usage
from smallpress.server.hosted import Hosted, Models
from smallpress.server.limits import Limits
from smallpress.server.meter import Meter
from smallpress.server.running import Running, off_loop, owner_of, text_of
from smallpress.server.sse import DONE, Pieces, event
from smallpress.tokenizer.tokenizer import Tokenizer

KIND = "text_completion"
DEFAULT_MAX_TOKENS = 16
"""OpenAI's, and what its clients expect of this path."""


def completion_routes(models: Models, meter: Meter, limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/completions", response_model=None)
    async def completions(body: CompletionBody, request: Request) -> Response:
        model = models.get(body.model)
        model.ready_worker()
        if body.echo and body.logprobs is not None:
            raise ApiError(400, "echo with logprobs is not supported by this server", "echo", "unsupported_parameter")
        asked = await off_loop(lambda: _asked(model, body, limits))
        runnings = [Running(model, one, owner_of(request, body.priority), meter, "cmpl") for one in asked]
        texts = [model.tokenizer.decode(one.prompt_ids) if body.echo else "" for one in asked]
        if body.stream:
            if len(runnings) > 1:
                raise ApiError(400, "streaming is for one prompt", "prompt", "unsupported_parameter")
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            deltas = await runnings[0].started()
            return Pieces(_events(runnings[0], deltas, texts[0], body.logprobs is not None, with_usage))
        return Json(await _whole(runnings, texts, body.logprobs is not None))

    return router


def _asked(model: Hosted, body: CompletionBody, limits: Limits) -> list[Asked]:
    prompts = _prompts(body.prompt)
    if len(prompts) * (body.n or 1) > limits.choices:
        raise ApiError(400, f"more than {limits.choices} completions are asked for", "prompt", "invalid_value")
    params = sampling_params(model, body, limits, body.max_tokens or DEFAULT_MAX_TOKENS, body.logprobs or 0)
    grammar = answer_grammar(model, body)
    return [
        Asked(
            checked_ids(model, _ids(model.tokenizer, prompt), "prompt"),
            replace(params, seed=(params.seed + i * (body.n or 1)) % 2**63),
            body.n or 1,
            tuple(body.stops),
            splits=False,
            grammar=grammar,
        )
        for i, prompt in enumerate(prompts)
    ]


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    texts = [item for item in prompt if isinstance(item, str)]
    lists = [item for item in prompt if isinstance(item, list)]
    return texts or lists or [[item for item in prompt if isinstance(item, int)]]


def _ids(tokenizer: Tokenizer, prompt: str | list[int]) -> tuple[int, ...]:
    """Control tokens written in a text stay text."""
    if isinstance(prompt, list):
        return tuple(prompt)
    bos = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    return tuple(bos + tokenizer.encode(prompt))


async def _whole(runnings: list[Running], texts: list[str], logprobs: bool) -> dict[str, Any]:
    tasks = [asyncio.create_task(running.whole()) for running in runnings]
    try:
        wholes = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    choices = [
        _choice(
            runnings[0].model.tokenizer, text + whole.answer, whole.tokens if logprobs else None, whole.finish_reason
        )
        for text, several in zip(texts, wholes, strict=True)
        for whole in several
    ]
    total = Usage(0)
    for usage in (running.usage for running in runnings):
        total.n_prompt, total.n_hit = total.n_prompt + usage.n_prompt, total.n_hit + usage.n_hit
        total.n_new += usage.n_new
    numbered = [choice | {"index": index} for index, choice in enumerate(choices)]
    return runnings[0].head(KIND) | {"choices": numbered, "usage": total.as_json()}


def _choice(tokenizer: Tokenizer, text: str, tokens: Sequence[Token] | None, reason: str | None) -> dict[str, Any]:
    found = None if tokens is None else _logprobs(tokenizer, tokens)
    return {"index": 0, "text": text, "logprobs": found, "finish_reason": reason}


async def _events(
    running: Running, deltas: AsyncGenerator[Delta, None], echo: str, logprobs: bool, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    head = running.head(KIND) | ({"usage": None} if with_usage else {})
    waiting = dict.fromkeys(range(running.asked.n), echo)
    try:
        async for delta in deltas:
            text = waiting.pop(delta.index, "") + text_of(delta, "answer")
            tokens = delta.tokens if logprobs else None
            if text or tokens or delta.finish_reason:
                choice = _choice(running.model.tokenizer, text, tokens, delta.finish_reason)
                yield event(head | {"choices": [choice | {"index": delta.index}]})
    except ApiError as error:
        yield event(error.body())
        return
    finally:
        await deltas.aclose()
    if with_usage:
        yield event(head | {"choices": [], "usage": running.usage.as_json()})
    yield DONE


def _logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> dict[str, Any]:
    """The old form: columns. `text_offset` counts characters from the completion's start."""
    texts = [tokenizer.token_bytes(token.id).decode(errors="replace") for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [max(token.logprob, LEAST_LOGPROB) for token in tokens],
        "top_logprobs": [
            {tokenizer.token_bytes(id).decode(errors="replace"): max(p, LEAST_LOGPROB) for id, p in token.top}
            for token in tokens
        ],
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=0))[: len(texts)],
    }
