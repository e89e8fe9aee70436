"""A long body straight from its transport into memory that is used again and again.

aiohttp makes a new bytes object of whatever the socket has and copies it once more for its reader;
for a file of gigabytes that is half of the work. Here the transport writes into one of two buffers
(asyncio's BufferedProtocol), while the other is on its way to the disk.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncGenerator

import aiohttp

_BUFFERS = 16 << 20  # bytes for all bodies that come at a time, about
# Bytes of each of two buffers. When the other end hangs up, asyncio's TLS hands on what fits into
# one of them, and drops the rest: it may hold 512 KiB.
_MOST, _LEAST = 2 << 20, 512 << 10
_GATHER_S = 0.01  # how long bytes wait for their buffer to fill
WORTH = 32 << 20  # bytes to come; the connection is not used again after them


class Intake(asyncio.BufferedProtocol):
    """The rest of a response's body, in place of aiohttp's own protocol on the connection."""

    def __init__(
        self, transport: asyncio.Transport, before: asyncio.BaseProtocol, left: int, size: int
    ) -> None:
        self._transport = transport
        self._before = before  # its session waits for it to hear of the end
        self._left = left  # bytes that are still to come from the transport
        self._size = size
        # Memory that is not touched before bytes come: to clear 4 MiB takes milliseconds.
        own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._filling, self._other = (mmap.mmap(-1, size, flags=own) for _ in range(2))
        self._filled = 0  # of the one that is being filled
        self._error: Exception | None = None  # why nothing more comes
        self._due = False  # what is there is to be handed on
        self._more = asyncio.Event()

    async def pieces(self, timeout_s: float) -> AsyncGenerator[memoryview]:
        """What came, as soon as it came. Each is valid until the next is asked for.

        Raises: aiohttp.ClientError (the connection ended early), aiohttp.SocketTimeoutError.
        """
        self._transport.resume_reading()  # not before: what came first is to be handed on first
        while self._left or self._filled:
            if not self._due and self._error is None:
                self._more.clear()
                try:
                    async with asyncio.timeout(timeout_s):
                        await self._more.wait()
                except TimeoutError:
                    raise aiohttp.SocketTimeoutError("nothing came") from None
                continue
            if not self._filled:
                assert self._error is not None
                raise self._error
            self._due = False
            full, count = self._filling, self._filled
            self._filling, self._other, self._filled = self._other, full, 0
            if self._left and self._error is None:
                self._transport.resume_reading()
            yield memoryview(full)[:count]

    # --- what the transport calls -----------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        room = min(self._size - self._filled, self._left)
        return memoryview(self._filling)[self._filled : self._filled + room]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._left -= nbytes
        if self._filled == self._size or not self._left:
            self._transport.pause_reading()
            self._hand_on()
        elif self._filled == nbytes:
            asyncio.get_running_loop().call_later(_GATHER_S, self._hand_on)

    def _hand_on(self) -> None:
        if self._filled:
            self._due = True
            self._more.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._error is None:
            if isinstance(exc, OSError):  # a TLS error too: this is not its handshake
                self._error = aiohttp.ClientOSError(*exc.args)
            else:
                self._error = exc or aiohttp.ClientPayloadError("the body ended early")
        self._more.set()
        self._before.connection_lost(exc)

    def close(self) -> None:
        """Hang up, without waiting for a goodbye as TLS would do."""
        self._transport.abort()


def take_over(response: aiohttp.ClientResponse, others: int) -> tuple[bytes, Intake] | None:
    """Have a body come this way: what came of it already, and the rest.

    So many others come at the same time, and share the memory. None if it is not possible or not
    worth it; then nothing has changed. The connection is of no use to anybody afterwards: closing
    the response closes it.
    """
    size, connection, content = response.content_length, response.connection, response.content
    chunked = "Transfer-Encoding" in response.headers
    if size is None or size < WORTH or connection is None or chunked:
        return None
    transport, protocol = connection.transport, connection.protocol
    if transport is None or protocol is None or transport.is_closing():
        return None
    if content.exception() is not None or content.is_eof():
        return None
    came = bytearray()
    while piece := content.read_nowait():  # again: reading makes room for what was held up
        came += piece
    protocol.pause_reading()  # ends its timers as well
    each = _BUFFERS // 2 // (others + 1)
    intake = Intake(transport, protocol, size - len(came), max(_LEAST, min(_MOST, each)))
    transport.set_protocol(intake)
    return bytes(came), intake
