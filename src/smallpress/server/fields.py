"""What requests of OpenAI's shape may hold: an unknown field or a value out of bounds is an error that names it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from smallpress.server.limits import (
    MAX_BIASES,
    MAX_MESSAGES,
    MAX_REGEX_CHARS,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TEXTS,
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
)

Positive = Annotated[int, Field(ge=1, le=2**31)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


FUNCTION_NAME = r"^[a-zA-Z0-9_.-]{1,64}$"


class Body(BaseModel):
    """Strict: "5" is no number, and NaN is none either."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


class Ignored(Body):
    """Fields that clients send and that change no answer here."""

    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None


class Sampling(Ignored):
    """How the text is drawn; what is left out is as the model recommends."""

    model: str | None = None
    max_tokens: Positive | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    priority: int | None = Field(default=None, ge=-100, le=100, description="lower goes first, 0 where not given")
    n: int | None = Field(default=None, ge=1, le=128)
    stop: StopString | list[StopString] | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_BIASES)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: "StreamOptions | None" = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(value) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} strings")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _ids_and_bounds(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for id, bias in (value or {}).items():
            if not (id.isascii() and id.isdecimal() and len(id) < 10):
                raise ValueError(f"{id[:20]!r} is no token id")
            if not -100 <= bias <= 100:
                raise ValueError("a bias is from -100 to 100")
        return value

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextPart(Body):
    type: Literal["text"]
    text: str


class CalledFunction(Body):
    name: str = Field(max_length=256)
    arguments: str = Field(description="JSON of an object")


class SentCall(Body):
    """A call that the assistant made in an earlier turn."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class Message(Body):
    """Reasoning that a client sends back is taken and dropped: a model does not see its earlier thinking."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: list[SentCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class JsonSchema(Body):
    name: str = Field(default="answer", pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema", description="any object where it is left out")
    strict: bool | None = Field(default=None, description="every schema is followed strictly")


class ResponseFormat(Body):
    """What the answer is held to; thinking is free."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given with the type json_schema, and only with it")
        return self


class StructuredOutputs(Body):
    """vLLM's: exactly one of the three."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    regex: str | None = Field(default=None, min_length=1, max_length=MAX_REGEX_CHARS)
    choice: list[str] | None = Field(default=None, min_length=1, max_length=MAX_TEXTS)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.json_, self.regex, self.choice)) != 1:
            raise ValueError("exactly one of json, regex and choice is given")
        return self


class Function(Body):
    name: str = Field(pattern=FUNCTION_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="a JSON Schema of an object")
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class TemplateVariables(Body):
    enable_thinking: bool | None = None


class ChatBody(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    thinking_budget: int | None = Field(default=None, ge=-1, le=2**31, description="tokens at most; -1 is no bound")
    soft_thinking_budget: int | None = Field(default=None, ge=0, le=2**31, description="the sentence is still finished")
    thinking_closing: str | None = Field(default=None, max_length=1024, description="said where the thinking is cut")
    chat_template_kwargs: TemplateVariables | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None


class CompletionBody(Sampling):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    best_of: Literal[1] | None = None
    suffix: None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
