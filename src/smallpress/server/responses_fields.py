"""What POST /v1/responses may hold, and the same question as a chat."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from smallpress.server.errors import ApiError
from smallpress.server.fields import (
    Body,
    CalledFunction,
    ChatBody,
    Function,
    Ignored,
    JsonSchema,
    Message,
    NamedFunction,
    NamedTool,
    Positive,
    ResponseFormat,
    SentCall,
    Tool,
)
from smallpress.server.limits import MAX_MESSAGES, MAX_TOOLS


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
        return Message(role=self.role, content=_text(self.content))


class InputReasoning(Body):
    """Sent back by clients that return whole answers; dropped."""

    type: Literal["reasoning"]
    id: str | None = None
    status: str | None = None
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: str | None = None


class InputCall(Body):
    """A call that the model made in an earlier turn."""

    type: Literal["function_call"]
    call_id: str
    name: str = Field(max_length=256)
    arguments: str
    id: str | None = None
    status: str | None = None

    def as_sent(self) -> SentCall:
        return SentCall(id=self.call_id, function=CalledFunction(name=self.name, arguments=self.arguments))


class InputCallOutput(Body):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]
    id: str | None = None
    status: str | None = None

    def as_message(self) -> Message:
        return Message(role="tool", content=_text(self.output), tool_call_id=self.call_id)


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(Body):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class FunctionTool(Function):
    type: Literal["function"]

    def as_tool(self) -> Tool:
        return Tool(type="function", function=Function(**self.model_dump(exclude={"type"})))


class NamedFunctionTool(Body):
    type: Literal["function"]
    name: str


class Reasoning(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesBody(Ignored):
    model: str | None = None
    input: str | list[InputMessage | InputReasoning | InputCall | InputCallOutput] = Field(
        max_length=MAX_MESSAGES * 512
    )
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    reasoning: Reasoning | None = None
    stream: bool | None = None
    store: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    text: TextConfig | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedFunctionTool | None = None
    parallel_tool_calls: bool | None = None


def as_chat(body: ResponsesBody) -> ChatBody:
    """The same question in the fields of a chat."""
    turns = [Message(role="user", content=body.input)] if isinstance(body.input, str) else _turns(body.input)
    if not turns:
        raise ApiError(400, "input holds no message", "input", "invalid_value")
    system = [Message(role="system", content=body.instructions)] if body.instructions else []
    named = body.tool_choice
    choice = (
        NamedTool(type="function", function=NamedFunction(name=named.name))
        if isinstance(named, NamedFunctionTool)
        else named
    )
    return ChatBody(
        messages=[*system, *turns],
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        response_format=_format(body.text.format if body.text else None),
        tools=[tool.as_tool() for tool in body.tools or []] or None,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
    )


def _turns(items: Sequence[InputMessage | InputReasoning | InputCall | InputCallOutput]) -> list[Message]:
    """Calls that stand one after another are one turn, with the text before them."""
    turns: list[Message] = []
    for item in items:
        if isinstance(item, InputCall):
            if not turns or turns[-1].role != "assistant":
                turns.append(Message(role="assistant"))
            turns[-1] = turns[-1].model_copy(update={"tool_calls": [*(turns[-1].tool_calls or []), item.as_sent()]})
        elif not isinstance(item, InputReasoning):
            turns.append(item.as_message())
    return turns


def _format(format: TextFormat | None) -> ResponseFormat | None:
    if format is None:
        return None
    if format.type != "json_schema":
        return ResponseFormat(type=format.type)
    schema = JsonSchema.model_validate({"name": format.name or "answer", "schema": format.schema_})
    return ResponseFormat(type="json_schema", json_schema=schema)


def _text(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
