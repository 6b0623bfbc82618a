"""The pages: a handful of files of our own, served from memory, under a policy that lets nothing else in."""

from pathlib import Path

from fastapi import APIRouter, Response

from smallpress.server.errors import ApiError
from smallpress.server.gate import PAGE

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src data:"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"),
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page_routes(first: str = "page.html") -> APIRouter:
    """`first` is what stands at "/"; the others are at /page/NAME, those in HTML also without their ending."""
    router = APIRouter(include_in_schema=False)
    folder = Path(__file__).parent
    files = {path.name: path.read_bytes() for path in folder.glob("page*") if path.suffix in KINDS}

    def answer(name: str) -> Response:
        if name not in files:
            raise ApiError(404, "there is no such file")
        return Response(files[name], media_type=KINDS[Path(name).suffix], headers=HEADERS)

    @router.get("/")
    async def page() -> Response:
        return answer(first)

    @router.get(PAGE + "{name}")
    async def file(name: str) -> Response:
        return answer(name if "." in name else f"page_{name}.html")

    return router
