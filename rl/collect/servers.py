"""The rollout servers of a run, used as one. Each may come, go or be slow while the others serve."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from rl.collect.client import START_LIMIT_S, ServerClient
from rl.core.errors import ServerError, UnavailableError
from rollout_server.schema import GenerateRequest, GenerateResponse, Health

T = TypeVar("T")

AWAY_LIMIT_S = START_LIMIT_S
"""How long a run goes on without any server: one that is started again loads its model, and then waits for the
learner, which is in the middle of a step, to have the newest version proved."""
AWAY_S = 1.0
"""Between two looks at a server that is away."""


@dataclass(eq=False, kw_only=True)
class _Server:
    """What is known of one server. Times are of the event loop's clock."""

    client: ServerClient
    busy: int = 0
    """completions of ours under way"""
    away_since: float | None = None
    """the first failure since it last served"""
    reason: str = ""
    """of the newest failure"""
    back: asyncio.Task[None] | None = None
    """done once it may be asked again"""
    held: set[tuple[str, int]] = field(default_factory=set)
    """pinned adapters that it has got since it was last away"""
    putting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def there(self) -> bool:
        return self.back is None or self.back.done()

    def left(self, error: UnavailableError) -> None:
        self.reason = str(error)
        self.held.clear()
        if self.away_since is None:
            self.away_since = asyncio.get_running_loop().time()
        if self.there:
            self.back = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        """Returns once the engine serves, `AWAY_S` from now at the earliest."""
        ready = False
        while not ready:
            await asyncio.sleep(AWAY_S)
            with suppress(ServerError):
                ready = (await self.client.health()).status == "ready"


class Servers:
    """Requests go to the least busy server that serves. Use it as an asynchronous context manager.

    Args:
        away_limit_s: how long there may be no server that serves; 0 where nobody starts one again.
    """

    def __init__(
        self,
        urls: Sequence[str],
        client: Callable[[str], ServerClient] = ServerClient,
        *,
        away_limit_s: float = AWAY_LIMIT_S,
    ) -> None:
        self.clients = [client(url) for url in urls]
        self._servers = [_Server(client=client) for client in self.clients]
        self._away_limit_s = away_limit_s
        self._pinned: dict[tuple[str, int], bytes] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self.clients:
            await self._open.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            if server.back:
                server.back.cancel()
        await self._open.aclose()

    async def wait_ready(self, limit_s: float = START_LIMIT_S) -> Health:
        """The health of the first server whose engine serves: all serve the same model.

        Raises:
            ServerError: an engine failed, or none is ready after `limit_s` seconds.
        """
        return await self._first(lambda client: client.wait_ready(limit_s))

    async def wait_accepted(self, policy: str, limit_s: float = START_LIMIT_S) -> Health:
        """The health of the first server that has accepted a version of the policy.

        Raises:
            ServerError: an engine failed, or nothing was accepted within `limit_s` seconds.
        """
        return await self._first(lambda client: client.wait_accepted(policy, limit_s))

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """By the server that has the fewest completions of ours under way; by another where that one fails to answer.

        Raises:
            ServerError: a server refused the request, or none has served for `away_limit_s`.
        """
        completions = len(request.prompts) * request.n
        while True:
            server = await self._least_busy()
            server.busy += completions
            try:
                await self._lend(server, request)
                answer = await server.client.generate(request)
            except UnavailableError as error:
                server.left(error)
            else:
                server.away_since = None
                return answer
            finally:
                server.busy -= completions

    def pin(self, policy: str, version: int, adapter: bytes) -> None:
        """From now on each server gets these bytes as this version before the first request for it, also when it was
        started again meanwhile."""
        self._pinned[policy, version] = adapter

    async def unpin(self, policy: str, version: int) -> None:
        """The version is not asked for any more: servers that are there remove it."""
        key = (policy, version)
        del self._pinned[key]
        for server in self._servers:
            if key in server.held:
                server.held.remove(key)
                with suppress(UnavailableError):
                    await server.client.remove(policy, version)

    async def _lend(self, server: _Server, request: GenerateRequest) -> None:
        """Uploads what the request needs of the pinned adapters, where the server has not got it."""
        if request.policy is None or request.policy_version is None:
            return
        key = (request.policy, request.policy_version)
        if (adapter := self._pinned.get(key)) is None:
            return
        async with server.putting:
            if key not in server.held:
                await server.client.put_adapter(*key, adapter)
                server.held.add(key)

    async def _least_busy(self) -> _Server:
        """Of the servers that are there; waits for one.

        Raises:
            ServerError: none has served for `away_limit_s`.
        """
        loop = asyncio.get_running_loop()
        while not (there := [server for server in self._servers if server.there]):
            since = [server.away_since for server in self._servers if server.away_since is not None]
            if len(since) == len(self._servers) and loop.time() - max(since) >= self._away_limit_s:
                reasons = "; ".join(server.reason for server in self._servers)
                raise ServerError(f"no rollout server has served for {self._away_limit_s:.0f} s: {reasons}")
            coming = [server.back for server in self._servers if server.back]
            await asyncio.wait(coming, timeout=AWAY_S, return_when=asyncio.FIRST_COMPLETED)
        return min(there, key=lambda server: server.busy)

    async def _first(self, call: Callable[[ServerClient], Awaitable[T]]) -> T:
        """What the first server says that this succeeds on.

        Raises:
            ServerError: it fails for good on all of them; the last one's.
        """
        asked = [asyncio.create_task(self._patiently(call, client)) for client in self.clients]
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    return await answer
                except ServerError as error:
                    failure = error
            raise failure
        finally:
            for task in asked:
                task.cancel()

    async def _patiently(self, call: Callable[[ServerClient], Awaitable[T]], client: ServerClient) -> T:
        """Calls again while the server is unavailable, for `away_limit_s` at the most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._away_limit_s
        while True:
            try:
                return await call(client)
            except UnavailableError as error:
                if loop.time() >= end:
                    raise ServerError(str(error), fix=error.fix) from error
            await asyncio.sleep(AWAY_S)
