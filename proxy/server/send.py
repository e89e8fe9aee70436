"""Sending an entry's bytes as they become ready."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from proxy.errors import Busy, MirrorError, StoreError
from proxy.mirror.cache import Held
from proxy.mirror.follower import Reader
from proxy.pins.lock import Entry
from proxy.server import accel
from proxy.server.site import Call
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 5
_SMALL = 256 << 10  # one pread and one write
_DRAIN_S = 0.001
# What a socket says whose client went without a word; no disk says so.
_VANISHED = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENOTCONN}
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send: the bytes [start, stop), under which head."""

    span: tuple[int, int]
    status: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Way:
    """How far an answer has come."""

    at: int

    def reach(self, at: int) -> None:
        self.at = at


def at_once(call: Call, entry: Entry) -> bytes | None:
    """All of a small entry, if it is held and nothing is the matter; else `send` has to do it."""
    if entry.size > _SMALL:
        return None
    body = call.site.mirror.cache.load(entry)
    if body is not None:
        metrics.SENT_BYTES.inc(len(body))
        call.served(entry, (0, entry.size), entry.size)
    return body


async def send(call: Call, entry: Entry, plan: Callable[[], Plan]) -> web.StreamResponse:
    """Answer with bytes of an entry as `plan` says when the first of them is ready.

    While a client waits the verdict may fall on what it was shown before, and then it must not get
    what it asked for. A plan may change its start by that, not its stop.

    Errors before the first byte come out: MirrorError. Later the only honest signal left is a body
    that is shorter than it said, ended by FIN: after a reset the Hub's client does not even retry.
    """
    start, stop = plan().span
    reader = await call.site.mirror.cache.open(entry, stop)
    try:
        await _first_ready(reader, start, call.patience_s)
        now = plan()
        span, status, headers = now.span, now.status, now.headers
        start, stop = span
        ready = await _first_ready(reader, start, call.patience_s)
        if stop - start <= _SMALL and ready >= stop:
            try:
                body = _read(reader, span)
            except OSError as e:
                call.site.mirror.cache.distrust(entry.digest)
                raise StoreError(f"cannot read {entry.digest}: {e}") from e
            metrics.SENT_BYTES.inc(len(body))
            call.served(entry, span, stop)
            return web.Response(status=status, headers=headers, body=body)
        if isinstance(reader, Held) and accel.takes(call, status, headers):
            return accel.hand_over(call, entry, span, status, headers)
        response = web.StreamResponse(status=status, headers={**headers, **call.headers})
        response.content_length = stop - start
        way = _Way(start)
        try:
            await response.prepare(call.request)
            await _stream(call, reader, (way, stop), ready)
        except StoreError as e:
            _cut(call, response, e)
            call.site.mirror.cache.distrust(entry.digest)
        except MirrorError as e:
            _cut(call, response, e)
        except ConnectionError:
            log.debug("%s the client left", call.id)
            _close(call, response)  # nothing may follow a body that is not whole
        finally:
            call.served(entry, span, way.at)
        return response
    finally:
        reader.close()


async def _first_ready(reader: Reader, start: int, patience_s: float) -> int:
    """How far may be read from `start`. Raises: Busy, if that takes too long; MirrorError."""
    if isinstance(reader, Held):  # at once; a timer costs more than the answer
        return await reader.ready(start)
    try:
        async with asyncio.timeout(patience_s):
            return await reader.ready(start)
    except TimeoutError:
        raise Busy("this file is being fetched", _RETRY_AFTER_S) from None


def _read(reader: Reader, span: tuple[int, int]) -> bytes:
    start, stop = span
    body = os.pread(reader.file.fileno(), stop - start, start)
    if len(body) != stop - start:
        raise OSError("the file is shorter than it was when it was opened")
    return body


async def _stream(call: Call, reader: Reader, span: tuple[_Way, int], ready: int) -> None:
    """Raises: ConnectionError (the client left), StoreError (the disk failed), MirrorError."""
    way, stop = span
    while True:
        at = way.at
        ready = min(ready, stop)
        socket = await _quiet_socket(call.request)
        try:
            sent = await call.site.sender.send(socket, reader.file.fileno(), at, ready, way.reach)
        except ConnectionError:
            raise
        except OSError as e:
            if e.errno in _VANISHED:
                raise ConnectionResetError(f"the client vanished: {e}") from e
            raise StoreError(f"cannot read: {e}") from e
        metrics.SENT_BYTES.inc(sent)
        at = way.at
        if at < ready:
            raise StoreError("a blob is shorter than it was when it was opened")
        if at >= stop:
            return
        ready = await reader.ready(at)


async def _quiet_socket(request: web.BaseRequest) -> int:
    """The connection's descriptor, once aiohttp's own bytes (the head) are out of its buffer."""
    while True:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        if transport.get_write_buffer_size() == 0:
            break
        await asyncio.sleep(_DRAIN_S)
    return int(transport.get_extra_info("socket").fileno())


def _cut(call: Call, response: web.StreamResponse, error: MirrorError) -> None:
    """End the connection with FIN after what was sent."""
    log.warning("%s %s is cut short: %s", call.id, call.request.remote, error)
    _close(call, response)


def _close(call: Call, response: web.StreamResponse) -> None:
    response.force_close()
    if call.request.transport is not None:
        call.request.transport.close()
