"""What all paths have in common: JSON answers, clients that go away, and failures as bodies of errors."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rollout_server import openai_format
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


def answer_errors(app: FastAPI, engine: Engine) -> None:
    """Turn every failure of a request into the body of an error: `ErrorBody`, or OpenAI's on its paths."""

    def refuse(request: Request, error: ApiError, *, param: str | None = None) -> Response:
        if _is_openai(request.url.path):
            status, body = openai_format.error(error, param)
            return JSONResponse(body, status_code=status)
        return answer(ErrorBody(title=error.title, detail=error.detail, fix=error.fix), status=error.status)

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return refuse(request, error)

    @app.exception_handler(EngineError)
    async def engine_error(request: Request, error: EngineError) -> Response:
        return refuse(request, engine_problem(engine, error))

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        shown = [f"{'.'.join(map(str, e['loc']))}: {_MESSAGES.get(e['type'], e['msg'])}" for e in error.errors()[:3]]
        fix = "Send what /openapi.json describes for this path."
        param = next((place for place in error.errors()[0]["loc"][1:2] if isinstance(place, str)), None)
        return refuse(request, ApiError(422, "invalid request", "; ".join(shown), fix=fix), param=param)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> Response:
        detail = "the connection was closed before the answer"
        return refuse(request, ApiError(499, "client went away", detail, fix="Wait longer."))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        detail = f"{request.method} {request.url.path}: {type(error).__name__}: {error}"
        fix = "Report it with the traceback in the server's log."
        return refuse(request, ApiError(500, "defect of the server", detail, fix=fix))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: {error.detail}"
        title = {404: "no such path", 405: "no such method"}.get(
            error.status_code, HTTPStatus(error.status_code).phrase
        )
        return refuse(request, ApiError(error.status_code, title, detail, fix="/openapi.json lists the paths."))


def _is_openai(path: str) -> bool:
    return path.startswith("/v1/models") or path in ("/v1/completions", "/v1/chat/completions")
