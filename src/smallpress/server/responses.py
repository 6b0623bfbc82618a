"""POST /v1/responses, the stateless part: nothing is stored, so nothing can be referred to later."""

import secrets
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from smallpress.server.asked import asked_chat
from smallpress.server.errors import ApiError, Json
from smallpress.server.generation import Delta
from smallpress.server.hosted import Models
from smallpress.server.limits import Limits
from smallpress.server.meter import Meter
from smallpress.server.responses_fields import FunctionTool, ResponsesBody, as_chat
from smallpress.server.running import Running, Whole, off_loop, owner_of, text_of
from smallpress.server.sse import Pieces, event
from smallpress.tokenizer.calls import Call
from smallpress.tokenizer.thinking import Kind


def response_routes(models: Models, meter: Meter, limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/responses", response_model=None)
    async def responses(body: ResponsesBody, request: Request) -> Response:
        model = models.get(body.model)
        model.ready_worker()
        asked = await off_loop(lambda: asked_chat(model, as_chat(body), limits))
        answer = _Answer(Running(model, asked, owner_of(request), meter, "resp"), body)
        if body.stream:
            return Pieces(answer.events(await answer.running.started()))
        whole = (await answer.running.whole())[0]
        return Json(answer.said(whole))

    return router


@dataclass(slots=True)
class _Item:
    """Of the output: what was thought, what is said, or a call."""

    kind: Literal["reasoning", "message", "function_call"]
    text: str = ""
    call: Call | None = None
    id: str = ""

    def __post_init__(self) -> None:
        self.id = f"{ {'reasoning': 'rs', 'message': 'msg', 'function_call': 'fc'}[self.kind] }_{secrets.token_hex(12)}"

    @property
    def part(self) -> dict[str, Any]:
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": self.text}
        return {"type": "output_text", "text": self.text, "annotations": []}

    def as_json(self, status: str, empty: bool = False) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self.id, "type": self.kind, "status": status}
        if self.call is not None:
            arguments = "" if empty else self.call.arguments
            return item | {"call_id": self.call.id, "name": self.call.name, "arguments": arguments}
        item["content"] = [] if empty else [self.part]
        return item | ({"summary": list[Any]()} if self.kind == "reasoning" else {"role": "assistant"})


class _Answer:
    """The response object, whole and as events; its items in the order in which they were written."""

    def __init__(self, running: Running, body: ResponsesBody) -> None:
        self.running, self._body, self._n_events = running, body, 0
        self._items: list[_Item] = []

    def said(self, whole: Whole) -> dict[str, Any]:
        """The response object of a finished choice."""
        if whole.thinking:
            self._items.append(_Item("reasoning", whole.thinking))
        if whole.answer or not whole.calls:
            self._items.append(_Item("message", whole.answer))
        self._items += [_Item("function_call", call=call) for call in whole.calls]
        return self._whole(whole.finish_reason)

    def _whole(self, reason: str | None) -> dict[str, Any]:
        """A reason of None is a response under way."""
        status = {None: "in_progress", "stop": "completed", "tool_calls": "completed"}.get(reason, "incomplete")
        usage, body = self.running.usage, self._body
        choice = "none" if not body.tools else body.tool_choice or "auto"
        return {
            "id": self.running.id.replace("-", "_"),
            "object": "response",
            "created_at": self.running.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self.running.model.name,
            "output": [item.as_json(status) for item in self._items],
            "parallel_tool_calls": bool(body.tools) and body.parallel_tool_calls is not False,
            "temperature": self.running.asked.params.temperature,
            "text": {"format": _format_json(body)},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [_tool_json(tool) for tool in body.tools or []],
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

    def _event(self, name: str, /, **fields: Any) -> bytes:
        self._n_events += 1
        return event({"type": name, "sequence_number": self._n_events - 1} | fields, name)

    async def events(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """The response begins, each item begins, grows and ends, the response ends."""
        yield self._event("response.created", response=self._whole(None))
        yield self._event("response.in_progress", response=self._whole(None))
        reason = "length"
        try:
            async for delta in deltas:
                reason = delta.finish_reason or reason
                for one in self._of_delta(delta):
                    yield one
        except ApiError as error:
            yield self._event("error", **error.body()["error"])
            return
        finally:
            await deltas.aclose()
        for one in self._ends():
            yield one
        whole = self._whole(reason)
        yield self._event(f"response.{whole['status']}", response=whole)

    def _of_delta(self, delta: Delta) -> Iterator[bytes]:
        kinds: tuple[tuple[Literal["reasoning", "message"], Kind], ...] = (
            ("reasoning", "thinking"), ("message", "answer")
        )  # fmt: skip
        for kind, part in kinds:
            if not (text := text_of(delta, part)):
                continue
            if not self._items or self._items[-1].kind != kind:
                yield from self._begins(_Item(kind))
            item = self._items[-1]
            item.text += text
            name = "reasoning_text" if kind == "reasoning" else "output_text"
            yield self._event(f"response.{name}.delta", **self._place(), delta=text, **_logprobs(item))
        for call in delta.calls:
            yield from self._begins(_Item("function_call", call=call))
            place = {"item_id": self._items[-1].id, "output_index": len(self._items) - 1}
            yield self._event("response.function_call_arguments.delta", **place, delta=call.arguments)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1].id, "output_index": len(self._items) - 1, "content_index": 0}

    def _begins(self, item: _Item) -> Iterator[bytes]:
        yield from self._ends()
        self._items.append(item)
        index, begun = len(self._items) - 1, item.as_json("in_progress", empty=True)
        yield self._event("response.output_item.added", output_index=index, item=begun)
        if item.call is None:
            yield self._event("response.content_part.added", **self._place(), part=item.part)

    def _ends(self) -> Iterator[bytes]:
        """The item that was growing is complete."""
        if not self._items:
            return
        item, index = self._items[-1], len(self._items) - 1
        if item.call is not None:
            place = {"item_id": item.id, "output_index": index, "name": item.call.name}
            yield self._event("response.function_call_arguments.done", **place, arguments=item.call.arguments)
        else:
            name = "reasoning_text" if item.kind == "reasoning" else "output_text"
            yield self._event(f"response.{name}.done", **self._place(), text=item.text, **_logprobs(item))
            yield self._event("response.content_part.done", **self._place(), part=item.part)
        yield self._event("response.output_item.done", output_index=index, item=item.as_json("completed"))


def _logprobs(item: _Item) -> dict[str, Any]:
    return {} if item.kind == "reasoning" else {"logprobs": []}


def _format_json(body: ResponsesBody) -> dict[str, Any]:
    format = body.text.format if body.text else None
    return {"type": "text"} if format is None else format.model_dump(exclude_none=True, by_alias=True)


def _tool_json(tool: FunctionTool) -> dict[str, Any]:
    return tool.model_dump() | {"strict": tool.strict is not False}
