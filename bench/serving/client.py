"""A client that costs little: one asyncio connection a stream, bytes kept with the time they came, read afterwards.

Standard library only. Everything goes to 127.0.0.1.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
SAID = re.compile(rb'"content":\s*"[^"]')
USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')
HITS = re.compile(rb'"cached_tokens":\s*(\d+)')
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "Connection: close\r\nContent-Length: {length}\r\n\r\n"
)


@dataclass
class Heard:
    """What one request got back: pieces of bytes, each with its time by `time.perf_counter`."""

    began: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    @property
    def status(self) -> int:
        words = self.body[:32].split()
        return int(words[1]) if len(words) > 1 else 0

    @property
    def whole(self) -> bool:
        """Whether the answer streamed to its end."""
        return self.status == 200 and b"data: [DONE]" in self.body

    @property
    def said(self) -> list[float]:
        """When text came."""
        return [when for when, piece in self.pieces if SAID.search(piece)]

    @property
    def first(self) -> float:
        """Seconds to the first text."""
        return self.said[0] - self.began

    @property
    def n_tokens(self) -> int:
        return _last(USAGE, self.body)

    @property
    def n_cached(self) -> int:
        return _last(HITS, self.body)

    @property
    def text(self) -> str:
        lines = re.findall(rb"data: (\{.*\})", self.body)
        choices = [choice for line in lines for choice in json.loads(line)["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


def _last(pattern: re.Pattern[bytes], body: bytes) -> int:
    found = pattern.findall(body)
    return int(found[-1]) if found else 0


def chat_body(messages: list[dict[str, str]], max_tokens: int, **more: Any) -> bytes:
    """A streamed chat, greedy, with its usage at the end."""
    fields = {"model": "model", "messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    return json.dumps(fields | {"stream_options": {"include_usage": True}} | more).encode()


async def ask(port: int, body: bytes, path: str = "/v1/chat/completions", leave_after: float | None = None) -> Heard:
    """One request on a connection of its own; with `leave_after` seconds the client goes before the end."""
    heard = Heard(time.perf_counter())
    try:
        async with asyncio.timeout(leave_after):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(HEAD.format(path=path, length=len(body)).encode() + body)
                while piece := await reader.read(1 << 16):
                    heard.pieces.append((time.perf_counter(), piece))
            finally:
                writer.transport.abort()
    except TimeoutError:
        if leave_after is None:
            raise
    return heard
