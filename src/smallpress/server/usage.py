"""GET /usage: tokens and money, of the asking key; of all keys where the key is called admin, or none is needed."""

from typing import Any

from fastapi import APIRouter, Request

from smallpress.server.gate import LOCAL
from smallpress.server.hosted import Models
from smallpress.server.meter import Meter
from smallpress.server.running import owner_of

ADMIN = "admin"


def usage_routes(models: Models, meter: Meter) -> APIRouter:
    router = APIRouter()

    @router.get("/usage")
    async def usage(request: Request) -> dict[str, Any]:
        owner = owner_of(request).name
        return meter.report(models.busy_seconds(), None if owner in (LOCAL, ADMIN) else owner)

    return router
