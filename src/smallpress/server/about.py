"""What there is: models, health, version, numbers."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from smallpress import __version__
from smallpress.server.errors import ApiError, Json
from smallpress.server.hosted import Hosted, Models
from smallpress.server.metrics import prometheus

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def about_routes(models: Models) -> APIRouter:
    router = APIRouter()

    loading: dict[int | str, dict[str, Any]] = {503: {"description": "A model is being loaded, or has failed"}}

    @router.get("/health", responses=loading)
    @router.get("/readyz", responses=loading)
    async def health() -> Response:
        """200 when every model answers; 503 while one is loading or its engine has failed."""
        state = models.state
        return Json({"status": state}, 200 if state == "ok" else 503)

    @router.get("/livez")
    @router.get("/ping")
    async def alive() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return PlainTextResponse(prometheus(models), media_type=PROMETHEUS)

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(model) for model in models]}

    @router.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        return _model(models.get(name))

    @router.post("/v1/embeddings")
    async def embeddings() -> Response:
        raise ApiError(501, "this server makes no embeddings")

    return router


def _model(model: Hosted) -> dict[str, Any]:
    """OpenAI's fields, vLLM's `root`, `parent` (of an adapter) and max_model_len, and whether it can be asked yet."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "smallpress",
        "root": model.root or model.name,
        "parent": model.parent.name if model.parent is not None else None,
        "max_model_len": model.capacity,
        "ready": model.worker is not None,
    }
