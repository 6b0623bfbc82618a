"""What every request passes before any of the program reads it: who asks, from where, how much, and whether still."""

import asyncio
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smallpress.server.errors import ApiError, error_response
from smallpress.server.limits import Limits

OPEN_PATHS = frozenset({"/health", "/ping", "/livez", "/readyz", "/", "/favicon.ico"})
PAGE = "/page/"
"""The chat page's own files hold nothing of anybody's; the page asks its user for the key."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
BRACKETS = re.compile(rb"[\[\]{}]")
LOCAL = "local"
"""Whose requests they are where no key is asked for."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a request is. `salt` keeps prefixes apart in the cache; no priority below `foremost` may be asked for."""

    name: str
    salt: bytes = b""
    foremost: int = 0


class Keys:
    """API keys, kept as SHA-256 only and compared in constant time; a key's name is what /usage calls it.

    `foremost`: the lowest priority that the key of a name may ask for, where it is not 0.
    """

    def __init__(self, named: Iterable[tuple[str, str]], foremost: Mapping[str, int] | None = None) -> None:
        self._owners = [
            (hashlib.sha256(key.encode()).digest(), Owner(name, _salt(key), (foremost or {}).get(name, 0)))
            for name, key in named
        ]

    def __bool__(self) -> bool:
        return bool(self._owners)

    def owner(self, authorization: str) -> Owner | None:
        """Whose key an Authorization header holds, or None. Every key is compared, whichever is right."""
        scheme, _, given = authorization.partition(" ")
        digest = hashlib.sha256(given.strip().encode(errors="replace")).digest()
        found = [owner for known, owner in self._owners if hmac.compare_digest(digest, known)]
        return found[0] if found and scheme.lower() == "bearer" else None


def _salt(key: str) -> bytes:
    """Made of the key alone, so that its prefixes are found again after a restart; tells nothing of it."""
    return hashlib.blake2b(key.encode(), digest_size=32, person=b"prefix salt").digest()


class Gate:
    """Refuses foreign hosts and origins, missing keys, large, deep and slow bodies; ends what nobody waits for.

    `hosts` are the names under which the server may be asked; empty is any. A page of another origin, or a name that
    an attacker's DNS points here, thereby reaches nothing.
    """

    def __init__(self, app: ASGIApp, keys: Keys, limits: Limits, hosts: frozenset[str]) -> None:
        self._app, self._keys, self._limits, self._hosts = app, keys, limits, hosts
        self._live: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            with self._place(scope) as owner:
                body = await self._body(scope, receive)
                scope["state"]["owner"] = owner
                await _while_client_is_there(self._app, scope, body, receive, send)
        except Refused as error:
            await error_response(error, scope["path"], Connection="close")(scope, receive, send)
        except ClientGone:
            return

    @contextmanager
    def _place(self, scope: Scope) -> Iterator[Owner]:
        """Taken before the body is awaited: of two requests that come at once, one may be too many."""
        owner = self._admit(scope)
        self._live[owner.name] += 1
        try:
            yield owner
        finally:
            self._live[owner.name] -= 1

    def _admit(self, scope: Scope) -> Owner:
        """Whose request it is."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        host = headers.get("host", "")
        if self._hosts and _hostname(host) not in self._hosts:
            raise Refused(403, f"this server is not called {host[:80]!r}; start it with --allow-host", code="host")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, f"pages of {origin[:80]!r} may not use this server", code="origin")
        path = scope["path"]
        if not self._keys or path in OPEN_PATHS or path.startswith(PAGE):
            return Owner(LOCAL)
        owner = self._keys.owner(headers.get("authorization", ""))
        if owner is None:
            raise Refused(401, "no valid API key; send it as 'Authorization: Bearer KEY'", code="invalid_api_key")
        if self._live[owner.name] >= self._limits.live_per_key:
            raise Refused(
                429, f"{self._live[owner.name]} requests of this key are under way", code="too_many", retry_after=1
            )
        return owner

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit, parts, size = self._limits.body_bytes, [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise Refused(413, f"the body is larger than {limit} bytes", code="too_large")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            message_text = f"the body did not come within {self._limits.body_seconds:g} s"
            raise Refused(408, message_text, code="timeout") from None
        body = b"".join(parts)
        if depth(body, self._limits.body_depth) > self._limits.body_depth:
            raise Refused(400, f"the body is nested more than {self._limits.body_depth} deep", code="too_deep")
        return body


class Refused(ApiError):
    """By the gate itself, before anything is answered."""


class ClientGone(Exception):
    """Nobody is left to answer."""


def depth(body: bytes, enough: int) -> int:
    """How deep JSON is nested; counting stops beyond `enough`.

    >>> depth(b'{"a": [1, "[[[", {}]}', 9)
    3
    """
    level = deepest = 0
    for bracket in BRACKETS.finditer(STRINGS.sub(b"", body)):
        level += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, level)
        if deepest > enough:
            break
    return deepest


def _hostname(host: str) -> str:
    """Without port and brackets.

    >>> _hostname("[::1]:8000"), _hostname("localhost:8000"), _hostname("a.example")
    ('::1', 'localhost', 'a.example')
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


async def _while_client_is_there(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Run the application on a body that is read already, and cancel it when the connection ends."""
    given = complete = False

    async def replay() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def watched(message: Message) -> None:
        nonlocal complete
        complete = complete or (message["type"] == "http.response.body" and not message.get("more_body"))
        await send(message)

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    running: asyncio.Future[None] = asyncio.ensure_future(_awaited(app(scope, replay, watched)))
    leaving = asyncio.create_task(gone())
    try:
        await asyncio.wait((running, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not complete:
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    finally:
        running.cancel()
        leaving.cancel()


async def _awaited(call: Awaitable[None]) -> None:
    await call
