"""The client of the rollout server: one method for each call of the wire."""

import asyncio
import hashlib
from types import TracebackType
from typing import Self

import httpx

from rl.core.errors import ServerError
from rollout_server.schema import (
    HASH_HEADER,
    SCHEMA,
    AdapterReceipt,
    GenerateRequest,
    GenerateResponse,
    Health,
    Policies,
)

REQUEST_LIMIT_S = 1800.0
"""For queueing and sampling of whole groups; what takes longer has gone wrong."""
START_LIMIT_S = 1800.0
"""A server that downloads and loads a model of several GB takes minutes."""


class ServerClient:
    """Asynchronous; use it as a context manager. Every method raises `ServerError` when the server is unreachable, or
    refuses."""

    def __init__(self, url: str) -> None:
        self.url = url
        # idle connections are dropped before the server does it (uvicorn: 5 s): it may do so while a request is sent
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0)
        self._http = httpx.AsyncClient(base_url=url, timeout=REQUEST_LIMIT_S, limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def health(self) -> Health:
        """Of a server that speaks our wire, loading or ready."""
        health = Health.model_validate_json(await self._call("GET", "/health"))
        if health.wire_schema != SCHEMA:
            message = f"the server at {self.url} speaks wire schema {health.wire_schema}, this client {SCHEMA}"
            raise ServerError(message, fix="run server and client from the same version of Tally")
        return health

    async def wait_ready(self, limit_s: float = START_LIMIT_S) -> Health:
        """Returns once the server's engine serves.

        Raises:
            ServerError: the engine failed, or is not ready after `limit_s` seconds.
        """
        try:
            async with asyncio.timeout(limit_s):
                while (health := await self.health()).status == "loading":
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise ServerError(f"the server at {self.url} is not ready after {limit_s:.0f} s") from None
        if health.status == "failed":
            raise ServerError(f"the engine of the server at {self.url} failed: {health.detail}")
        return health

    async def wait_accepted(self, policy: str, limit_s: float = START_LIMIT_S) -> Health:
        """Returns once a version of the policy is accepted.

        Raises:
            ServerError: the engine failed, or nothing was accepted within `limit_s` seconds.
        """
        health = await self.wait_ready(limit_s)
        try:
            async with asyncio.timeout(limit_s):
                while not any(v.policy == policy and v.accepted for v in (await self.policies()).versions):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise ServerError(f"no version of {policy} was accepted within {limit_s:.0f} s") from None
        return health

    async def policies(self) -> Policies:
        return Policies.model_validate_json(await self._call("GET", "/v1/policies"))

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse.model_validate_json(await self._call("POST", "/v1/generate", request.model_dump_json()))

    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        """Uploads an adapter as a candidate: it serves only requests that name its version."""
        headers = {
            HASH_HEADER: hashlib.sha256(adapter).hexdigest(),
            "content-type": "application/octet-stream",
        }
        answer = await self._call("PUT", f"/v1/policies/{policy}/{version}", adapter, headers)
        return AdapterReceipt.model_validate_json(answer)

    async def accept(self, policy: str, version: int) -> AdapterReceipt:
        """Makes a candidate the version that requests for the newest get."""
        return AdapterReceipt.model_validate_json(await self._call("POST", f"/v1/policies/{policy}/{version}/accept"))

    async def remove(self, policy: str, version: int) -> None:
        await self._call("DELETE", f"/v1/policies/{policy}/{version}")

    async def _call(
        self,
        method: str,
        path: str,
        content: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        headers = {"content-type": "application/json"} | (headers or {})
        try:
            answer = await self._http.request(method, path, content=content, headers=headers)
        except httpx.TimeoutException as error:
            message = f"the rollout server at {self.url} did not answer within {REQUEST_LIMIT_S:.0f} s"
            raise ServerError(message, fix="take a smaller --buffer or --max-tokens, or a faster machine") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"no answer from the rollout server at {self.url}: {reason}") from error
        if answer.is_success:
            return answer.content
        try:
            body = answer.json()
            message, fix = f"{body['title']}: {body['detail']}", str(body["fix"])
        except (ValueError, KeyError, TypeError):
            message, fix = answer.text[:500], ""
        raise ServerError(f"{method} {path} was refused ({answer.status_code}): {message}", fix=fix)
