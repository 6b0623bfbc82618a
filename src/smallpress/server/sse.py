"""Answers that come in pieces: server-sent events, and lines of JSON."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"
ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""One for all chunks: `json.dumps` would make a new one at each call."""


class Pieces(Response):
    """Sends each piece as it comes; the generator is closed at once when the client leaves."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str = "text/event-stream") -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {ENCODE(data)}\n\n".encode()


def line(data: dict[str, Any]) -> bytes:
    return (ENCODE(data) + "\n").encode()
