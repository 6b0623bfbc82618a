"""What goes wrong with a request, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from smallpress.run.errors import UserError, one_line

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
UNSUPPORTED = frozenset({"functions", "function_call", "modalities", "audio"})
MAX_SHOWN = 80
OLLAMA_PATHS = "/api/"


class ApiError(Exception):
    """Answered with `status`; `param` names the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, one_line(message), param, code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def from_user_error(error: UserError, param: str | None = None) -> ApiError:
    return ApiError(400, str(error), param)


def handle_errors(app: FastAPI) -> None:
    """Every error leaves the server in this shape; 422 and tracebacks never do."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error_response(error, request.url.path)

    async def user_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, UserError)
        return error_response(from_user_error(error), request.url.path)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError | ValidationError)
        faults: list[Any] = list(error.errors())
        if isinstance(error, ValidationError):  # of fields that one door hands on to another
            faults = [fault | {"loc": ("body", *fault["loc"])} for fault in faults]
        of_one_field = [fault for fault in faults if fault["loc"][:2] == faults[0]["loc"][:2]]
        return error_response(_named(max(of_one_field, key=lambda fault: len(fault["loc"]))), request.url.path)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        known = {400: "the body is not JSON that can be read", 404: "there is no such path", 405: "not by this method"}
        ours = ApiError(error.status_code, known.get(error.status_code, str(error.detail)))
        ours.headers |= dict(error.headers or {})
        return error_response(ours, request.url.path)

    async def fault(request: Request, error: Exception) -> JSONResponse:
        ours = ApiError(500, f"this is a fault of smallpress ({type(error).__name__})")
        return error_response(ours, request.url.path)

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(UserError, user_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, fault)


def error_response(error: ApiError, path: str, **headers: str) -> JSONResponse:
    """OpenAI's shape; on Ollama's paths the text alone is `error`, as Ollama's clients show it."""
    body = error.body()
    if path.startswith(OLLAMA_PATHS):
        body = {"error": error.message, "param": error.param, "code": error.code}
    return Json(body, error.status, error.headers | headers)


class Json(JSONResponse):
    """What is quoted from a request may hold half a surrogate pair: UTF-8 has no form for it, JSON has an escape."""

    def render(self, content: Any) -> bytes:
        return json_bytes(content)


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""One for all: `json.dumps` would make a new one at each call, and a stream calls it for each token."""


def json_bytes(content: Any) -> bytes:
    return _ENCODE(content).encode(errors="backslashreplace")


def _named(fault: dict[str, Any]) -> ApiError:
    """The first thing pydantic found wrong, with the field's path as OpenAI writes it: messages[0].role."""
    if fault["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {fault.get('ctx', {}).get('error', '')}")
    where, path = (
        str(fault["loc"][0]),
        [*fault["loc"][1:2], *(part for part in fault["loc"][2:] if not _is_variant(part))],
    )
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")[:MAX_SHOWN]
    if not path and fault["type"] in ("model_attributes_type", "dict_type"):
        return ApiError(400, "the body is not a JSON object sent as Content-Type: application/json")
    if path and path[0] in UNSUPPORTED:
        return ApiError(400, f"{path[0]} is not supported by this server", str(path[0]), "unsupported_parameter")
    if fault["type"] == "extra_forbidden":
        return ApiError(400, f"{param} is not a field this server supports", param, "unsupported_parameter")
    shown = repr(fault.get("input"))
    shown = shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."
    reason = fault["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if fault["type"] == "missing":
        return ApiError(400, f"{param or 'the ' + where} is missing", param or None, "missing_required_parameter")
    return ApiError(400, f"{param or 'the ' + where} is {shown}: {reason}", param or None, "invalid_value")


def _is_variant(part: object) -> bool:
    """Pydantic puts the name of a union's variant into the path: `str`, `list[TextPart]`, `constrained-str`."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part or "-" in part or part[:1].isupper())
