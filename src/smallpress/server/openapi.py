"""/openapi.json: FastAPI's description of our routes, with the errors and streams that it cannot know of."""

from typing import Any

from fastapi import FastAPI

EVENTS, LINES = "text/event-stream", "application/x-ndjson"
STREAMS = {
    "/v1/chat/completions": EVENTS,
    "/v1/completions": EVENTS,
    "/v1/responses": EVENTS,
    "/api/chat": LINES,
    "/api/generate": LINES,
}
_TEXT = {"type": ["string", "null"]}
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": _TEXT, "code": _TEXT},
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
OLLAMA_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "param": _TEXT, "code": _TEXT},
    "required": ["error"],
}


def describe(app: FastAPI) -> None:
    """Every operation may answer with an error of ours, never with 422; some answer in pieces where `stream` is set."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= {"Error": ERROR, "OllamaError": OLLAMA_ERROR}
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"key": []}]
    for path, operations in document["paths"].items():
        kind = "OllamaError" if path.startswith("/api/") else "Error"
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)
            schema = {"$ref": f"#/components/schemas/{kind}"}
            responses["default"] = {"description": "An error", "content": {"application/json": {"schema": schema}}}
            if path in STREAMS:
                responses["200"]["content"][STREAMS[path]] = {"schema": {}}  # of each piece; docs/serve.md says which
    return document
