"""Pages that keep up with training runs: the list of runs, and each drawn from its folder as it is now."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from starlette.types import ASGIApp

from smallpress import __version__
from smallpress.run.errors import UserError
from smallpress.run.figure import DARK, LIGHT
from smallpress.run.report import drawn, report_style
from smallpress.run.report_source import Row, metrics_of
from smallpress.run.watched import find_runs, overview, stamp
from smallpress.server.errors import ApiError, handle_errors
from smallpress.server.gate import Gate, Keys
from smallpress.server.limits import Limits
from smallpress.server.page import HEADERS, page_routes

AlarmsOf = Callable[[Sequence[Row]], list[str]]
"""Metrics of a run, oldest first, to the sentences that a person should read, each with its step."""


@dataclass
class Kept:
    """What was made of a run's files when their stamp was this one."""

    stamp: str
    value: Any


class Watched:
    """The runs below a folder. What was read stays as long as the files do not change."""

    def __init__(self, folder: Path, alarms_of: AlarmsOf) -> None:
        self.folder, self._alarms_of = folder, alarms_of
        self._read: dict[str, Kept] = {}
        self._drawn: dict[str, Kept] = {}

    def runs(self) -> list[dict[str, Any]]:
        return [self._listed(name, path) for name, path in find_runs(self.folder).items()]

    def page_of(self, name: str) -> str:
        """The HTML of one run; ApiError where there is none, UserError where its files are damaged."""
        path = find_runs(self.folder).get(name)
        if path is None:
            raise ApiError(404, f"there is no run {name[:200]!r}")
        return str(_kept(self._drawn, name, path, lambda: drawn(path)))

    def _listed(self, name: str, path: Path) -> dict[str, Any]:
        head = {"name": name, "stamp": stamp(path)}
        try:
            rows, alarms = _kept(self._read, name, path, lambda: self._facts(path))
            return head | asdict(overview(path, rows)) | {"alarms": alarms}
        except UserError as error:
            return head | {"state": "unreadable", "problem": str(error)}

    def _facts(self, path: Path) -> tuple[list[dict[str, float]], list[str]]:
        rows = metrics_of(path)
        return rows, self._alarms_of(rows)


def _kept(store: dict[str, Kept], name: str, path: Path, make: Callable[[], Any]) -> Any:
    now = stamp(path)
    if name not in store or store[name].stamp != now:
        store[name] = Kept(now, make())
    return store[name].value


def watch_routes(watched: Watched) -> APIRouter:
    router = APIRouter()
    colours = f":root{{{LIGHT}}}@media(prefers-color-scheme:dark){{:root:not(.light){{{DARK}}}}}:root.dark{{{DARK}}}"

    @router.get("/watch/runs")
    def runs() -> list[dict[str, Any]]:
        return watched.runs()

    @router.get("/watch/run/{name:path}")
    def run(name: str) -> Response:
        return Response(watched.page_of(name), media_type="text/html", headers=HEADERS)

    @router.get("/page/report.css")
    async def report_css() -> Response:
        return Response(colours + report_style(), media_type="text/css", headers=HEADERS)

    return router


def make_watch_app(watched: Watched, keys: Keys, limits: Limits, hosts: frozenset[str]) -> ASGIApp:
    """The ASGI application; `hosts` as for Gate."""
    app = FastAPI(title="smallpress watch", version=__version__, docs_url=None, redoc_url=None)
    handle_errors(app)
    app.include_router(watch_routes(watched))
    app.include_router(page_routes("page_watch.html"))
    return Gate(app, keys, limits, hosts)
