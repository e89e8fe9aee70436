"""Connections: how long a request's head may take, how many there may be, who is dropped.

aiohttp has no deadline for heads (a half-sent one stays for the keep-alive time) and no limit on
connections, so both are added here, once, below everything else.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from aiohttp import http, http_parser, web
from aiohttp.web_protocol import RequestHandler

from proxy.errors import MirrorError
from proxy.server import errors
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

HEAD_S = 8.0  # from the first byte of a connection or a request to the end of its head
KEEPALIVE_S = 75.0
# 128 costs a second of first-byte time when a fleet starts at once.
BACKLOG = 4096
# Unacknowledged for this long, as when the reader stopped reading: the kernel drops the connection.
_USER_TIMEOUT_MS = 60_000
# aiohttp's access log halves the rate; what somebody reads is logged in `app.py`.
_SILENT = logging.Logger("hubpin.access", logging.CRITICAL + 1)
_SPARE_FILES = 200  # descriptors that are never given to clients
_FULL = (
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
    "X-Error-Code: Busy\r\nX-Error-Message: this mirror has too many connections open\r\n"
    "Content-Length: 0\r\n"
)


class Connections(web.Server):
    """An aiohttp server whose connections are guarded."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        most: int,
        most_per_address: int,
        headers: Mapping[str, str],
    ) -> None:
        """`headers` are on the answers that `handler` does not give, too.

        Raises: MirrorError, if aiohttp runs without its C parser: the other one is lenient.
        """
        if http.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise MirrorError(
                "aiohttp runs without its C extensions (AIOHTTP_NO_EXTENSIONS?); its Python "
                "parser accepts malformed requests, so hubpin does not start with it"
            )
        self.headers = headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.full = f"{_FULL}{lines}\r\n".encode("ascii")
        # A client that leaves ends the work for it; downloads belong to the mirror, not to it.
        super().__init__(handler, handler_cancellation=True)
        self._most = min(most, _raise_file_limit() - _SPARE_FILES)
        self._most_per_address = most_per_address
        self._open: Counter[str] = Counter()

    def __call__(self) -> RequestHandler:
        return Guarded(
            self,
            loop=asyncio.get_running_loop(),
            access_log=_SILENT,
            keepalive_timeout=KEEPALIVE_S,
        )

    def admit(self, address: str) -> bool:
        """Count a new connection; False if it is one too many."""
        if self._open.total() >= self._most or self._open[address] >= self._most_per_address:
            return False
        self._open[address] += 1
        metrics.CONNECTIONS.inc()
        return True

    def leave(self, address: str) -> None:
        self._open[address] -= 1
        metrics.CONNECTIONS.dec()
        if self._open[address] <= 0:
            del self._open[address]


class Guarded(RequestHandler):
    """A connection whose request heads must arrive in time."""

    __slots__ = ("_address", "_admitted", "_deadline", "_server")

    _server: Connections
    _deadline: asyncio.TimerHandle | None
    _address: str
    _admitted: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else "unix"
        self._deadline = None
        assert isinstance(self._manager, Connections)
        self._server = self._manager
        self._admitted = self._server.admit(self._address)
        super().connection_made(transport)
        if not self._admitted:
            assert isinstance(transport, asyncio.Transport)
            transport.write(self._server.full)
            metrics.count_request(503)
            self.force_close()
            return
        self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._disarm()
        if self._admitted:
            self._server.leave(self._address)
            self._admitted = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._request_in_progress:
            self._disarm()
        elif self._deadline is None:  # bytes, and no request yet: a head has begun
            self._arm()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Malformed requests are everyday noise: one line in the log, where aiohttp would write a
        traceback for each, and none of their bytes in the answer."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        log.info("%s sent a malformed request: %s", request.remote, type(exc).__name__)
        response = errors.plain(status, "BadRequest", "the request is malformed")
        response.headers.update(self._server.headers)
        response.force_close()
        metrics.count_request(status)
        return response

    def _arm(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEAD_S, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self._request_in_progress:
            self.force_close()


def guard_socket(listener: socket.socket) -> None:
    """Options that accepted connections inherit."""
    with suppress(OSError, AttributeError):  # Linux only
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def _raise_file_limit() -> int:
    """As many descriptors as we may have; a blob on its way to a client takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(_SPARE_FILES + 16, soft // 2)
