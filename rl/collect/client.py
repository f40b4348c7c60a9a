"""The client of one rollout server: one method for each call of the wire."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import httpx
from pydantic import ValidationError

from rl.core.errors import ServerError, UnavailableError, UnknownVersionError, UsageError, first_line
from rollout_server.access import AccessError, api_key
from rollout_server.schema import (
    HASH_HEADER,
    SCHEMA,
    AdapterReceipt,
    GenerateRequest,
    GenerateResponse,
    Health,
    Policies,
)

GENERATE_LIMIT_S = 1800.0
"""For queueing and sampling of whole groups; what takes longer has gone wrong."""
CALL_LIMIT_S = 60.0
"""For whatever samples nothing: the engine does it between two of its steps."""
PUT_LIMIT_S = 300.0
"""For an upload: an adapter may have a GB."""
START_LIMIT_S = 1800.0
"""A server that downloads and loads a model of several GB takes minutes."""
ENDING_S = 3.0
"""A server whose engine has failed ends: who has started it knows better why, and is to hear of it first."""
SILENCE_LIMIT_S = 20.0
"""A server answers /health at once, whatever it does beside; one that does not for so long is frozen."""
PULSE_S = 2.0
"""Between two looks, while a call waits, whether the server still answers."""
TOO_MANY = 429
"""The status of a server that is full."""
NOT_NOW = (503, 504)
"""Those of one that does not serve, or took too long."""
UNKNOWN = ("unknown policy", "unknown version", "no accepted version")
"""Titles of the server's errors that a restart explains."""


def parsed(url: str) -> httpx.URL:
    """Raises:
    httpx.InvalidURL: nothing can have that address.
    """
    address = httpx.URL(url)
    if (address.port or 0) not in range(2**16):  # which httpx notices only when it connects
        raise httpx.InvalidURL(f"Invalid port: {address.port}")
    return address


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes
    asked: str
    """Like ``GET /health``."""


