"""What /openapi.json says beside the requests: how each path may refuse, and what it needs."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from rollout_server.access import OPEN
from rollout_server.schema import ErrorBody, Health

Responses = dict[int | str, dict[str, Any]]

_REFUSALS = {
    400: "the body cannot be read, or is no request",
    401: "the server's key is needed",
    404: "it is not served",
    408: "the body came too slowly",
    409: "another version is served already, or none was accepted",
    413: "the body is too large",
    421: "another server is asked for",
    422: "the request is wrong, or cannot be met",
    429: "too much is asked at a time",
    503: "the engine does not serve: it loads, or has failed",
    504: "the answer took too long",
    507: "there is no room for it",
}
_FASTAPIS = "HTTPValidationError"
"""Its own body of a 422."""
_RETRY_AFTER = {
    "Retry-After": {"description": "seconds to wait", "required": True, "schema": {"type": "integer", "minimum": 0}}
}
ADAPTER_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
METRICS: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "a chunk as JSON; [DONE] at the end"}},
}
STREAM: Responses = {200: {"content": {"text/event-stream": {"itemSchema": _EVENT}}}}


def refusals(*statuses: int, body: type[BaseModel] = ErrorBody) -> Responses:
    """A route's `responses`: these statuses, with bodies like this, and those that all paths have that need the key."""
    responses: Responses = {status: _refusal(status, body) for status in sorted({401, 421, *statuses})}
    if 429 in responses:
        responses[429]["headers"] = _RETRY_AFTER
    return responses


def _refusal(status: int, body: type[BaseModel]) -> dict[str, Any]:
    return {"description": _REFUSALS[status], "model": body}


UNHEALTHY: Responses = {421: _refusal(421, ErrorBody), 503: _refusal(503, Health)}


def describe(app: FastAPI, *, locked: bool) -> dict[str, Any]:
    """The schema of the application's routes. Args: locked: whether a key is needed."""
    if app.openapi_schema is None:
        schema = app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for operations in schema["paths"].values():
            for operation in operations.values():
                if _FASTAPIS in str(operation["responses"].get("422")):  # which no path of ours answers
                    del operation["responses"]["422"]
        if locked:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
            for path in OPEN:
                schema["paths"][path]["get"]["security"] = []
    return app.openapi_schema
