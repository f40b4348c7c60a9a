"""How a server of ours listens: uvicorn, within the limits that it has, and two more."""

import asyncio
import resource
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_CONNECTIONS = 8192
"""At a time: more than the requests of all shares. Each costs a file, 6 kB, and 35 kB while it waits for an answer."""
_HEAD_BYTES = 2**16
"""Of a request's line and headers. Only h11 has such a limit, and not the faster httptools."""
_HEAD_LIMIT_S = 30.0
"""For a request's line and headers to come, after the connection was made or anything of them came."""
_IDLE_LIMIT_S = 75
"""For a connection without a request: longer than clients keep one (httpx 5 s, aiohttp 15 s), as who is first to close
it may do so while the other one is sending."""
_UNREAD_LIMIT_MS = 60_000
"""After which the kernel breaks a connection whose client does not take what was sent."""


def config(app: ASGIApp, *, stop_s: int, most: int = _CONNECTIONS) -> uvicorn.Config:
    """
    Args:
        stop_s: that running requests get when the server ends.
        most: connections at a time; further ones are closed.
    """
    return uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=most + 1,  # `_Connection` keeps below it: uvicorn would answer everybody 503
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_keep_alive=_IDLE_LIMIT_S,
        timeout_graceful_shutdown=stop_s,
    )


def prepare(listener: socket.socket) -> None:
    """Limits that are the kernel's, for the connections that a listener will have."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_LIMIT_MS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Connection(H11Protocol):
    """uvicorn's, with a limit for the head of a request to come: it has one for idle connections alone. And with one
    for all connections, beyond which new ones are closed, and those that are there are served."""

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency:
            self.connections.discard(self)
            transport.close()
        else:
            self._limit()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._limit()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unlimit()

    def _limit(self) -> None:
        serving = self.cycle is not None and not self.cycle.response_complete
        if serving:
            self._unlimit()
        elif self._closing is None:
            self._closing = self.loop.call_later(_HEAD_LIMIT_S, self.transport.close)

    def _unlimit(self) -> None:
        if self._closing:
            self._closing.cancel()
            self._closing = None
