"""The rollout servers of a run, used as one. Each may come, go or be slow while the others serve.

Their addresses are given, or asked for again and again: then servers may join and leave while the run goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from rl.buffer.roles import Roles
from rl.collect.client import START_LIMIT_S, ServerClient
from rl.core import metrics
from rl.core.errors import LedgerError, ServerError, UnavailableError
from rl.core.rundir import RunDir
from rollout_server.schema import GenerateRequest, GenerateResponse, Health

logger = logging.getLogger(__name__)
T = TypeVar("T")

AWAY_LIMIT_S = START_LIMIT_S
"""How long a run goes on without any server: one that is started again loads its model, and then waits for the
learner, which is in the middle of a step, to have the newest version proved."""
AWAY_S = 1.0
"""Between two looks at a server that is away."""
FOLLOW_S = 2.0
"""Between two looks at which servers there are."""


@dataclass(eq=False, kw_only=True)
class _Server:
    """What is known of one server. Times are of the event loop's clock."""

    client: ServerClient
    busy: int = 0
    """completions of ours under way"""
    away_since: float | None = None
    """the first failure since it last served"""
    reason: str
    """why it does not serve, as far as was heard last"""
    back: asyncio.Task[None] | None = None
    """done once it may be asked again"""
    held: set[tuple[str, int]] = field(default_factory=set)
    """pinned adapters that it has got since it was last away"""
    putting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def there(self) -> bool:
        return self.back is None or self.back.done()

    def left(self, error: ServerError) -> None:
        self.held.clear()
        if self.away_since is None:
            self.away_since = asyncio.get_running_loop().time()
        if self.there:
            self._tell(error)
            self.expect()

    def expect(self) -> None:
        """It is asked nothing until it has been found to serve."""
        self.back = asyncio.create_task(self._until_it_serves())

    async def close(self) -> None:
        if self.back:
            self.back.cancel()
        await self.client.close()

    async def _until_it_serves(self) -> None:
        """Returns once the engine serves, and serves us; `AWAY_S` from now at the earliest."""
        while True:
            await asyncio.sleep(AWAY_S)
            try:
                if (await self.client.health()).status == "ready":
                    await self.client.policies()  # which needs the server's key
                    break
            except UnavailableError as error:
                self.reason = str(error)
            except ServerError as error:
                if str(error) != self.reason:
                    self._tell(error)
        logger.info("the server at %s serves", self.client.url, extra={"server": self.client.url})

    def _tell(self, error: ServerError) -> None:
        self.reason = str(error)
        logger.warning("the server at %s is away: %s", self.client.url, error, extra={"server": self.client.url})


