"""The server's paths: the wire of `schema` over HTTP, OpenAI's API, and vLLM's metrics."""

from collections.abc import Collection
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi import Path as PathParam
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rollout_server import adapter_file, metrics
from rollout_server.access import Gate, Named
from rollout_server.adapters import Adapters
from rollout_server.described import ADAPTER_BYTES, METRICS, UNHEALTHY, describe, refusals
from rollout_server.door import Door, read_body
from rollout_server.engines import Engine, Facts, stands_still
from rollout_server.limits import (
    UPLOAD_LIMIT_S,
    check_count,
    check_prompts,
    check_sampling,
    check_tokens,
    guest_share,
    upload_share,
    wire_share,
)
from rollout_server.openai_api import PATHS, add_openai_paths
from rollout_server.schema import (
    HASH_HEADER,
    LARGEST_VERSION,
    NAME_PATTERN,
    AdapterReceipt,
    GenerateRequest,
    GenerateResponse,
    Health,
    Policies,
)
from rollout_server.web import answer, answer_errors, no_key, not_here, refusal, while_connected

PolicyName = Annotated[str, PathParam(pattern=NAME_PATTERN)]
VersionNumber = Annotated[int, PathParam(ge=0, le=LARGEST_VERSION)]
Hash = Annotated[str, Header(alias=HASH_HEADER, pattern=r"^[0-9a-fA-F]{64}$", description="of the whole body")]


def create_app(
    engine: Engine,
    folder: Path,
    *,
    keep: int = 8,
    served_name: str | None = None,
    key: str | None = None,
    hosts: Collection[str] | None = None,
    guests: int = 64,
) -> FastAPI:
    """The server's application. Whoever calls it starts and closes the engine.

    Args:
        engine: may still be loading; until it is ready, /ready and all that needs it answer 503.
        folder: an empty folder for the adapters' files.
        keep: versions of each policy that stay served.
        served_name: the base model's id for OpenAI's clients; the engine's name of it when None.
        key: that all paths but /health and /ready need; None where nobody else can reach the server.
        hosts: names by which the server may be asked for; None for any.
        guests: requests of OpenAI's clients that may be here at a time.
    """
    app = FastAPI(title="Rollout server", docs_url=None, redoc_url=None)
    model = served_name or engine.model
    adapters = Adapters(engine, folder, keep=keep)
    wire, guest, uploads = wire_share(engine), guest_share(guests, engine), upload_share()
    engine.on_early = wire.ended_early
    answer_errors(app, engine)
    add_openai_paths(app, engine, adapters, model, guest)
    app.add_middleware(Door, shares={"/v1/generate": wire, **dict.fromkeys(PATHS, guest)}, refusal=refusal)
    app.add_middleware(Gate, key=key, refusal=no_key)
    app.add_middleware(Named, hosts=hosts, refusal=not_here)
    app.add_middleware(metrics.Counted)
    metrics.ADAPTERS.set_function(lambda: sum(1 for _ in adapters))
    for share in (wire, guest, uploads):
        metrics.watch(share)

    @app.get("/health", response_model=Health, responses=UNHEALTHY)
    async def health() -> Response:
        said = _health(engine, model)
        return answer(said, status=503 if said.status == "failed" else 200)

    @app.get("/ready", response_model=Health, responses=UNHEALTHY)
    async def ready() -> Response:
        said = _health(engine, model)
        return answer(said, status=200 if said.status == "ready" else 503)

    @app.get("/v1/policies", response_model=Policies, responses=refusals())
    async def policies() -> Response:
        return answer(Policies(versions=list(adapters)))

    @app.put(
        "/v1/policies/{policy}/{version}",
        response_model=AdapterReceipt,
        responses=refusals(400, 408, 409, 413, 422, 429, 503, 507),
        openapi_extra=ADAPTER_BYTES,
    )
    async def put(
        request: Request,
        policy: PolicyName,
        version: VersionNumber,
        sha256: Hash,
    ) -> Response:
        with uploads.enter():
            limit = adapter_file.largest_body(engine.facts)
            body = await read_body(request.scope, request.receive, limit, UPLOAD_LIMIT_S)
            return answer(await adapters.put(policy, version, body, sha256))

    @app.post(
        "/v1/policies/{policy}/{version}/accept",
        response_model=AdapterReceipt,
        responses=refusals(404, 409, 422, 503),
    )
    async def accept(policy: PolicyName, version: VersionNumber) -> Response:
        return answer(await adapters.accept(policy, version))

    @app.delete("/v1/policies/{policy}/{version}", status_code=204, responses=refusals(404, 422, 503))
    async def delete(policy: PolicyName, version: VersionNumber) -> None:
        await adapters.delete(policy, version)

    @app.post(
        "/v1/generate",
        response_model=GenerateResponse,
        responses=refusals(400, 404, 408, 409, 413, 422, 429, 503, 504),
    )
    async def generate(request: Request, body: GenerateRequest) -> Response:
        _check(body, engine.facts)
        return answer(await while_connected(request, sample(body)))

    async def sample(body: GenerateRequest) -> GenerateResponse:
        async with AsyncExitStack() as held:
            turn = wire.turn(len(body.prompts) * body.n, length=body.sampling.max_tokens)
            if body.policy_version is None:  # the newest is that of its turn
                await held.enter_async_context(turn)
            adapter = await held.enter_async_context(adapters.use(body.policy, body.policy_version))
            if body.policy_version is not None:  # it must be there until then
                await held.enter_async_context(turn)
            completions = await engine.generate(body, adapter)
        tokens = sum(len(completion.token_ids) for siblings in completions for completion in siblings)
        metrics.count_sampled(wire.name, len(body.prompts) * body.n, sum(map(len, body.prompts)), tokens)
        sha256 = adapter.sha256 if adapter else None
        return GenerateResponse.model_construct(completions=completions, adapter_sha256=sha256)

    @app.get("/metrics", response_class=Response, responses=METRICS | refusals())
    async def measured() -> Response:
        metrics.READY.set(_health(engine, model).status == "ready")
        engines = await engine.metrics()
        return Response(generate_latest() + engines, media_type=CONTENT_TYPE_LATEST)

    app.openapi = partial(describe, app, locked=key is not None)  # type: ignore[method-assign]
    return app


def _health(engine: Engine, model: str) -> Health:
    if stands_still(engine):
        detail = f"the engine has not taken a step for {engine.silent_s:.0f} s"
        return Health(status="failed", model=model, engine=engine.name, detail=detail)
    length = engine.facts.max_model_len if engine.status == "ready" else None
    return Health(status=engine.status, model=model, engine=engine.name, max_model_len=length, detail=engine.detail)


def _check(request: GenerateRequest, facts: Facts) -> None:
    """Raises ApiError 422."""
    check_count(len(request.prompts), request.n)
    check_sampling(request.sampling.temperature, request.n)
    check_prompts(request.prompts, request.sampling.max_tokens, facts)
    check_tokens("sampling.stop_token_ids", request.sampling.stop_token_ids, facts)
