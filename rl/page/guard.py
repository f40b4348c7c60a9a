"""What holds for every answer of the page: what a browser may do with it, who may ask, and that it is counted."""

import time
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rl.page import telemetry
from rollout_server.access import is_loopback

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Nothing from elsewhere, nothing to elsewhere, no script in a page, and no text that becomes HTML by a script."""
VIEWS = ("run", "live", "completions", "config", "audit", "compare", "compared", "static", "health", "ready", "metrics")


class Guard:
    """ASGI middleware around all others.

    Args:
        hosts: names under which the page may be asked for. Without it, a page from elsewhere whose name is made to
            mean this machine (DNS rebinding) could read this one. None where a key is needed anyway.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["Cache-Control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            await send(message)

        try:
            await (self._app if self._knows(Headers(scope=scope)) else _MISDIRECTED)(scope, receive, sending)
        finally:
            view = scope["path"].strip("/").partition("/")[0] or "runs"
            view = view if view in (*VIEWS, "runs") else "other"
            telemetry.REQUESTS.labels(view, str(status)).inc()
            telemetry.SECONDS.labels(view).observe(time.monotonic() - began)

    def _knows(self, headers: Headers) -> bool:
        return self._hosts is None or _name(headers.get("host", "")) in self._hosts


_MISDIRECTED = PlainTextResponse(
    "error: this page is for its own machine\n  fix: ask for it as http://127.0.0.1:PORT, or start it with a key\n",
    status_code=421,
)


def own_hosts(host: str) -> set[str]:
    """Names that mean this machine, for one whose page answers on that address."""
    return {"localhost", "127.0.0.1", "[::1]", _name(host)} if is_loopback(host) else {_name(host)}


def _name(host: str) -> str:
    """Without the port: ``[::1]:80`` is ``[::1]``."""
    if host.count(":") > 1 and not host.startswith("["):
        return f"[{host}]"
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() else host).lower()
