"""The inside of a sandbox: does what it is asked over one descriptor, in a process that has given up all else.

A message is the run's nonce, a 4-byte big-endian length, and JSON. Requests: `run` (statements), `value` (an
expression), `call` (a function by its name), `remote` (names that shall call back to the outside). Each is answered
with `value`, as plain data, or `raised`. This is the one file of the package that runs what others wrote.
"""

from __future__ import annotations

import builtins
import json
import os
import struct
from collections.abc import Callable
from typing import Any, NoReturn

from smallpress.tasks.plain_data import decode, encode

LENGTH = struct.Struct(">I")
CHANNEL = 3
MAX_TEXT = 200


class Remote:
    """Messages over the channel; `ask` turns the tables and asks the outside."""

    def __init__(self, nonce: bytes):
        self._nonce = nonce

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        data = self._nonce + LENGTH.pack(len(body)) + body
        while data:
            data = data[os.write(CHANNEL, data) :]

    def receive(self) -> dict[str, Any]:
        self._bytes(len(self._nonce))
        (length,) = LENGTH.unpack(self._bytes(LENGTH.size))
        return json.loads(self._bytes(length))

    def _bytes(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = os.read(CHANNEL, n - len(data))
            if not more:
                os._exit(0)
            data += more
        return data

    def ask(self, name: str) -> Callable[..., Any]:
        """A function that stands for one outside."""

        def call(*values: Any, **named: Any) -> Any:
            self.send({"call": name, "args": encode(values), "named": encode(named)})
            answer = self.receive()
            if "raised" in answer:
                raise _exception(*answer["raised"])
            return decode(answer["value"])

        return call


def _exception(kind: str, text: str) -> Exception:
    """What the other side raised; never an AssertionError, which is the test's own word."""
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, AssertionError):
        try:
            return found(text)
        except TypeError:
            pass
    return RuntimeError(f"{kind}: {text}")


def _do(request: dict[str, Any], names: dict[str, Any], remote: Remote) -> Any:
    if "run" in request:
        exec(compile(request["run"], "<solution>", "exec"), names)
        return None
    if "value" in request:
        return eval(compile(request["value"], "<test>", "eval"), names)
    if "remote" in request:
        names.update({name: remote.ask(name) for name in request["remote"]})
        return None
    return names[request["call"]](*decode(request["args"]), **decode(request["named"]))


def serve(nonce: bytes) -> NoReturn:
    """Answer until the channel closes. Whatever the code raises is an answer."""
    remote = Remote(nonce)
    names: dict[str, Any] = {"__name__": "solution", "__builtins__": builtins}
    while True:
        request = remote.receive()
        try:
            answer = {"value": encode(_do(request, names, remote))}
        except BaseException as error:  # sys.exit and an interrupt too: the code under test does not end the loop.
            answer = {"raised": [type(error).__name__, _text_of(error)]}
        remote.send(answer)


def _text_of(error: BaseException) -> str:
    """Its first argument where that is a plain text: no method of the error's is called."""
    first = error.args[0] if type(error).__module__ == "builtins" and error.args else ""
    return first[:MAX_TEXT] if type(first) is str else ""
