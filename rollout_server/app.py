"""The wire of `schema` over HTTP: checks what comes in, turns every failure into an `ErrorBody`."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header, Request, Response
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from rollout_server import adapter_file
from rollout_server.adapters import Adapters
from rollout_server.engines import Engine, Facts
from rollout_server.errors import ApiError, EngineError
from rollout_server.schema import (
    HASH_HEADER,
    NAME_PATTERN,
    AdapterReceipt,
    ErrorBody,
    GenerateRequest,
    GenerateResponse,
    Health,
    Policies,
)

T = TypeVar("T")
PolicyName = Annotated[str, PathParam(pattern=NAME_PATTERN)]
VersionNumber = Annotated[int, PathParam(ge=0)]
_LEAST_TEMPERATURE = 0.01  # vLLM would silently raise a lower one to it


def create_app(engine: Engine, folder: Path, *, keep: int = 8) -> FastAPI:
    """The server's application. Whoever calls it starts and closes the engine.

    Args:
        engine: may still be loading; until it is ready, /ready and all that needs it answer 503.
        folder: an empty folder for the adapters' files.
        keep: versions of each policy that stay served.
    """
    app = FastAPI(title="Rollout server", openapi_url="/openapi.json")
    adapters = Adapters(engine, folder, keep=keep)
    _answer_errors(app, engine)

    @app.get("/health", response_model=Health)
    async def health() -> Response:
        return _json(_health(engine))

    @app.get("/ready", response_model=Health)
    async def ready() -> Response:
        return _json(_health(engine), status=200 if engine.status == "ready" else 503)

    @app.get("/v1/policies", response_model=Policies)
    async def policies() -> Response:
        return _json(Policies(versions=list(adapters)))

    @app.put("/v1/policies/{policy}/{version}", response_model=AdapterReceipt)
    async def put(
        request: Request,
        policy: PolicyName,
        version: VersionNumber,
        sha256: Annotated[str, Header(alias=HASH_HEADER)],
    ) -> Response:
        body = await _body(request, adapter_file.largest_body(engine.facts))
        return _json(await adapters.put(policy, version, body, sha256))

    @app.post("/v1/policies/{policy}/{version}/accept", response_model=AdapterReceipt)
    async def accept(policy: PolicyName, version: VersionNumber) -> Response:
        return _json(await adapters.accept(policy, version))

    @app.delete("/v1/policies/{policy}/{version}", status_code=204)
    async def delete(policy: PolicyName, version: VersionNumber) -> None:
        await adapters.delete(policy, version)

    @app.post("/v1/generate", response_model=GenerateResponse)
    async def generate(request: Request, body: GenerateRequest) -> Response:
        _check(body, engine.facts)
        async with adapters.use(body.policy, body.policy_version) as adapter:
            completions = await _while_connected(request, engine.generate(body, adapter))
        return _json(GenerateResponse.model_construct(completions=completions))

    return app


def _health(engine: Engine) -> Health:
    length = engine.facts.max_model_len if engine.status == "ready" else None
    return Health(
        status=engine.status, model=engine.model, engine=engine.name, max_model_len=length, detail=engine.detail
    )


def _json(answer: BaseModel, *, status: int = 200) -> Response:
    """Serialised once by pydantic; FastAPI would validate and convert every token again."""
    return Response(answer.model_dump_json(), status_code=status, media_type="application/json")


async def _body(request: Request, limit: int) -> bytes:
    """The whole body, read no further than the largest adapter this model can have."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            detail = f"the body is larger than {limit} bytes, which no adapter for this model can be"
            fix = "Send the adapter alone, of a rank that the server takes (--max-lora-rank)."
            raise ApiError(413, "adapter too large", detail, fix=fix)
    return bytes(body)


def _check(request: GenerateRequest, facts: Facts) -> None:
    """What depends on the model or on several fields at once. Raises ApiError 422."""
    sampling = request.sampling
    if 0 < sampling.temperature < _LEAST_TEMPERATURE:
        detail = f"sampling.temperature is {sampling.temperature}"
        raise _invalid(detail, fix=f"Use 0 (greedy) or at least {_LEAST_TEMPERATURE}.")
    if sampling.temperature == 0 and request.n > 1:
        raise _invalid(f"n is {request.n} at temperature 0, where all completions are the same", fix="Ask for n=1.")
    for index, prompt in enumerate(request.prompts):
        if not prompt:
            raise _invalid(f"prompts.{index} is empty", fix="Send at least one token.")
        if len(prompt) + sampling.max_tokens > facts.max_model_len:
            detail = (
                f"prompts.{index} has {len(prompt)} tokens, which with sampling.max_tokens "
                f"{sampling.max_tokens} is more than the model's {facts.max_model_len}"
            )
            raise _invalid(detail, fix="Shorten the prompt, lower max_tokens, or raise the server's --max-model-len.")
        _check_tokens(f"prompts.{index}", prompt, facts)
    _check_tokens("sampling.stop_token_ids", sampling.stop_token_ids, facts)


def _check_tokens(name: str, tokens: Sequence[int], facts: Facts) -> None:
    if not all(0 <= token < facts.vocab_size for token in tokens):
        detail = f"{name} holds a token outside 0 to {facts.vocab_size - 1}"
        raise _invalid(detail, fix="Use the tokenizer of the model that is served.")


def _invalid(detail: str, *, fix: str) -> ApiError:
    return ApiError(422, "invalid request", detail, fix=fix)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, but cancel it when the client goes away: nobody would read what it still samples."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body is read: what comes next is the disconnect
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(499, "client went away", "the connection was closed before the answer", fix="Wait longer.")
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.wait({working})


def _answer_errors(app: FastAPI, engine: Engine) -> None:
    def answer(status: int, title: str, detail: str, fix: str) -> Response:
        return _json(ErrorBody(title=title, detail=detail, fix=fix), status=status)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return answer(error.status, error.title, error.detail, error.fix)

    @app.exception_handler(EngineError)
    async def engine_error(_: Request, error: EngineError) -> Response:
        if engine.status == "loading":
            return answer(503, "not ready", f"{engine.model} is still loading", "Wait until /ready answers 200.")
        return answer(503, "engine is gone", str(error), "Start the server again; its log says more.")

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> Response:
        shown = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]]
        fix = "Send what rollout_server/schema.py (or /openapi.json) describes for this path."
        return answer(422, "invalid request", "; ".join(shown), fix)

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        detail = f"{request.method} {request.url.path}: {type(error).__name__}: {error}"
        return answer(500, "defect of the server", detail, "Report it with the traceback in the server's log.")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return answer(error.status_code, "no such path", detail, "rollout_server/schema.py lists the paths.")
