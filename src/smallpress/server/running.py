"""A request that has been admitted: its choices run, what it used is counted, its first piece decides the status."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request

from smallpress import __version__
from smallpress.server.asked import Asked
from smallpress.server.errors import ApiError
from smallpress.server.gate import Owner
from smallpress.server.generation import Asker, Choice, Delta, Token, Usage, merged
from smallpress.server.hosted import Hosted
from smallpress.server.meter import Meter
from smallpress.tokenizer.calls import Call
from smallpress.tokenizer.thinking import Kind

Made = TypeVar("Made")
FINGERPRINT = f"smallpress-{__version__}"


@dataclass
class Running:
    """`deltas` can be read once. What was used is charged when it ends, also where the client leaves."""

    model: Hosted
    asked: Asked
    owner: Asker
    meter: Meter
    prefix: str
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(init=False)
    usage: Usage = field(init=False)

    def __post_init__(self) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.usage = Usage(len(self.asked.prompt_ids))

    def head(self, kind: str) -> dict[str, Any]:
        """What each of OpenAI's answers and chunks of `kind` begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model.name,
            "system_fingerprint": FINGERPRINT,
        }

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        choices = [Choice(self.model, self.asked, index, self.usage, self.owner) for index in range(self.asked.n)]
        try:
            async with aclosing(merged(choices)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.meter.charge(self.owner.name, self.model.name, self.usage)

    async def started(self) -> AsyncGenerator[Delta, None]:
        """The deltas, once the first has come: what goes wrong before it is raised here, with its status."""
        deltas = self.deltas()
        return _behind(await anext(deltas), deltas)

    async def whole(self) -> list["Whole"]:
        """All choices, once they are over."""
        wholes = [Whole() for _ in range(self.asked.n)]
        async with aclosing(self.deltas()) as deltas:
            async for delta in deltas:
                wholes[delta.index].add(delta)
        return wholes


async def _behind(first: Delta, rest: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    async with aclosing(rest):
        yield first
        async for delta in rest:
            yield delta


@dataclass
class Whole:
    """One finished choice."""

    thinking: str = ""
    answer: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish_reason: str = "length"
    calls: list[Call] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        self.thinking += text_of(delta, "thinking")
        self.answer += text_of(delta, "answer")
        self.tokens += delta.tokens
        self.calls += delta.calls
        self.finish_reason = delta.finish_reason or self.finish_reason


def text_of(delta: Delta, kind: Kind) -> str:
    return "".join(text for part_kind, text in delta.parts if part_kind == kind)


async def off_loop(make: Callable[[], Made]) -> Made:
    """Run what takes milliseconds and more (templates, tokenizing) in a thread of the pool."""
    return await asyncio.to_thread(make)


def owner_of(request: Request, priority: int | None = None) -> Asker:
    """Whose request it is, as the gate found; ApiError where the key may not ask for that priority."""
    owner = getattr(request.state, "owner", None)
    if not isinstance(owner, Owner):
        raise ApiError(401, "no valid API key")
    if priority is not None and priority < owner.foremost:
        message = f"priority is {priority}: this key may ask for {owner.foremost} and above"
        raise ApiError(400, message, "priority", "invalid_value")
    return Asker(owner.name, owner.salt, priority or 0)
