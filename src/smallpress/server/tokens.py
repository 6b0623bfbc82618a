"""POST /tokenize and /detokenize, as vLLM has them."""

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from smallpress.server.asked import checked_ids
from smallpress.server.fields import Body, Message, Tool
from smallpress.server.hosted import Hosted, Models
from smallpress.server.limits import MAX_MESSAGES, MAX_TOOLS
from smallpress.server.running import off_loop
from smallpress.server.tools import told_turns
from smallpress.tokenizer.chat import encode_chat


class TokenizeBody(Body):
    """A text, or a conversation; control tokens written in either stay text."""

    model: str | None = None
    prompt: str | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool = False


class DetokenizeBody(Body):
    model: str | None = None
    tokens: list[int] = Field(max_length=1 << 20)


def token_routes(models: Models) -> APIRouter:
    router = APIRouter()

    @router.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        model = models.get(body.model)
        ids = await off_loop(lambda: _ids(model, body))
        found: dict[str, Any] = {"count": len(ids), "max_model_len": model.capacity, "tokens": ids}
        if body.return_token_strs:
            found["token_strs"] = [model.tokenizer.decode([id], skip_special=False) for id in ids]
        return found

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, str]:
        model = models.get(body.model)
        if body.tokens:
            checked_ids(model, tuple(body.tokens[:1]), "tokens")
        return {"prompt": await off_loop(lambda: model.tokenizer.decode(body.tokens, skip_special=False))}

    return router


def _ids(model: Hosted, body: TokenizeBody) -> list[int]:
    tokenizer = model.tokenizer
    if body.messages is not None:
        turns, told = told_turns(tokenizer.chat_template or "", body.messages, body.tools or [])
        return encode_chat(tokenizer, turns, body.add_generation_prompt, **({"tools": told} if told else {}))
    adds_bos = body.add_special_tokens and tokenizer.adds_bos and tokenizer.bos_id is not None
    bos = [tokenizer.bos_id] if adds_bos and tokenizer.bos_id is not None else []
    return bos + tokenizer.encode(body.prompt or "")
