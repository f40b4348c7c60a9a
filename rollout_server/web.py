"""What all paths have in common: JSON answers, clients that go away, and failures as bodies of errors."""

import asyncio
import secrets
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from rollout_server import metrics, openai_format
from rollout_server.access import ASK_HERE, KEY_NEEDED, NOT_HERE, SEND_KEY
from rollout_server.engines import Engine
from rollout_server.errors import ApiError, EngineError
from rollout_server.schema import ErrorBody

T = TypeVar("T")
_MESSAGES = {"extra_forbidden": "not supported here, leave it out"}


def answer(body: BaseModel, *, status: int = 200) -> Response:
    """Serialised once by pydantic; FastAPI would validate and convert every token again."""
    return Response(body.model_dump_json(), status_code=status, media_type="application/json")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, but cancel it when the client goes away: nobody would read what it still samples."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body is read: what comes next is the disconnect
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.wait({working})


def engine_problem(engine: Engine, error: EngineError) -> ApiError:
    if engine.status == "loading":
        return ApiError(503, "not ready", f"{engine.model} is still loading", fix="Wait until /ready answers 200.")
    return ApiError(503, "engine is gone", str(error), fix="Start the server again; its log says more.")


def refusal(scope: Scope, error: ApiError, *, param: str | None = None) -> Response:
    """The body of an error: `ErrorBody`, or OpenAI's on its paths."""
    metrics.REFUSED.labels(error.title).inc()
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if _is_openai(scope["path"]):
        status, body = openai_format.error(error, param)
        return JSONResponse(body, status_code=status, headers=headers)
    response = answer(ErrorBody(title=error.title, detail=error.detail, fix=error.fix), status=error.status)
    response.headers.update(headers)
    return response


def no_key(scope: Scope) -> Response:
    """The answer to who does not know the server's key."""
    detail = f"{scope['method']} {scope['path']} needs the server's key"
    return refusal(scope, ApiError(401, KEY_NEEDED, detail, fix=SEND_KEY))


def not_here(scope: Scope) -> Response:
    """The answer to who asks for another server."""
    return refusal(scope, ApiError(421, NOT_HERE, f"{scope['method']} {scope['path']} is not for us", fix=ASK_HERE))


def answer_errors(app: FastAPI, engine: Engine) -> None:
    """Turn every failure of a request into the body of an error."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return refusal(request.scope, error)

    @app.exception_handler(EngineError)
    async def engine_error(request: Request, error: EngineError) -> Response:
        return refusal(request.scope, engine_problem(engine, error))

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        shown = [f"{'.'.join(map(str, e['loc']))}: {_MESSAGES.get(e['type'], e['msg'])}" for e in error.errors()[:3]]
        fix = "Send what /openapi.json describes for this path."
        param = next((place for place in error.errors()[0]["loc"][1:2] if isinstance(place, str)), None)
        return refusal(request.scope, ApiError(422, "invalid request", "; ".join(shown), fix=fix), param=param)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> Response:
        detail = "the connection was closed before the answer"
        return refusal(request.scope, ApiError(499, "client went away", detail, fix="Wait longer."))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        number = secrets.token_hex(4)
        error.add_note(
            f"defect {number}, in {request.method} {request.url.path!r}"
        )  # the log ends the traceback with it
        fix = "Report it with the traceback in the server's log that ends with its number."
        return refusal(request.scope, ApiError(500, "defect of the server", f"it is defect {number}", fix=fix))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: {error.detail}"
        title = {404: "no such path", 405: "no such method"}.get(
            error.status_code, HTTPStatus(error.status_code).phrase
        )
        problem = ApiError(error.status_code, title, detail, fix="/openapi.json lists the paths.")
        response = refusal(request.scope, problem)
        if error.status_code == 405:  # Starlette names the methods of one route, and several may share a path
            response.headers["Allow"] = ", ".join(_methods(request.scope))
        return response


def _methods(scope: Scope) -> list[str]:
    """That there are for the path."""
    routes = (route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE)
    return sorted({method for route in routes for method in route.methods})


def _is_openai(path: str) -> bool:
    return path.startswith("/v1/models") or path in ("/v1/completions", "/v1/chat/completions")
