"""The server's paths: the wire of `schema` over HTTP, OpenAI's API, and vLLM's metrics."""

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi import Path as PathParam

from rollout_server import adapter_file
from rollout_server.adapters import Adapters
from rollout_server.engines import Engine, Facts
from rollout_server.errors import ApiError
from rollout_server.limits import check_prompts, check_sampling, check_tokens
from rollout_server.openai_api import add_openai_paths
from rollout_server.schema import (
    HASH_HEADER,
    NAME_PATTERN,
    AdapterReceipt,
    GenerateRequest,
    GenerateResponse,
    Health,
    Policies,
)
from rollout_server.web import answer, answer_errors, while_connected

PolicyName = Annotated[str, PathParam(pattern=NAME_PATTERN)]
VersionNumber = Annotated[int, PathParam(ge=0)]


def create_app(engine: Engine, folder: Path, *, keep: int = 8, served_name: str | None = None) -> FastAPI:
    """The server's application. Whoever calls it starts and closes the engine.

    Args:
        engine: may still be loading; until it is ready, /ready and all that needs it answer 503.
        folder: an empty folder for the adapters' files.
        keep: versions of each policy that stay served.
        served_name: the base model's id for OpenAI's clients; the engine's name of it when None.
    """
    app = FastAPI(title="Rollout server", openapi_url="/openapi.json")
    adapters = Adapters(engine, folder, keep=keep)
    answer_errors(app, engine)
    add_openai_paths(app, engine, adapters, served_name or engine.model)

    @app.get("/health", response_model=Health)
    async def health() -> Response:
        return answer(_health(engine))

    @app.get("/ready", response_model=Health)
    async def ready() -> Response:
        return answer(_health(engine), status=200 if engine.status == "ready" else 503)

    @app.get("/v1/policies", response_model=Policies)
    async def policies() -> Response:
        return answer(Policies(versions=list(adapters)))

    @app.put("/v1/policies/{policy}/{version}", response_model=AdapterReceipt)
    async def put(
        request: Request,
        policy: PolicyName,
        version: VersionNumber,
        sha256: Annotated[str, Header(alias=HASH_HEADER)],
    ) -> Response:
        body = await _body(request, adapter_file.largest_body(engine.facts))
        return answer(await adapters.put(policy, version, body, sha256))

    @app.post("/v1/policies/{policy}/{version}/accept", response_model=AdapterReceipt)
    async def accept(policy: PolicyName, version: VersionNumber) -> Response:
        return answer(await adapters.accept(policy, version))

    @app.delete("/v1/policies/{policy}/{version}", status_code=204)
    async def delete(policy: PolicyName, version: VersionNumber) -> None:
        await adapters.delete(policy, version)

    @app.post("/v1/generate", response_model=GenerateResponse)
    async def generate(request: Request, body: GenerateRequest) -> Response:
        _check(body, engine.facts)
        async with adapters.use(body.policy, body.policy_version) as adapter:
            completions = await while_connected(request, engine.generate(body, adapter))
        sha256 = adapter.sha256 if adapter else None
        return answer(GenerateResponse.model_construct(completions=completions, adapter_sha256=sha256))

    @app.get("/metrics")
    async def metrics() -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def _health(engine: Engine) -> Health:
    length = engine.facts.max_model_len if engine.status == "ready" else None
    return Health(
        status=engine.status, model=engine.model, engine=engine.name, max_model_len=length, detail=engine.detail
    )


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
    """Raises ApiError 422."""
    check_sampling(request.sampling.temperature, request.n)
    check_prompts(request.prompts, request.sampling.max_tokens, facts)
    check_tokens("sampling.stop_token_ids", request.sampling.stop_token_ids, facts)
