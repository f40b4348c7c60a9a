"""What stands before the application: it lets in what fits into a share, reads bodies within limits, and ends requests
that take for ever."""

import asyncio
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollout_server.errors import ApiError
from rollout_server.limits import BODY_LIMIT_S, LARGEST_BODY, REQUEST_LIMIT_S
from rollout_server.shares import Share


class Door:
    """ASGI middleware.

    Args:
        shares: what the clients that POST to a path may hold, by the path; other requests come in as they are.
        refusal: makes the answer to a request that cannot be served.
    """

    def __init__(
        self, app: ASGIApp, *, shares: Mapping[str, Share], refusal: Callable[[Scope, ApiError], Response]
    ) -> None:
        self._app, self._shares, self._refusal = app, shares, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        share = self._shares.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if share is None:
            await self._app(scope, receive, send)
            return
        try:
            with share.enter() as hold:
                body = await read_body(scope, receive, LARGEST_BODY, BODY_LIMIT_S, hold)
                await self._serve(scope, _again(body, receive), send)
        except ApiError as error:
            await self._refusal(scope, error)(scope, receive, send)
        except ClientDisconnect:
            return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError 504 when that takes too long and the answer has not begun; else it just ends."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(REQUEST_LIMIT_S) as limit:
                await self._app(scope, receive, sending)
        except TimeoutError:
            if not limit.expired():
                raise
            if not begun:
                detail = f"the answer was not made in {REQUEST_LIMIT_S:.0f} s"
                fix = "Ask for fewer or shorter completions."
                raise ApiError(504, "request took too long", detail, fix=fix) from None


async def read_body(
    scope: Scope, receive: Receive, limit: int, limit_s: float, hold: Callable[[int], None] = lambda size: None
) -> bytes:
    """The whole body of a request.

    Args:
        limit: bytes that it may have.
        limit_s: for it to come.
        hold: is told the size of each piece.

    Raises:
        ApiError: 413 when it is larger, 408 when it does not come in time; and what `hold` raises.
        ClientDisconnect: the client went away before its end.
    """
    body = bytearray()
    more = True

    def check(size: int) -> None:
        if size > limit:
            detail, fix = f"the body is larger than {limit} bytes", "Send less in one request."
            raise ApiError(413, "body too large", detail, fix=fix)

    check(int(Headers(scope=scope).get("content-length", "0")))
    try:
        async with asyncio.timeout(limit_s):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                piece = message.get("body", b"")
                check(len(body) + len(piece))
                hold(len(piece))
                body += piece
                more = message.get("more_body", False)
    except TimeoutError:
        detail = f"{len(body)} bytes of the body came in {limit_s:.0f} s, and more are missing"
        raise ApiError(408, "body too slow", detail, fix="Send it faster, or less in one request.") from None
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, and then what comes."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
