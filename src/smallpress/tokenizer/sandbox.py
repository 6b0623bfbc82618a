"""Chat templates rendered with Jinja, sandboxed; also a program of its own that does only this, under hard limits.

Run as a program (`python -I -S sandbox.py CPU_SECONDS MEMORY_BYTES FOLDER...`, the folders holding jinja2 and
markupsafe) it gives up files, environment and memory before it reads the first template, then answers requests on its
standard streams. A request is a 4-byte big-endian length and JSON, an answer such a length, one byte that says what it
is, and text. A template has so many seconds of the processor, not of the clock: a busy machine stops nothing, and a
template has no way to wait. It imports nothing of ours.
"""

import json
import os
import signal
import struct
import sys
from contextlib import suppress
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.extend(sys.argv[3:])

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_TEXT_BYTES = 16 << 20
MAX_TEMPLATE_CHARS = 1 << 20
MAX_ERROR_CHARS = 500
LENGTH = struct.Struct(">I")
READY, TEXT, ERROR = b"+", b"=", b"!"
"""The first byte of each answer."""

FAILURES = (
    TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError
)  # fmt: skip
"""What a faulty or hostile template can raise."""


def render(template: str, variables: dict[str, Any]) -> str:
    """The text of a template, with Hugging Face's settings and functions; raises one of FAILURES."""
    if len(template) > MAX_TEMPLATE_CHARS:
        raise TemplateError(f"it is longer than {MAX_TEMPLATE_CHARS} characters")
    pieces, n_bytes = [], 0
    for piece in _compiled(template).generate(**variables):
        n_bytes += len(piece.encode(errors="replace"))
        if n_bytes > MAX_TEXT_BYTES:
            raise TemplateError(f"its text is longer than {MAX_TEXT_BYTES >> 20} MB")
        pieces.append(piece)
    return "".join(pieces)


class _GenerationBlocks(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`, which marks an assistant's text in some templates: just its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class _Namespace(Namespace):
    """Jinja's namespace, without names that begin with an underscore."""

    def __init__(*args: Any, **names: Any) -> None:
        self, attributes = args[0], dict(*args[1:], **names)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


def _dict(*pairs: Any, **items: Any) -> dict[Any, Any]:
    """The type itself has attributes that a template has no need of."""
    return dict(*pairs, **items)


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where Jinja's own filter escapes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    extensions = [_GenerationBlocks, jinja2.ext.loopcontrols]
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=extensions, cache_size=0
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _Namespace,
        "dict": _dict,
    }
    return environment


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


def serve(cpu_seconds: float, memory_bytes: int) -> None:
    """Answer requests until the input ends."""
    _answer("{{ [1] | tojson }}{{ strftime_now('%Y') }}", {})  # Loads what Jinja loads late,
    _answer("{{ raise_exception('') }}", {})  # for after this no file can be opened.
    os.environ.clear()
    os.chdir("/")
    _give_up(memory_bytes)
    _send(READY)
    while header := sys.stdin.buffer.read(LENGTH.size):
        request = json.loads(sys.stdin.buffer.read(LENGTH.unpack(header)[0]))
        _allow_seconds(cpu_seconds)
        _send(_answer(request["template"], request["variables"]))


def _answer(template: str, variables: dict[str, Any]) -> bytes:
    try:
        return TEXT + render(template, variables).encode(errors="replace")
    except FAILURES as error:
        return ERROR + (str(error) or type(error).__name__)[:MAX_ERROR_CHARS].encode(errors="replace")


def _send(answer: bytes) -> None:
    sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
    sys.stdout.buffer.flush()


def _give_up(memory_bytes: int) -> None:
    """No new memory past the limit, no file or socket beside the standard streams, nothing written, no child."""
    with suppress(ImportError):  # Windows has no such limits; there only the caller's clock holds.
        import resource

        for kind, limit in (("AS", memory_bytes), ("NOFILE", 3), ("FSIZE", 0), ("NPROC", 0), ("CORE", 0)):
            with suppress(AttributeError, OSError, ValueError):  # A system may lack a kind, or hold a lower limit.
                resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (limit, limit))


def _allow_seconds(cpu_seconds: float) -> None:
    """End the process after so many more seconds of processor time, by a signal that nobody handles."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


if __name__ == "__main__":
    serve(cpu_seconds=float(sys.argv[1]), memory_bytes=int(sys.argv[2]))
