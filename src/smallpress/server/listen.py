"""Binding, and the time between the first connection and the last."""

import ipaddress
import socket
import sys
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from smallpress.run.errors import UserError, disk_error
from smallpress.server.app import Loading, make_app
from smallpress.server.connection import Connection
from smallpress.server.gate import LOOPBACK, Keys
from smallpress.server.hosted import Models
from smallpress.server.limits import Limits
from smallpress.server.meter import Accounts

BACKLOG = 2048
NOTHING = Accounts()
HEAD_BYTES = 64 << 10
SWITCH_SECONDS = 0.0005
"""How long the engine's thread waits, at most, for the event loop to let it go on. With Python's own 5 ms a step of 32
streams takes a tenth longer."""


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"


def allowed_hosts(address: str, keys: Keys, more: tuple[str, ...]) -> frozenset[str]:
    """The names a request's Host may have; with a key on a public address, and no names given, any."""
    if keys and not more and not is_loopback(address):
        return frozenset()
    return LOOPBACK | {address.lower()} | {name.lower() for name in more}


def bound_socket(address: str, port: int, keys: Keys) -> socket.socket:
    """A listening socket; UserError where the port is taken, or others could come in without a key."""
    if not is_loopback(address) and not keys:
        raise UserError(f"{address} can be reached by others", "set SMALLPRESS_API_KEY or --api-keys, or use 127.0.0.1")
    if not 0 <= port <= 65535:
        raise UserError(f"the port is {port}", "choose one from 0 to 65535")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        cause = f"cannot listen on {address}, port {port}: {error.strerror or error}"
        raise UserError(cause, "choose another --port or --host") from error


def make_server(
    models: Models, keys: Keys, limits: Limits, hosts: frozenset[str], drain_seconds: int, accounts: Accounts = NOTHING
) -> tuple[uvicorn.Server, Loading]:
    """A server that `run([socket])` starts, and what its loading came to."""
    loading = Loading()
    server = http_server(make_app(models, keys, limits, hosts, loading, accounts), limits, drain_seconds)

    def stop() -> None:
        server.should_exit = True

    loading.stop = stop
    return server, loading


def http_server(app: ASGIApp, limits: Limits, drain_seconds: int) -> uvicorn.Server:
    """A server of `app` that `run([socket])` starts."""
    Connection.head_seconds, Connection.stalled_seconds = limits.head_seconds, limits.stalled_seconds
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=drain_seconds,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    return uvicorn.Server(config)


def serve(
    models: Models,
    keys: Keys,
    limits: Limits,
    sock: socket.socket,
    hosts: frozenset[str],
    drain_seconds: int,
    accounts: Accounts = NOTHING,
) -> None:
    """Answer until SIGINT or SIGTERM; then what streams is given `drain_seconds` to end. UserError: a model is bad."""
    _allow_many_connections(limits.connections)
    sys.setswitchinterval(SWITCH_SECONDS)
    server, loading = make_server(models, keys, limits, hosts, drain_seconds, accounts)
    announce(sock, f"serving {', '.join(model.name for model in models)}")
    server.run([sock])
    if isinstance(loading.fault, OSError):
        raise disk_error(loading.fault, "loading the model")
    if loading.fault is not None:
        raise loading.fault


def announce(sock: socket.socket, doing: str) -> None:
    address, port = sock.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    print(f"{doing} at http://{shown}:{port} (Ctrl-C stops)", flush=True)


def _allow_many_connections(n: int) -> None:
    """Raise the soft limit on open files towards what is needed; the hard one stays."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + 256 if hard == resource.RLIM_INFINITY else min(n + 256, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < n:
        print(f"at most {wanted} open files here; raise ulimit -n for more clients", file=sys.stderr)
