"""Rendering chat templates, which come with models from anywhere and are programs.

Jinja's sandbox keeps a template from Python's inner parts but bounds neither time nor memory. So only the templates
below, told by their SHA-256, are rendered in this process; any other goes to a child process that has no files, no
environment, little memory and two seconds of the processor (`smallpress.tokenizer.sandbox`), and is kept for the next
text.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smallpress.run.errors import UserError

KNOWN_TEMPLATES = {
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "SmolLM2-Instruct",
    "8aeba567270fa9a8d5372caf4b04affea947c4421d96adc01e3ff94021b0ae8e": "DeepSeek-LLM-chat",
    "3b8267e54b67df6500f231ffa969955cc9d26b3444a291ced4eb96ca7d3ca1ea": "DeepSeek-V3",
    "b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2": "Llama-3-Instruct",
    "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5": "Qwen3",
    "b6835114b7303ddd78919a82e4d9f7d8c26ed0d7dfc36beeb12d524f6144eab1": "DeepSeek-R1-Distill",
}
START_SECONDS = 120.0
PATIENCE = 15.0 if hasattr(signal, "setitimer") else 1.0
"""How much longer by the clock, on a busy machine, than by the processor; Windows has the clock alone."""
REMEDY = "check the roles and their order, or choose another prompt form"


class TemplateRenderer:
    """Renders templates, one at a time; safe to use from several threads. The child starts when first needed."""

    def __init__(self, seconds: float = 2.0, memory_bytes: int = 512 << 20) -> None:
        self._seconds, self._memory_bytes = seconds, memory_bytes
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._end: weakref.finalize[[], TemplateRenderer] | None = None

    def render(self, template: str, variables: dict[str, Any]) -> str:
        """The text. Raises UserError where the template refuses the variables, fails, or takes too much."""
        if hashlib.sha256(template.encode(errors="replace")).hexdigest() in KNOWN_TEMPLATES:
            return _render_here(template, variables)
        request = json.dumps({"template": template, "variables": variables}).encode()
        with self._lock:
            child = self._living_child()
            answer = child.ask(request, PATIENCE * self._seconds)
            if answer is None:
                raise UserError(
                    f"the chat template was stopped: it takes over {self._seconds:g} s of the processor or "
                    f"{self._memory_bytes >> 20} MB",
                    "do not use this model's template",
                )
        from smallpress.tokenizer.sandbox import TEXT

        text = answer[1:].decode(errors="replace")
        if answer[:1] != TEXT:
            raise _refused(text)
        return text

    def _living_child(self) -> "_Child":
        if self._child is None or not self._child.alive:
            if self._end is not None:
                self._end()
            self._child = _Child(self._seconds, self._memory_bytes)
            self._end = weakref.finalize(self, self._child.end)
        return self._child


def _render_here(template: str, variables: dict[str, Any]) -> str:
    from smallpress.tokenizer.sandbox import FAILURES, render

    try:
        return render(template, variables)
    except FAILURES as error:
        raise _refused(str(error) or type(error).__name__) from error


def _refused(why: str) -> UserError:
    return UserError(f"the chat template refuses these messages: {why}", REMEDY)


class _Child:
    """The process that runs sandbox.py, in a session of its own so that a Ctrl-C in the terminal does not reach it."""

    def __init__(self, cpu_seconds: float, memory_bytes: int) -> None:
        folders = [str(Path(spec.origin).parent.parent) for spec in map(find_spec, ("jinja2", "markupsafe"))
                   if spec is not None and spec.origin is not None]  # fmt: skip
        program = str(Path(__file__).with_name("sandbox.py"))
        # The loader may need these two to find Python's own library; the child forgets them at once.
        kept = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", program, str(cpu_seconds), str(memory_bytes), *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=kept,
            start_new_session=True,
        )
        self._owner = os.getpid()
        if self._answer_within(START_SECONDS) is None:
            raise UserError("the process that renders chat templates does not start", "reinstall jinja2")

    @property
    def alive(self) -> bool:
        return self._owner == os.getpid() and self._process.poll() is None

    def ask(self, request: bytes, seconds: float) -> bytes | None:
        """The answer; None where the child had to be stopped, or stopped itself. Then it is not alive any more."""
        return self._answer_within(seconds, request)

    def end(self) -> None:
        if self._owner != os.getpid():
            return  # a fork inherits the pipes, not the child
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # What was not yet written has no reader now.
                    stream.close()

    def _answer_within(self, seconds: float, request: bytes | None = None) -> bytes | None:
        from smallpress.tokenizer.sandbox import LENGTH, MAX_TEXT_BYTES

        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        alarm = threading.Timer(seconds, self._process.kill)
        alarm.daemon = True
        alarm.start()
        try:
            if request is not None:
                stdin.write(LENGTH.pack(len(request)) + request)
                stdin.flush()
            header = stdout.read(LENGTH.size)
            length = LENGTH.unpack(header)[0] if len(header) == LENGTH.size else None
            answer = stdout.read(length) if length is not None and length <= MAX_TEXT_BYTES + 1 else b""
        except BrokenPipeError:
            length, answer = None, b""
        finally:
            alarm.cancel()
        if not answer or len(answer) != length:
            self.end()
            return None
        return answer
