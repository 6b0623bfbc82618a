"""The part of Ollama's interface that reads and generates: /api/chat, generate, tags, ps, show and version.

Nothing here creates, copies or deletes a model. Answers stream as lines of JSON unless `stream` is false; times are in
nanoseconds.
"""

import json
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from smallpress import __version__
from smallpress.server.asked import asked_chat
from smallpress.server.chat import logprobs_json
from smallpress.server.errors import ApiError, Json
from smallpress.server.fields import (
    Body,
    CalledFunction,
    ChatBody,
    JsonSchema,
    Message,
    ResponseFormat,
    SentCall,
    StopString,
    TemplateVariables,
    Tool,
)
from smallpress.server.generation import Delta, Token
from smallpress.server.hosted import Hosted, Models
from smallpress.server.limits import MAX_MESSAGES, MAX_STOPS, MAX_TOOLS, MAX_TOP_LOGPROBS, Limits
from smallpress.server.meter import Meter
from smallpress.server.running import Running, off_loop, owner_of, text_of
from smallpress.server.sse import Pieces, line
from smallpress.tokenizer.calls import Call
from smallpress.tokenizer.thinking import OPEN

LATEST = ":latest"


class Options(Body):
    """Ollama's settings under its names; those of another machinery (num_gpu, mirostat, ...) are errors."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    num_predict: int | None = Field(
        default=None, ge=-2, le=2**31, description="-1 and -2: as much as there is room for"
    )
    stop: list[StopString] | None = Field(default=None, max_length=MAX_STOPS)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    num_ctx: int | None = Field(default=None, ge=1, description="accepted; the context is the server's")


class OllamaFunction(Body):
    name: str = Field(max_length=256)
    arguments: dict[str, Any] = Field(default_factory=dict)
    index: int | None = None


class OllamaCall(Body):
    function: OllamaFunction
    id: str | None = None
    type: Literal["function"] | None = None


class OllamaMessage(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    images: list[str] | None = Field(default=None, max_length=0)
    tool_calls: list[OllamaCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_name: str | None = None
    tool_call_id: str | None = None

    def as_message(self) -> Message:
        calls = [
            SentCall(
                id=call.id or f"call_{i}",
                function=CalledFunction(name=call.function.name, arguments=json.dumps(call.function.arguments)),
            )
            for i, call in enumerate(self.tool_calls or [])
        ]
        return Message(role=self.role, content=self.content, name=self.tool_name, tool_calls=calls or None,
                       tool_call_id=self.tool_call_id)  # fmt: skip


class OllamaBody(Body):
    model: str
    options: Options | None = None
    stream: bool = True
    think: bool | Literal["low", "medium", "high"] | None = None
    keep_alive: float | str | None = None
    format: Literal["", "json"] | dict[str, Any] | None = Field(default=None, description="or a JSON Schema")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)


class OllamaChatBody(OllamaBody):
    messages: list[OllamaMessage] = Field(default_factory=list, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)


class OllamaGenerateBody(OllamaBody):
    prompt: str = ""
    system: str | None = None
    raw: Literal[False] | None = None
    images: list[str] | None = Field(default=None, max_length=0)
    suffix: Literal[""] | None = None


class ShowBody(Body):
    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


def ollama_routes(models: Models, meter: Meter, limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.get("/api/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @router.get("/api/tags")
    async def tags() -> dict[str, Any]:
        return {"models": [_tag(model) for model in models]}

    @router.get("/api/ps")
    async def loaded() -> dict[str, Any]:
        """Every model stays loaded as long as the server runs."""
        return {
            "models": [_tag(model) | {"context_length": model.capacity} for model in models if model.worker is not None]
        }

    @router.post("/api/embed")
    @router.post("/api/embeddings")
    async def embed() -> Response:
        raise ApiError(501, "this server makes no embeddings")

    @router.post("/api/show")
    async def show(body: ShowBody) -> dict[str, Any]:
        model = models.get(_plain(body.model or body.name))
        return {
            "template": model.tokenizer.chat_template or "",
            "details": _tag(model)["details"],
            "model_info": {
                "general.architecture": str(model.about.get("family", "")),
                "context_length": model.capacity,
            },
            "capabilities": _capabilities(model),
        }

    @router.post("/api/chat", response_model=None)
    async def chat(body: OllamaChatBody, request: Request) -> Response:
        messages = [turn.as_message() for turn in body.messages]
        return await _answer(body, messages, request, "message", body.tools)

    @router.post("/api/generate", response_model=None)
    async def generate(body: OllamaGenerateBody, request: Request) -> Response:
        system = [Message(role="system", content=body.system)] if body.system else []
        user = [Message(role="user", content=body.prompt)] if body.prompt else []
        return await _answer(body, [*system, *user] if user else [], request, "response")

    async def _answer(
        body: OllamaBody, messages: list[Message], request: Request, kind: str, tools: list[Tool] | None = None
    ) -> Response:
        model = models.get(_plain(body.model))
        model.ready_worker()
        if not messages:
            return Json(_loaded(model, kind))
        asked = await off_loop(lambda: asked_chat(model, _as_chat(body, messages, tools), limits))
        answer = _Answer(Running(model, asked, owner_of(request), meter, "ollama"), kind, bool(body.logprobs))
        if body.stream:
            return Pieces(answer.lines(await answer.running.started()), "application/x-ndjson")
        whole = (await answer.running.whole())[0]
        said = answer.said(whole.thinking, whole.answer, whole.calls, whole.tokens)
        return Json(said | answer.end(whole.finish_reason))

    return router


def _as_chat(body: OllamaBody, messages: list[Message], tools: list[Tool] | None) -> ChatBody:
    """The same question in OpenAI's fields."""
    format = None
    if body.format == "json":
        format = ResponseFormat(type="json_object")
    elif isinstance(body.format, dict):
        schema = JsonSchema.model_validate({"schema": body.format})
        format = ResponseFormat(type="json_schema", json_schema=schema)
    options = body.options or Options()
    n_max = options.num_predict if options.num_predict and options.num_predict > 0 else None
    return ChatBody(
        messages=messages,
        max_tokens=n_max,
        tools=tools,
        response_format=format,
        logprobs=body.logprobs,
        top_logprobs=body.top_logprobs,
        stop=options.stop or None,
        reasoning_effort=body.think if isinstance(body.think, str) else None,
        chat_template_kwargs=TemplateVariables(enable_thinking=body.think) if isinstance(body.think, bool) else None,
        **options.model_dump(include={"temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty",
                                      "frequency_penalty"}),
    )  # fmt: skip