class Servers:
    """Requests go to the least busy server that serves. Use it as an asynchronous context manager.

    Where asking for them fails by a defect, the body is cancelled, and an `ExceptionGroup` raised: it would never hear
    of another server.

    Args:
        urls: of the servers, or what is asked, in a thread, for those that there are now.
        away_limit_s: how long there may be no server that serves; 0 where nobody starts one again.
    """

    def __init__(
        self,
        urls: Sequence[str] | Callable[[], Sequence[str]],
        client: Callable[[str], ServerClient] = ServerClient,
        *,
        away_limit_s: float = AWAY_LIMIT_S,
    ) -> None:
        self._urls, self._client = urls, client
        self._servers: list[_Server] = []
        self._away_limit_s = away_limit_s
        self._gone: list[_Server] = []
        """That are no servers of the run any more, and still have something of ours under way."""
        self._no_addresses: set[str] = set()
        self._pinned: dict[tuple[str, int], bytes] = {}
        self._tasks = asyncio.TaskGroup()
        self._following: asyncio.Task[None] | None = None

    @property
    def clients(self) -> list[ServerClient]:
        """Of the servers that there are, whether they answer or not."""
        return [server.client for server in self._servers]

    @property
    def there(self) -> int:
        """How many serve, as far as is known."""
        return sum(server.there for server in self._servers)

    def measure(self) -> None:
        """Tells from now on how many there are."""
        metrics.SERVERS.labels("there").set_function(lambda: self.there)
        metrics.SERVERS.labels("away").set_function(lambda: len(self._servers) - self.there)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if callable(self._urls):
            self._following = self._tasks.create_task(self._follow(self._urls))
        else:
            self._servers = [self._new(url) for url in self._urls]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._following:
            self._following.cancel()
        for server in [*self._servers, *self._gone]:
            await server.close()
        await self._tasks.__aexit__(None, None, None)

    async def _follow(self, urls: Callable[[], Sequence[str]]) -> None:
        while True:
            with suppress(LedgerError):  # whoever works on the ledger says so
                await self._know(await asyncio.to_thread(urls))
            await asyncio.sleep(FOLLOW_S)

    async def _know(self, urls: Sequence[str]) -> None:
        """These are the servers from now on; what others have under way ends by itself."""
        known = {server.client.url: server for server in self._servers}
        for url in urls:
            if url not in known and url not in self._no_addresses:
                try:
                    known[url] = self._new(url)
                    known[url].expect()
                except httpx.InvalidURL as error:
                    self._no_addresses.add(url)
                    logger.warning("no server can be at %s: %s", url, error, extra={"server": url})
        self._gone += [server for server in self._servers if server.client.url not in urls]
        self._servers = [known[url] for url in urls if url in known]
        for server in [server for server in self._gone if not server.busy]:
            self._gone.remove(server)
            await server.close()

    def _new(self, url: str) -> _Server:
        return _Server(client=self._client(url), reason=f"the server at {url} does not serve yet")

    def pass_over(self, client: ServerClient, error: ServerError) -> None:
        """The server has refused who asked it directly: it is away until it serves us."""
        for server in self._servers:
            if server.client is client:
                server.left(error)

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
                metrics.RETRIES.inc()
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
        began = loop.time()
        while not (there := [server for server in self._servers if server.there]):
            since = max((server.away_since or began for server in self._servers), default=began)
            if loop.time() - since >= self._away_limit_s:
                raise ServerError(f"no rollout server has served for {self._away_limit_s:.0f} s: {self._reasons}")
            await self._news([server.back for server in self._servers if server.back])
        return min(there, key=lambda server: server.busy)

    async def _first(self, call: Callable[[ServerClient], Awaitable[T]]) -> T:
        """What the first server says that this succeeds on.

        Raises:
            ServerError: it fails for good on all of them; the last one's.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._away_limit_s
        asked: dict[ServerClient, asyncio.Task[T]] = {}
        try:
            while True:
                for client in self.clients:
                    if client not in asked:
                        asked[client] = asyncio.create_task(self._patiently(call, client))
                ended = [task for task in asked.values() if task.done()]
                failures = [error for task in ended if (error := task.exception())]
                if len(ended) > len(failures):
                    return next(task.result() for task in ended if not task.exception())
                if failures and len(failures) == len(asked):
                    raise failures[-1]
                if not asked and loop.time() >= end:
                    raise ServerError(f"no rollout server has joined in {self._away_limit_s:.0f} s")
                await self._news(set(asked.values()) - set(ended))
        finally:
            for task in asked.values():
                task.cancel()

    async def _news(self, tasks: Collection["asyncio.Task[Any]"]) -> None:
        """Waits until one of these is done, or a moment, as other servers may have come."""
        if tasks:
            await asyncio.wait(tasks, timeout=AWAY_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(AWAY_S)

    @property
    def _reasons(self) -> str:
        return "; ".join(server.reason for server in self._servers) or "none is there"

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


def servers_of(run: RunDir, urls: Sequence[str]) -> Servers:
    """The servers at these addresses; where none is named, those that join the run."""
    return Servers(urls or Roles(run.buffer_url).server_urls)
