"""The server: connections that cannot keep it busy by being slow."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import sys
from typing import ClassVar

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from wbcclf.serving._limits import Limits

BACKLOG = 2048  # connections that the system keeps until they are accepted
LINGER = 1  # seconds for a client to read why it is refused
SHUTDOWN = 5  # seconds for requests to end after Ctrl-C


class Connection(H11Protocol):
    """A connection whose requests have to come in time.

    uvicorn waits for the head of a request for ever, and accepts any number of connections. Here
    the head has a deadline (the body has another, in `Uploads`). Beyond the limit of connections,
    a new one takes the place of the one whose client has sent or read nothing for longest. No
    browser sends a request before the last one is answered: after one answer such a connection is
    closed.
    """

    limits: ClassVar[Limits]

    def connection_made(self, transport) -> None:
        """Start the deadline of the first request; make room for it."""
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._refused = self._gives_way = False
        self._deadline: asyncio.TimerHandle | None = None
        self._start_deadline()
        own = [each for each in self.connections if isinstance(each, Connection)]
        kept = [each for each in own if not each._gives_way]
        # This one itself has had no time yet. Where all others are at work there are more for a
        # moment: what is at work ends soon, and requests have limits of their own.
        waiting = [each for each in kept if each is not self and not each.is_at_work()]
        waiting.sort(key=lambda each: each._waits_since)
        for slowest in waiting[: max(len(kept) - self.limits.connections, 0)]:
            slowest._gives_way = True
            slowest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if self._refused:
            return
        if self._deadline is None:
            self._start_deadline()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_deadline()

    def on_response_complete(self) -> None:
        """Wait for the next request. One that is there already was sent without waiting."""
        self._waits_since = self.loop.time()
        if self.conn.their_state is h11.DONE and self.conn.trailing_data[0]:
            self.transport.close()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._stop_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        self._waits_since = self.loop.time()
        super().pause_writing()

    def is_at_work(self) -> bool:
        """Return whether the client waits for us, and not we for the client."""
        cycle = self.cycle
        is_asked = cycle is not None and not cycle.more_body and not cycle.response_started
        return is_asked and not self.flow.write_paused

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request. uvicorn calls it where h11 has raised an error."""
        status = getattr(sys.exception(), "error_status_hint", 400)
        advice = "Its head is too long." if status == 431 else "Send HTTP/1.1."
        self._refuse(status, f"This is not a request that can be read. {advice}")

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(
            self.limits.head_seconds, self._refuse, 408, "The request took too long to arrive."
        )

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, message: str) -> None:
        self._refused = True
        self._stop_deadline()
        if self.cycle is None or self.cycle.response_complete:
            body = json.dumps({"error": message}).encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%s" % (status, STATUS_PHRASES[status], len(body), body)
            )
        # Closed at once, with bytes of the client unread, the answer may not reach it.
        self.loop.call_later(LINGER, self.transport.abort)


def make_server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """Return a server that is not running yet."""

    class Limited(Connection):
        pass

    Limited.limits = limits
    # It tells of every broken form, of which anybody can send as many as they like.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Limited,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=limits.head_bytes,
            timeout_graceful_shutdown=SHUTDOWN,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    OSError
        If there is no such address here, or the port is taken; the message says what to do.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a machine looks like this
        reason = getattr(error, "strerror", None) or error
        is_of_host = getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES)
        raise OSError(
            f"--host {host}: this machine cannot listen there ({reason}). Give 127.0.0.1 for this "
            "machine alone, 0.0.0.0 for all addresses that it has, or one of these."
            if is_of_host
            else f"--port {port}: the server cannot listen there ({reason}). Give another --port, "
            "such as 0 for any that is free."
        ) from error