def _plain(name: str | None) -> str | None:
    return None if name is None else name.removesuffix(LATEST)


def _capabilities(model: Hosted) -> list[str]:
    """Whatever can be asked in turns can be told of functions."""
    thinks = OPEN in (model.tokenizer.chat_template or "") or model.tokenizer.id_of(OPEN) is not None
    return ["completion", *(["tools"] if model.form == "chat" else []), *(["thinking"] if thinks else [])]


def _loaded(model: Hosted, kind: str) -> dict[str, Any]:
    """What is said to a request without a question, by which clients have a model loaded."""
    empty: dict[str, Any] = {"message": {"role": "assistant", "content": ""}} if kind == "message" else {"response": ""}
    now = datetime.now(UTC).isoformat()
    return {"model": model.name, "created_at": now, "done": True, "done_reason": "load"} | empty


def _tag(model: Hosted) -> dict[str, Any]:
    details = {"format": str(model.about.get("format", "")), "family": str(model.about.get("family", ""))}
    if model.parent is not None:
        details["parent_model"] = model.parent.name
    modified = datetime.fromtimestamp(model.created, UTC).isoformat()
    return {"name": model.name, "model": model.name, "modified_at": modified, "size": model.about.get("bytes", 0),
            "digest": "", "details": details}  # fmt: skip


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": json.loads(call.arguments)}}


class _Answer:
    """Lines of one answer: `kind` is where the text stands, `message` (chat) or `response` (generate)."""

    def __init__(self, running: Running, kind: str, logprobs: bool = False) -> None:
        self.running, self._kind, self._began, self._first = running, kind, time.monotonic_ns(), 0
        self._logprobs = logprobs

    def said(
        self, thinking: str, answer: str, calls: Sequence[Call] = (), tokens: Sequence[Token] = ()
    ) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        head: dict[str, Any] = {"model": self.running.model.name, "created_at": now, "done": False}
        thought = {"thinking": thinking} if thinking else {}
        if self._logprobs and tokens:
            head["logprobs"] = logprobs_json(self.running.model.tokenizer, tokens)["content"]
        if self._kind == "message":
            called = {"tool_calls": [_call(call) for call in calls]} if calls else {}
            return head | {"message": {"role": "assistant", "content": answer} | thought | called}
        return head | {"response": answer} | thought

    def end(self, reason: str) -> dict[str, Any]:
        now, usage = time.monotonic_ns(), self.running.usage
        first = self._first or now
        return {
            "done": True,
            "done_reason": "stop" if reason == "tool_calls" else reason,
            "total_duration": now - self._began,
            "load_duration": 0,
            "prompt_eval_count": usage.n_prompt,
            "prompt_eval_duration": first - self._began,
            "eval_count": usage.n_new,
            "eval_duration": now - first,
        }

    async def lines(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        self._first, reason = time.monotonic_ns(), "length"
        try:
            async for delta in deltas:
                reason = delta.finish_reason or reason
                thinking, answer = text_of(delta, "thinking"), text_of(delta, "answer")
                if thinking or answer or delta.calls or (self._logprobs and delta.tokens):
                    yield line(self.said(thinking, answer, delta.calls, delta.tokens))
        except ApiError as error:
            yield line({"error": error.message})
            return
        finally:
            await deltas.aclose()
        yield line(self.said("", "") | self.end(reason))
