"""POST /v1/responses, the stateless part: nothing is stored, so nothing can be referred to later."""

import secrets
from collections.abc import AsyncGenerator
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from smallpress.server.asked import asked_chat
from smallpress.server.errors import ApiError
from smallpress.server.fields import Body, ChatBody, Ignored, Message, Positive
from smallpress.server.generation import Delta
from smallpress.server.hosted import Models
from smallpress.server.limits import MAX_MESSAGES, Limits
from smallpress.server.meter import Meter
from smallpress.server.running import Running, off_loop, owner_of, text_of
from smallpress.server.sse import Pieces, event


class InputText(Body):
    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = Field(default=None, max_length=0)
    logprobs: list[Any] | None = Field(default=None, max_length=0)


class InputMessage(Body):
    """A turn; `id` and `status` are taken so that an answer's items can be sent back as they are."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def as_message(self) -> Message:
        parts = self.content if isinstance(self.content, list) else [InputText(type="input_text", text=self.content)]
        return Message(role=self.role, content="".join(part.text for part in parts))


class InputReasoning(Body):
    """Sent back by clients that return whole answers; dropped."""

    type: Literal["reasoning"]
    id: str | None = None
    status: str | None = None
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: str | None = None


class Reasoning(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesBody(Ignored):
    model: str | None = None
    input: str | list[InputMessage | InputReasoning] = Field(max_length=MAX_MESSAGES * 512)
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    reasoning: Reasoning | None = None
    stream: bool | None = None
    store: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    tools: list[Any] | None = Field(default=None, max_length=0)


def response_routes(models: Models, meter: Meter, limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/responses", response_model=None)
    async def responses(body: ResponsesBody, request: Request) -> Response:
        model = models.get(body.model)
        model.ready_worker()
        asked = await off_loop(lambda: asked_chat(model, _as_chat(body), limits))
        answer = _Answer(Running(model, asked, owner_of(request), meter, "resp"), body)
        if body.stream:
            return Pieces(answer.events(await answer.running.started()))
        whole = (await answer.running.whole())[0]
        answer.texts = {"reasoning": whole.thinking, "message": whole.answer}
        return JSONResponse(answer.whole(whole.finish_reason))

    return router


def _as_chat(body: ResponsesBody) -> ChatBody:
    if isinstance(body.input, str):
        turns = [Message(role="user", content=body.input)]
    else:
        turns = [item.as_message() for item in body.input if isinstance(item, InputMessage)]
    if not turns:
        raise ApiError(400, "input holds no message", "input", "invalid_value")
    system = [Message(role="system", content=body.instructions)] if body.instructions else []
    return ChatBody(
        messages=[*system, *turns],
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
    )


class _Answer:
    """Two items at most: what was thought, then what is said."""

    def __init__(self, running: Running, body: ResponsesBody) -> None:
        self.running, self._body, self._n_events = running, body, 0
        self.texts = {"reasoning": "", "message": ""}
        self._ids = {"reasoning": f"rs_{secrets.token_hex(12)}", "message": f"msg_{secrets.token_hex(12)}"}

    def whole(self, reason: str | None) -> dict[str, Any]:
        """The response object; a reason of None is one under way."""
        status = {None: "in_progress", "stop": "completed"}.get(reason, "incomplete")
        usage = self.running.usage
        kinds = [kind for kind in ("reasoning", "message") if self.texts[kind] or (kind == "message" and reason)]
        return {
            "id": self.running.id.replace("-", "_"),
            "object": "response",
            "created_at": self.running.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": self._body.instructions,
            "max_output_tokens": self._body.max_output_tokens,
            "metadata": self._body.metadata or {},
            "model": self.running.model.name,
            "output": [self._item(kind, status) for kind in kinds],
            "parallel_tool_calls": False,
            "temperature": self.running.asked.params.temperature,
            "tool_choice": "none",
            "tools": [],
            "top_p": self.running.asked.params.top_p,
            "store": False,
            "usage": None if reason is None else {
                "input_tokens": usage.n_prompt,
                "input_tokens_details": {"cached_tokens": usage.n_hit},
                "output_tokens": usage.n_new,
                "output_tokens_details": {"reasoning_tokens": usage.n_thinking},
                "total_tokens": usage.n_prompt + usage.n_new,
            },
        }  # fmt: skip

    def _part(self, kind: str) -> dict[str, Any]:
        if kind == "reasoning":
            return {"type": "reasoning_text", "text": self.texts[kind]}
        return {"type": "output_text", "text": self.texts[kind], "annotations": []}

    def _item(self, kind: str, status: str, empty: bool = False) -> dict[str, Any]:
        content = [] if empty else [self._part(kind)]
        item: dict[str, Any] = {"id": self._ids[kind], "type": kind, "status": status, "content": content}
        if kind == "reasoning":
            return item | {"summary": list[Any]()}
        return item | {"role": "assistant"}

    def _event(self, name: str, **fields: Any) -> bytes:
        self._n_events += 1
        return event({"type": name, "sequence_number": self._n_events - 1} | fields, name)

    async def events(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """The response begins, each item begins, grows and ends, the response ends."""
        yield self._event("response.created", response=self.whole(None))
        yield self._event("response.in_progress", response=self.whole(None))
        begun: list[str] = []
        reason = "length"
        try:
            async for delta in deltas:
                reason = delta.finish_reason or reason
                for kind, text in (("reasoning", text_of(delta, "thinking")), ("message", text_of(delta, "answer"))):
                    if not text:
                        continue
                    if kind not in begun:
                        for done in self._ends(begun):
                            yield done
                        begun.append(kind)
                        for first in self._begins(kind, len(begun) - 1):
                            yield first
                    self.texts[kind] += text
                    yield self._grows(kind, begun.index(kind), delta=text)
        except ApiError as error:
            yield self._event("error", **error.body()["error"])
            return
        finally:
            await deltas.aclose()
        for done in self._ends(begun):
            yield done
        name = "response.completed" if reason == "stop" else "response.incomplete"
        yield self._event(name, response=self.whole(reason))

    def _place(self, kind: str, at: int) -> dict[str, Any]:
        return {"item_id": self._ids[kind], "output_index": at, "content_index": 0}

    def _begins(self, kind: str, at: int) -> list[bytes]:
        item = self._item(kind, "in_progress", empty=True)
        return [
            self._event("response.output_item.added", output_index=at, item=item),
            self._event("response.content_part.added", **self._place(kind, at), part=self._part(kind)),
        ]

    def _grows(self, kind: str, at: int, delta: str) -> bytes:
        name = "reasoning_text" if kind == "reasoning" else "output_text"
        more: dict[str, Any] = {} if kind == "reasoning" else {"logprobs": []}
        return self._event(f"response.{name}.delta", **self._place(kind, at), delta=delta, **more)

    def _ends(self, begun: list[str]) -> list[bytes]:
        """The item that was growing is complete."""
        if not begun:
            return []
        kind, at = begun[-1], len(begun) - 1
        name = "reasoning_text" if kind == "reasoning" else "output_text"
        more: dict[str, Any] = {} if kind == "reasoning" else {"logprobs": []}
        return [
            self._event(f"response.{name}.done", **self._place(kind, at), text=self.texts[kind], **more),
            self._event("response.content_part.done", **self._place(kind, at), part=self._part(kind)),
            self._event("response.output_item.done", output_index=at, item=self._item(kind, "completed")),
        ]
