"""POST /v1/chat/completions."""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from smallpress.server.asked import asked_chat
from smallpress.server.errors import ApiError, Json
from smallpress.server.fields import ChatBody
from smallpress.server.generation import Delta, Token
from smallpress.server.hosted import Models
from smallpress.server.limits import Limits
from smallpress.server.meter import Meter
from smallpress.server.running import Running, Whole, off_loop, owner_of, text_of
from smallpress.server.sse import DONE, Pieces, event
from smallpress.tokenizer.calls import Call
from smallpress.tokenizer.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has not."""


def chat_routes(models: Models, meter: Meter, limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions", response_model=None)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        model = models.get(body.model)
        model.ready_worker()
        asked = await off_loop(lambda: asked_chat(model, body, limits))
        running = Running(model, asked, owner_of(request, body.priority), meter, "chatcmpl")
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            deltas = await running.started()
            return Pieces(_events(running, deltas, bool(body.logprobs), with_usage))
        wholes = await running.whole()
        choices = [_choice(model.tokenizer, i, whole, bool(body.logprobs)) for i, whole in enumerate(wholes)]
        return Json(running.head("chat.completion") | {"choices": choices, "usage": running.usage.as_json()})

    return router


def _choice(tokenizer: Tokenizer, index: int, whole: Whole, logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": whole.answer, "refusal": None}
    if whole.thinking:
        message |= {"reasoning": whole.thinking, "reasoning_content": whole.thinking}
    if whole.calls:
        message |= {"content": whole.answer or None, "tool_calls": [_call(call) for call in whole.calls]}
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_json(tokenizer, whole.tokens) if logprobs else None,
        "finish_reason": whole.finish_reason,
    }


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


async def _events(
    running: Running, deltas: AsyncGenerator[Delta, None], logprobs: bool, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Chunks; each carries thinking, answer or a call, and the first of each choice the role.

    A call comes when it is complete: its name, then its arguments.
    """
    head = running.head("chat.completion.chunk") | ({"usage": None} if with_usage else {})
    tokenizer, begun, n_calls = running.model.tokenizer, set[int](), Counter[int]()

    def chunk(index: int, delta: dict[str, Any], tokens: Sequence[Token] = (), reason: str | None = None) -> bytes:
        found = logprobs_json(tokenizer, tokens) if logprobs and tokens else None
        return event(head | {"choices": [{"index": index, "delta": delta, "logprobs": found, "finish_reason": reason}]})

    try:
        async for delta in deltas:
            if delta.index not in begun:
                begun.add(delta.index)
                yield chunk(delta.index, {"role": "assistant", "content": ""})
            tokens = delta.tokens
            if thinking := text_of(delta, "thinking"):
                yield chunk(delta.index, {"reasoning": thinking, "reasoning_content": thinking}, tokens)
                tokens = []
            answer = text_of(delta, "answer")
            if answer or (logprobs and tokens):
                yield chunk(delta.index, {"content": answer}, tokens)
            for call in delta.calls:
                at, whole = {"index": n_calls[delta.index]}, _call(call)
                n_calls[delta.index] += 1
                named = whole | {"function": {"name": call.name, "arguments": ""}}
                yield chunk(delta.index, {"tool_calls": [at | named]})
                yield chunk(delta.index, {"tool_calls": [at | {"function": {"arguments": call.arguments}}]})
            if delta.finish_reason is not None:
                yield chunk(delta.index, {}, (), delta.finish_reason)
    except ApiError as error:
        yield event(error.body())
        return
    finally:
        await deltas.aclose()
    if with_usage:
        yield event(head | {"choices": [], "usage": running.usage.as_json()})
    yield DONE


def logprobs_json(tokenizer: Tokenizer, tokens: Sequence[Token]) -> dict[str, Any]:
    """OpenAI's form; the thinking's tokens apart, as DeepSeek has them."""

    def one(id: int, logprob: float) -> dict[str, Any]:
        data = tokenizer.token_bytes(id)
        return {"token": data.decode(errors="replace"), "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(data)}

    def entries(thinking: bool) -> list[dict[str, Any]]:
        return [
            one(token.id, token.logprob) | {"top_logprobs": [one(id, logprob) for id, logprob in token.top]}
            for token in tokens
            if token.thinking == thinking
        ]

    found: dict[str, Any] = {"content": entries(False), "refusal": None}
    return found | ({"reasoning_content": entries(True)} if any(token.thinking for token in tokens) else {})
