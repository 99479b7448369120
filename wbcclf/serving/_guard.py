"""Who may ask: pages of the server itself, and programs, but no page from elsewhere."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# With every answer. The page itself says what it may load. No other page may show or load it.
HEADERS = [
    (b"content-security-policy", b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """Refuses requests that a page from elsewhere has made a browser send.

    A name that others can point at this machine (DNS rebinding) makes such a page look like ours,
    so only addresses and names that are known are taken in `Host`. Browsers add `Origin` to what
    a page posts.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = {"localhost", host.lower()}
        if not is_loopback(host):
            self.names.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        fault = self._fault(dict(scope["headers"]))
        app = JSONResponse({"error": fault}, 403) if fault else self.app
        try:
            await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # after Ctrl-C, by a server that has waited long enough
            if not has_begun:
                stopped = JSONResponse({"error": "The server was stopped."}, 503)
                await stopped(scope, receive, send_with_headers)

    def _fault(self, headers: dict[bytes, bytes]) -> str | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_known(host):
            return "This name is not the server's. Use its address, such as http://127.0.0.1:8000."
        origin = headers.get(b"origin")
        if origin is not None and _place(origin.decode("latin-1").lower()) != host:
            return "Pages from elsewhere may not use this server."
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.names or _is_address(name)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
