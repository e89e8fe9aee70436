"""HTTP/1.1 by hand over asyncio streams, so that an answer can be as wrong as a test needs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.fakes.content import Blob, Literal

MAX_HEAD = 64 * 1024  # bytes
_PIECE = 256 * 1024
_REASONS = {
    200: "OK", 206: "Partial Content", 302: "Found", 304: "Not Modified",
    307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    416: "Range Not Satisfiable", 429: "Too Many Requests", 500: "Internal Server Error",
    502: "Bad Gateway", 503: "Service Unavailable",
}  # fmt: skip
EMPTY = Literal(b"")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]  # lower-case names; of several lines with one name, joined by ", "
    body: bytes

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def resumes(self) -> bool:
        """It asks for a range that does not begin at the beginning."""
        return re.match(r"bytes=[1-9]", self.headers.get("range", "")) is not None


@dataclass(slots=True)
class Seen:
    """A request that some port received, and what became of it."""

    number: int
    host: str  # hub, cdn or mirror
    method: str
    target: str
    headers: dict[str, str]
    route: str  # resolve, raw, blob, info, revision, tree, refs, …
    repo: str = ""
    path: str = ""  # inside the repository
    connection: int = 0  # requests on one connection share it
    status: int = 0  # 0 until an answer was chosen
    sent: int = 0  # bytes of the body
    finished: bool = False  # the whole answer was sent
    faults: list[str] = field(default_factory=list)  # the actions that were applied


@dataclass(slots=True)
class Reply:
    """An answer, and how it is to be delivered. The defaults are an honest delivery."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Blob = EMPTY
    start: int = 0
    stop: int = -1  # of the body; -1 is its end

    length: int | None = None  # the Content-Length to claim; None is the true one
    unsized: bool = False  # no Content-Length; the body ends with the connection
    chunked: bool = False
    raw: bytes | None = None  # sent in place of everything, before the connection ends
    silent: bool = False  # never answer
    cut_at: int | None = None  # end the connection after so many bytes of the body; -1: before it
    cut_by_reset: bool = False
    stall_at: int | None = None  # send nothing more after so many bytes of the body
    hold_at: int | None = None  # the same, until the test releases it
    rate: float | None = None  # bytes a second

    def __post_init__(self) -> None:
        if self.stop < 0:
            self.stop = self.body.size

    @property
    def size(self) -> int:
        """Bytes of the body that will be sent if nothing goes wrong."""
        return self.stop - self.start

    def replace(self, status: int, body: Blob, *headers: tuple[str, str]) -> None:
        """Another answer altogether."""
        self.status, self.body, self.start, self.stop = status, body, 0, body.size
        self.headers = list(headers)

    def header(self, name: str) -> str:
        return next((v for key, v in self.headers if key.lower() == name.lower()), "")

    def set(self, name: str, value: str | None) -> None:
        """Replace a header; None removes it."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))

    def head(self) -> bytes:
        reason = _REASONS.get(self.status, "Status")
        lines = [f"HTTP/1.1 {self.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif not self.unsized:
            lines.append(f"Content-Length: {self.size if self.length is None else self.length}")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def apply_range(reply: Reply, request: Request) -> None:
    """Narrow a 200 to the one range that was asked for (RFC 9110 §14.2, §13.1.5)."""
    reply.set("Accept-Ranges", "bytes")
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "").strip())
    size = reply.body.size
    condition = request.headers.get("if-range")
    if wanted is None or wanted.group() == "bytes=-" or request.method != "GET":
        return
    if condition is not None and condition != reply.header("ETag"):
        return
    first, last = wanted.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size or stop <= start:
        reply.replace(416, EMPTY, ("Content-Range", f"bytes */{size}"))
        return
    reply.status, reply.start, reply.stop = 206, start, stop
    reply.set("Content-Range", f"bytes {start}-{stop - 1}/{size}")


class Pace:
    """Lets bytes pass at a rate, smoothly: a hundred pieces a second."""

    def __init__(self) -> None:
        self._due = 0.0

    async def wait(self, count: int, rate: float) -> None:
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - 0.01) + count / rate
        if self._due > now:
            await asyncio.sleep(self._due - now)


class Gate:
    """Where held answers wait until a test releases all of them."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def wait(self) -> None:
        await self._open.wait()

    def release(self) -> None:
        """Let everyone through who waits; who comes later waits for the next release."""
        self._open.set()
        self._open = asyncio.Event()


