"""The rollout servers of a run, used as one."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from rl.collect.client import START_LIMIT_S, ServerClient
from rl.core.errors import PublishError
from rollout_server.schema import GenerateRequest, GenerateResponse, Health

T = TypeVar("T")


class Servers:
    """Requests go to the least busy server, adapters to all of them. Use it as an asynchronous context manager.

    Every method raises `ServerError` when a server is unreachable, or refuses.
    """

    def __init__(self, urls: Sequence[str], client: Callable[[str], ServerClient] = ServerClient) -> None:
        self.clients = [client(url) for url in urls]
        self._busy = [0] * len(urls)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self.clients:
            await self._open.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def wait_ready(self, limit_s: float = START_LIMIT_S) -> Health:
        """Returns once every engine serves: the health of the first, since all serve the same model.

        Raises:
            ServerError: an engine failed, or is not ready after `limit_s` seconds.
        """
        return (await self._all(lambda client: client.wait_ready(limit_s)))[0]

    async def wait_accepted(self, policy: str, limit_s: float = START_LIMIT_S) -> Health:
        """Returns once every server has accepted a version of the policy: the health of the first.

        Raises:
            ServerError: an engine failed, or nothing was accepted within `limit_s` seconds.
        """
        return (await self._all(lambda client: client.wait_accepted(policy, limit_s)))[0]

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """By the server that has the fewest completions of ours under way."""
        i = self._busy.index(min(self._busy))
        completions = len(request.prompts) * request.n
        self._busy[i] += completions
        try:
            return await self.clients[i].generate(request)
        finally:
            self._busy[i] -= completions

    async def put_adapter(self, policy: str, version: int, adapter: bytes) -> None:
        """Uploads an adapter to all as a candidate.

        Raises:
            PublishError: a server holds other bytes than these.
        """
        sha256 = hashlib.sha256(adapter).hexdigest()
        receipts = await self._all(lambda client: client.put_adapter(policy, version, adapter))
        for client, receipt in zip(self.clients, receipts, strict=True):
            if receipt.sha256 != sha256:
                held = receipt.sha256[:12]
                raise PublishError(f"the server at {client.url} holds an adapter {held}, not {sha256[:12]}")

    async def accept(self, policy: str, version: int) -> None:
        await self._all(lambda client: client.accept(policy, version))

    async def remove(self, policy: str, version: int) -> None:
        await self._all(lambda client: client.remove(policy, version))

    async def _all(self, call: Callable[[ServerClient], Coroutine[Any, Any, T]]) -> list[T]:
        return list(await asyncio.gather(*(call(client) for client in self.clients)))
