"""Confined processes for code that a model wrote, as seen from outside.

Layers: limits of memory, time and processes; no new privileges; a seccomp filter that leaves arithmetic and the open
descriptors; Landlock with no rule; empty namespaces of users, processes, network, mounts. No file can be opened, so
none is written or left. What comes out is plain data over a socket: it can be anything the code likes, and is worth
nothing until something outside compares it.
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from smallpress.run.errors import UserError

LAYERS = ("privileges", "seccomp", "landlock", "namespaces")
REQUIRED = ("privileges", "seccomp")
"""Without these code of a model's does not run; resource limits hold on every Linux."""

_LENGTH = struct.Struct(">I")
_NONCE_BYTES = 16
_PROGRAM = "import sys, runpy; sys.path.append(sys.argv[1]); runpy.run_module(sys.argv[2], run_name='__main__')"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one confined process may use; `seconds` are those of the clock, and stop a process that only waits."""

    cpu_seconds: int = 3
    seconds: float = 30.0
    memory_bytes: int = 512 << 20
    answer_bytes: int = 1 << 20


class Ended(Exception):
    """The confined process is over, or says what it may not; the text says how."""


class Confined:
    """One confined process. Close it, or use it in a `with`: nothing of it is left afterwards."""

    def __init__(self, channel: socket.socket, watch: socket.socket, nonce: bytes, limits: Limits):
        self._channel, self._watch, self._nonce, self._limits = channel, watch, nonce, limits
        # A paused machine is no reason to fail: the warden holds the clock, this is only for a warden that is gone.
        channel.settimeout(limits.seconds + 60)
        watch.settimeout(60)
        self._answered = 0
        self.end: str = ""

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        try:
            self._channel.sendall(self._nonce + _LENGTH.pack(len(body)) + body)
        except OSError:
            raise Ended(self._why()) from None

    def receive(self) -> dict[str, Any]:
        """The next message. Raises Ended where the process is over, or what it wrote is no message."""
        if not secrets.compare_digest(self._bytes(_NONCE_BYTES), self._nonce):
            raise Ended("it wrote on the channel")
        (length,) = _LENGTH.unpack(self._bytes(_LENGTH.size))
        self._answered += length
        if self._answered > self._limits.answer_bytes:
            raise Ended("its answers are too long")
        try:
            message = json.loads(self._bytes(length))
        except (ValueError, RecursionError, MemoryError):
            raise Ended("its answer is no message") from None
        if not isinstance(message, dict):
            raise Ended("its answer is no message")
        return message

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.send(message)
        return self.receive()

    def _bytes(self, n: int) -> bytes:
        parts, missing = [], n
        while missing:
            try:
                part = self._channel.recv(min(missing, 1 << 16))
            except OSError:
                part = b""
            if not part:
                raise Ended(self._why())
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Kill the process if it lives, and wait until it is gone."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._why()
        self._channel.close()
        self._watch.close()

    def _why(self) -> str:
        if not self.end:
            with suppress(OSError):
                self._watch.shutdown(socket.SHUT_WR)
            said = b""
            with suppress(OSError):
                while part := self._watch.recv(64):
                    said += part
            self.end = _in_words(json.loads(said) if said else None)
        return self.end

    def __enter__(self) -> Confined:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _in_words(end: int | str | None) -> str:
    match end:
        case "clock":
            return "it took too long"
        case "closed":
            return "it was stopped"
        case -9 | -24:
            return "it used too much processor time or memory"
        case int():
            return f"it ended with status {end}"
        case _:
            return "it ended"


class Sandbox:
    """The program that makes confined processes; one serves many threads. Raises UserError below `required` layers."""

    def __init__(self, required: tuple[str, ...] = REQUIRED):
        if not sys.platform.startswith("linux"):
            raise UserError(f"{sys.platform} has no sandbox for code that a model wrote", "use Linux")
        ours, theirs = socket.socketpair()
        folder = str(Path(__file__).parents[2])
        command = [sys.executable, "-s", "-S", "-P", "-c", _PROGRAM, folder, "smallpress.tasks.sandbox_server"]
        with theirs:
            self._program = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
        self._control, self._lock = ours, threading.Lock()
        with ours.makefile("rb") as lines:
            self.layers: tuple[str, ...] = tuple(json.loads(lines.readline() or b"[]"))
        missing = [layer for layer in required if layer not in self.layers]
        if missing:
            self.close()
            raise UserError(
                f"this machine lacks {' and '.join(missing)}, without which code of a model's does not run",
                "use a Linux kernel with them, on x86-64 or aarch64",
            )

    def start(self, limits: Limits | None = None) -> Confined:
        limits = limits or Limits()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        (channel, inner_channel), (watch, inner_watch) = socket.socketpair(), socket.socketpair()
        request = {
            "nonce": nonce.hex(),
            "layers": self.layers,
            "seconds": limits.seconds,
            "cpu_seconds": limits.cpu_seconds,
            "memory_bytes": limits.memory_bytes,
        }
        with inner_channel, inner_watch, self._lock:
            try:
                socket.send_fds(
                    self._control, [json.dumps(request).encode()], [inner_channel.fileno(), inner_watch.fileno()]
                )
            except OSError as error:
                raise UserError(f"the sandbox's program has ended: {error.strerror}", "start again") from None
        return Confined(channel, watch, nonce, limits)

    def close(self) -> None:
        """End the program and all it made."""
        self._control.close()
        self._program.wait()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@cache
def shared_sandbox() -> Sandbox:
    """The one that the checkers of this process use; its program ends with this process."""
    return Sandbox()