class Connection:
    """One client's connection, and every way to mistreat it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gate: Gate,
        progress: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._gate = gate
        self._progress = progress  # called after every piece of a body
        self._pace = Pace()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def receive(self) -> Request | None:
        """The next request; None if the client is done, or speaks no HTTP."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3:
            return None
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                key = name.strip().lower()
                held = f"{headers[key]}, " if key in headers else ""
                headers[key] = held + value.strip()
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Request(parts[0], parts[1], headers, body)

    async def send(self, reply: Reply, seen: Seen, *, rate: float | None) -> bool:
        """Deliver an answer; True if the connection is fit for another request."""
        if reply.silent:
            await self.gone()
            return False
        if reply.raw is not None:
            self._writer.write(reply.raw)
            await self._writer.drain()
            return False
        if reply.cut_at == -1:
            await self._end(by_reset=reply.cut_by_reset)
            return False
        self._writer.write(reply.head())
        if seen.method == "HEAD" or reply.status in (204, 304):
            await self._writer.drain()
            seen.finished = True
            return True
        at = reply.start
        for mark in sorted({m for m in _marks(reply) if m < reply.size} | {reply.size}):
            at = await self._body(reply, seen, at, reply.start + mark, rate=reply.rate or rate)
            if mark == reply.cut_at:
                await self._end(by_reset=reply.cut_by_reset)
                return False
            if mark == reply.stall_at:
                await self._writer.drain()
                await self.gone()
                return False
            if mark == reply.hold_at:
                await self._writer.drain()
                await self._gate.wait()
        if reply.chunked:
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        seen.finished = True
        honest = reply.length is None or reply.length == reply.size
        return honest and not reply.unsized

    async def _body(
        self, reply: Reply, seen: Seen, at: int, stop: int, *, rate: float | None
    ) -> int:
        step = _PIECE if rate is None else max(1, min(_PIECE, int(rate / 100)))
        while at < stop:
            piece = reply.body.read(at, min(at + step, stop))
            if not piece:
                break
            at += len(piece)
            seen.sent += len(piece)  # before the client can have it and ask for the count
            if reply.chunked:
                self._writer.write(b"%x\r\n" % len(piece))
                self._writer.write(piece + b"\r\n")
            else:
                self._writer.write(piece)
            await self._writer.drain()
            self._progress()
            if rate is not None:
                await self._pace.wait(len(piece), rate)
        return at

    async def gone(self) -> None:
        """Wait until the client gives up."""
        while await self._reader.read(_PIECE):
            pass

    async def _end(self, *, by_reset: bool) -> None:
        if not by_reset:
            return  # close() sends what is buffered, and then FIN
        await self._flushed()
        self.reset()

    async def _flushed(self) -> None:
        """Wait until the client's machine has everything: a reset throws away what it has not."""
        transport = self._writer.transport
        transport.set_write_buffer_limits(0)
        await self._writer.drain()
        sock = self._writer.get_extra_info("socket")
        for _ in range(500):
            waiting: int = struct.unpack(
                "i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            )[0]
            if not waiting:
                return
            await asyncio.sleep(0.002)

    def reset(self) -> None:
        """End with RST."""
        sock = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """End with FIN, after what is buffered; closing twice is fine."""
        self._writer.close()
        try:
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._writer.wait_closed(), 2)
        finally:
            self._writer.transport.abort()


def _marks(reply: Reply) -> set[int]:
    marks = (reply.cut_at, reply.stall_at, reply.hold_at)
    return {mark for mark in marks if mark is not None}
