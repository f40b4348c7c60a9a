"""Who may ask: beyond loopback every HTTP server of ours wants a key.

The key comes from the environment, `TALLY_API_KEY`, or from the file that `TALLY_API_KEY_FILE` names, and goes
nowhere else. A client sends it as `Authorization: Bearer KEY`; a browser asks its user for it, as a password.
"""

import base64
import binascii
import hmac
import ipaddress
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

KEY, KEY_FILE = "TALLY_API_KEY", "TALLY_API_KEY_FILE"
OPEN = frozenset({"/health", "/ready"})
"""What answers without a key: whoever watches over the process asks these, and they say nothing of its work."""
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""By which a server may be asked for that only its own machine reaches."""
KEY_NEEDED = "a key is needed"
SEND_KEY = f"Put the server's key into {KEY}; other clients send it as Authorization: Bearer KEY."
NOT_HERE = "another server is asked for"
ASK_HERE = "Ask for localhost or 127.0.0.1, or start the server with a key."
_POLICY_VIOLATION = 1008
"""Why a websocket is closed (RFC 6455)."""


class AccessError(Exception):
    """The key cannot be read, or there is none where one is needed.

    Args:
        fix: what the user can do about it.
    """

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def api_key() -> str | None:
    """The key of this process's environment; None where it has none.

    Raises:
        AccessError: the file of the key cannot be read, or is empty; or no header could carry the key.
    """
    if key := os.environ.get(KEY, "").strip():
        return checked(key, KEY)
    if not (name := os.environ.get(KEY_FILE)):
        return None
    try:
        key = Path(name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise AccessError(f"{KEY_FILE} names {name}: {reason}", fix="write a key into it") from None
    if not key:
        raise AccessError(f"{KEY_FILE} names {name}, which is empty", fix="write a key into it")
    return checked(key, KEY_FILE)


def checked(key: str, source: str) -> str:
    """The key.

    Args:
        source: where it is from, for the error.

    Raises:
        AccessError: no header could carry it.
    """
    if not (key.isascii() and key.isprintable() and " " not in key):
        fix = "take letters and digits, as in $(openssl rand -hex 32)"
        raise AccessError(f"the key of {source} has blanks, or characters beyond ASCII", fix=fix)
    return key


def check_exposed(host: str, key: str | None) -> None:
    """Raises:
    AccessError: whoever reaches this address could ask without a key.
    """
    if key is None and not is_loopback(host):
        fix = f"put a key into the environment, as in {KEY}=$(openssl rand -hex 32), or stay on 127.0.0.1"
        raise AccessError(f"{host} can be reached from other machines, and no key is set", fix=fix)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name counts as what it stands for."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def _no_key(_: Scope) -> Response:
    return PlainTextResponse(f"error: {KEY_NEEDED}\n  fix: {SEND_KEY}\n", status_code=401)


def _not_here(_: Scope) -> Response:
    return PlainTextResponse(f"error: {NOT_HERE}\n  fix: {ASK_HERE}\n", status_code=421)


class Gate:
    """ASGI middleware: answers 401 to who does not know the key.

    Args:
        key: None lets everybody in.
        open: the paths that need none.
        refusal: makes the answer, of status 401.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str | None,
        open: Collection[str] = OPEN,
        refusal: Callable[[Scope], Response] = _no_key,
    ) -> None:
        self._app, self._key, self._open, self._refusal = app, key, open, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self._open or self._knows(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(_POLICY_VIOLATION, KEY_NEEDED)(scope, receive, send)
        else:
            refusal = self._refusal(scope)
            refusal.headers["WWW-Authenticate"] = 'Basic realm="Tally: the key as the password", charset="UTF-8"'
            await refusal(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        """In constant time, whatever was sent."""
        if self._key is None:
            return True
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            sent = _password(sent)
        return hmac.compare_digest(sent.strip().encode(), self._key.encode())


class Named:
    """ASGI middleware: answers 421 to who asks for somebody else. Where no key is needed, a web page could else have
    its own name stand for this machine (DNS rebinding), and the browser of somebody here ask for it.

    Args:
        hosts: names and addresses of the server; None for any.
        refusal: makes the answer to the others.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None, refusal: Callable[[Scope], Response] = _not_here
    ) -> None:
        self._app, self._hosts, self._refusal = app, hosts, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._hosts is None or _host(scope) in self._hosts:
            await self._app(scope, receive, send)
        else:
            await self._refusal(scope)(scope, receive, send)


def _host(scope: Scope) -> str:
    """The server's name in the request, without its port; empty where there is none."""
    try:
        return urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _password(credentials: str) -> str:
    """Of HTTP's basic authentication (RFC 7617); empty where these are none."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