class ServerClient:
    """Asynchronous; use it as a context manager. It sends the key of this process's environment. A server that is full
    is asked again when it says. Every method raises

    * `UnavailableError` where the server cannot serve this now: it is unreachable, frozen, loads its model, or its
      connection broke; `UnknownVersionError` where it has not got the version;
    * `ServerError` where it refuses, which it would do again.

    Raises:
        UsageError: the key cannot be read.
        httpx.InvalidURL: nothing can have that address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parsed(url)
        try:
            key = api_key()
        except AccessError as error:
            raise UsageError(str(error), fix=error.fix) from None
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._http: aiohttp.ClientSession | None = None
        self.closed = False
        self._waiting = 0
        self._silence: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Whatever is asked of it from now on, or still waits, is unavailable."""
        self.closed = True
        if self._http:
            await self._http.close()

    async def health(self) -> Health:
        """Of a server that speaks our wire, whether its engine serves or not."""
        answer = await self._request("GET", "/health", limit_s=SILENCE_LIMIT_S)
        try:
            health = Health.model_validate_json(answer.content)
        except ValidationError as error:
            self._content(answer)
            raise ServerError(f"what answers at {self.url} is no rollout server: {first_line(error)}") from None
        if health.wire_schema != SCHEMA:
            message = f"the server at {self.url} speaks wire schema {health.wire_schema}, this client {SCHEMA}"
            raise ServerError(message, fix="run server and client from the same version of Tally")
        return health

    async def wait_ready(self, limit_s: float = START_LIMIT_S) -> Health:
        """Returns once the server's engine serves.

        Raises:
            ServerError: the engine failed, or is not ready after `limit_s` seconds; or it wants another key.
        """
        try:
            async with asyncio.timeout(limit_s):
                while (health := await self.health()).status == "loading":
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise ServerError(f"the server at {self.url} is not ready after {limit_s:.0f} s") from None
        if health.status == "failed":
            await asyncio.sleep(ENDING_S)
            raise ServerError(f"the engine of the server at {self.url} failed: {health.detail}")
        await self.policies()  # which needs the server's key
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
            message = f"the server at {self.url} has accepted no version of {policy} after {limit_s:.0f} s"
            raise ServerError(message) from None
        return health

    async def policies(self) -> Policies:
        return Policies.model_validate_json(await self._call("GET", "/v1/policies"))

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        body = request.model_dump_json()
        try:
            async with asyncio.timeout(GENERATE_LIMIT_S):
                answer = await self._call("POST", "/v1/generate", body, limit_s=None)
        except TimeoutError:
            message = f"the rollout server at {self.url} did not answer within {GENERATE_LIMIT_S:.0f} s"
            fix = "take a smaller --buffer or --max-tokens, or a faster machine"
            raise UnavailableError(message, fix=fix) from None
        return GenerateResponse.model_validate_json(answer)

    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> AdapterReceipt:
        """Uploads an adapter as a candidate: it serves only requests that name its version."""
        headers = {HASH_HEADER: hashlib.sha256(adapter).hexdigest(), "content-type": "application/octet-stream"}
        answer = await self._call("PUT", f"/v1/policies/{policy}/{version}", adapter, headers, limit_s=PUT_LIMIT_S)
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
        *,
        limit_s: float | None = CALL_LIMIT_S,
    ) -> bytes:
        """A request that is given up, too, when the server falls silent while it waits."""
        if self._silence is None or self._silence.done():  # the server was silent, and may have come back
            self._silence = asyncio.create_task(self._fall_silent())
        silence = self._silence
        answering = asyncio.create_task(self._request(method, path, content, headers, limit_s=limit_s))
        self._waiting += 1
        try:
            await asyncio.wait({answering, silence}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return self._content(answering.result())
            raise UnavailableError(f"the rollout server at {self.url} is silent, or says that it does not serve")
        finally:
            self._waiting -= 1
            answering.cancel()
            if not self._waiting and self._silence is not None:
                self._silence.cancel()
                self._silence = None

    async def _fall_silent(self) -> None:
        """Returns once the server does not answer /health, or does not serve; one look is for all calls that wait."""
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                self._content(await self._request("GET", "/health", limit_s=SILENCE_LIMIT_S))
            except ServerError:
                return

    async def _request(
        self,
        method: str,
        path: str,
        content: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        *,
        limit_s: float | None,
    ) -> _Answer:
        """Raises UnavailableError where there is none."""
        try:
            async with asyncio.timeout(limit_s):
                while (answer := await self._ask(method, path, content, headers)).status == TOO_MANY:
                    await asyncio.sleep(_retry_after_s(answer))
                return answer
        except TimeoutError:
            message = f"the rollout server at {self.url} did not answer {method} {path} within {limit_s} s"
            raise UnavailableError(message) from None
        except aiohttp.ClientError as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"no answer from the rollout server at {self.url}: {reason}") from error

    async def _ask(
        self, method: str, path: str, content: bytes | str | None, headers: Mapping[str, str] | None
    ) -> _Answer:
        if self.closed:
            raise UnavailableError(f"the rollout server at {self.url} is asked no more")
        if self._http is None:
            # As many connections as there are requests; idle ones are dropped before the server does it, who may do so
            # while a request is sent. httpx looks at all connections for each request: half the collector's time.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
            limits, no_cookies = aiohttp.ClientTimeout(total=None), aiohttp.DummyCookieJar()
            self._http = aiohttp.ClientSession(connector=connector, timeout=limits, cookie_jar=no_cookies)
        async with self._http.request(
            method,
            self.url.rstrip("/") + path,
            data=content,
            headers={**self._headers, **(headers or {})},
            allow_redirects=False,
        ) as answer:
            return _Answer(answer.status, answer.headers, await answer.read(), asked=f"{method} {path}")

    def _content(self, answer: _Answer) -> bytes:
        """Raises ServerError, or the kind of it, for a refusal."""
        if 200 <= answer.status < 300:
            return answer.content
        try:
            body = json.loads(answer.content)
            title, message, fix = str(body["title"]), f"{body['title']}: {body['detail']}", str(body["fix"])
        except (ValueError, KeyError, TypeError):
            title, message, fix = "", answer.content.decode(errors="replace")[:500], ""
        unavailable = UnavailableError if answer.status in NOT_NOW else ServerError
        kind = UnknownVersionError if title in UNKNOWN else unavailable
        raise kind(f"{self.url}: {answer.asked} was refused ({answer.status}): {message}", fix=fix)


def _retry_after_s(answer: _Answer) -> float:
    """What a server that is full asks to wait; a second where it does not say, or says a date."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else 1.0
