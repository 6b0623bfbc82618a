"""Fetching over HTTPS without being led astray.

The first address is trusted, for the program or its user chose it. Where a redirect points is not: it must be on the
same server, or HTTPS to a host all of whose addresses are public, and the connection goes to the very address that was
checked, so a name that resolves differently the second time gains nothing.
"""

import http.client
import ipaddress
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import smallpress
from smallpress.run.errors import UserError

TIMEOUT_SECONDS = 30.0
MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 20


class Fetcher:
    """Fetches from `base_url` and wherever it rightly redirects to."""

    def __init__(self, base_url: str):
        self.base_url = base_url.rstrip("/")
        self._opener = urllib.request.OpenerDirector()
        handlers = (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            _PublicHTTPS(self.base_url),
            _Redirects(self.base_url),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        )
        for handler in handlers:
            self._opener.add_handler(handler)

    def chunks(self, path: str, max_bytes: int) -> Iterator[bytes]:
        """The body at `base_url` + `path` piece by piece. Raises UserError, also for a body over `max_bytes`."""
        url, got = self.base_url + path, 0
        with self._answer(url) as answer:
            while chunk := answer.read(CHUNK_BYTES):
                got += len(chunk)
                if got > max_bytes:
                    raise UserError(f"{url} sends more than the {max_bytes} bytes expected", "report it to the hub")
                yield chunk

    @contextmanager
    def _answer(self, url: str) -> Iterator[IO[bytes]]:
        agent = {"User-Agent": f"smallpress/{smallpress.__version__}", "Accept-Encoding": "identity"}
        try:
            with self._opener.open(urllib.request.Request(url, headers=agent), timeout=TIMEOUT_SECONDS) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(url, error.code) from error
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            raise UserError(f"fetching {url}: {cause or type(error).__name__}", "check the network") from error


def _refusal(url: str, status: int) -> UserError:
    if status in (401, 403):
        remedy = "if the model is gated, fetch it with the hub's own tool and give the folder"
        return UserError(f"{url}: the server refuses access ({status})", remedy)
    if status == 404:
        return UserError(f"{url}: not found (404)", "check the model's name")
    return UserError(f"{url}: the server answers {status}", "try again later")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def __init__(self, base_url: str):
        self._origin = _origin(base_url)

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            self._check(req.full_url, newurl)
        except UserError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def _check(self, url: str, target: str) -> None:
        try:
            parts, origin = urllib.parse.urlsplit(target), _origin(target)
        except ValueError as error:
            raise UserError(f"{url} redirects to {target}: {error}", "report it to the hub") from error
        if origin == self._origin:
            return
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise UserError(f"{url} redirects to {target}, which is not plain HTTPS", "report it to the hub")
        _refuse_private(parts.hostname)


class _PublicHTTPS(urllib.request.HTTPSHandler):
    def __init__(self, base_url: str):
        super().__init__()
        self._trusted = urllib.parse.urlsplit(base_url).hostname

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(host, **options)
        if connection.host != self._trusted:
            plain = connection._create_connection  # type: ignore[attr-defined]

            def connect(address: tuple[str, int], *rest: Any) -> socket.socket:
                # Behind a proxy the address is the proxy's, which the user set; the proxy looks up the target.
                tunnelled = connection._tunnel_host is not None  # type: ignore[attr-defined]
                return plain(address if tunnelled else public_address(*address), *rest)

            connection._create_connection = connect  # type: ignore[attr-defined]
        return connection


def public_address(host: str, port: int) -> tuple[str, int]:
    """One numeric address of the host. Raises UserError if any of its addresses is not public."""
    found = [info[4] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        _refuse_private(str(address[0]), host)
    return str(found[0][0]), port


def _refuse_private(text: str, host: str = "") -> None:
    """Refuse a numeric address outside the public internet; names pass."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    if not address.is_global or address.is_multicast:
        raise UserError(f"a redirect leads to {host or text} ({text}), which is not public", "report it to the hub")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
