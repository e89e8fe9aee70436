"""Sending the bytes of a reader: by sendfile, as they become ready."""

from __future__ import annotations

import asyncio
import errno
import logging
import os

from aiohttp import web

from proxy.errors import Busy, MirrorError, StoreError
from proxy.mirror.fill import Reader
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

# The Hub's client gives up on a request without a byte for ten seconds (huggingface_hub,
# constants.py, HF_HUB_DOWNLOAD_TIMEOUT); before that we ask it to come again.
FIRST_BYTE_S = 8.0
_RETRY_AFTER_S = 5
_SMALL = 256 << 10  # one pread and one write
_PIECE = 2 << 20  # per sendfile: nobody holds the loop longer than others


async def first_ready(reader: Reader, start: int) -> int:
    """How far may be read from `start`. Raises: Busy, if that takes too long; MirrorError."""
    try:
        async with asyncio.timeout(FIRST_BYTE_S):
            return await reader.ready(start)
    except TimeoutError:
        raise Busy("this file is being fetched", _RETRY_AFTER_S) from None


async def send(
    request: web.BaseRequest, response: web.StreamResponse, reader: Reader, span: tuple[int, int]
) -> bool:
    """Send head and bytes [start, stop); False if the body was cut short.

    Errors before the first byte come out: MirrorError. Later the only honest signal left is a body
    that is shorter than it said, ended by FIN: after a reset the Hub's client does not even retry.
    """
    start, stop = span
    ready = await first_ready(reader, start)
    if stop - start <= _SMALL and ready >= stop:
        return await _send_small(request, response, reader, span)
    await response.prepare(request)
    at = start
    try:
        while at < stop:
            ready = min(ready, stop)
            await _send_file(request, reader, at, ready)
            metrics.SENT_BYTES.inc(ready - at)
            at = ready
            if at < stop:
                ready = await reader.ready(at)
    except MirrorError as e:
        log.warning("cut an answer at byte %d of %d: %s", at, stop, e)
    except ConnectionError:
        return False  # the client left
    if at < stop:
        cut(request, response)
        return False
    await response.write_eof()
    return True


async def _send_small(
    request: web.BaseRequest, response: web.StreamResponse, reader: Reader, span: tuple[int, int]
) -> bool:
    start, stop = span
    try:
        body = os.pread(reader.file.fileno(), stop - start, start)
    except OSError as e:
        raise StoreError(f"cannot read: {e}") from e
    if len(body) != stop - start:
        raise StoreError("a blob is shorter than it was when it was opened")
    await response.prepare(request)
    await response.write(body)
    await response.write_eof()
    metrics.SENT_BYTES.inc(len(body))
    return True


async def _send_file(request: web.BaseRequest, reader: Reader, at: int, stop: int) -> None:
    loop = asyncio.get_running_loop()
    while at < stop:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        count = min(_PIECE, stop - at)
        try:
            sent = await loop.sendfile(transport, reader.file, at, count)
        except OSError as e:
            if isinstance(e, ConnectionError) or e.errno in (errno.EPIPE, errno.ECONNRESET):
                raise ConnectionResetError("the client left") from e
            raise StoreError(f"cannot read: {e}") from e
        except RuntimeError as e:  # asyncio: "Transport is closing"
            raise ConnectionResetError("the client left") from e
        if sent < count:
            raise StoreError("a blob is shorter than it was when it was opened")
        at += sent


def cut(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End the connection with FIN after what was sent."""
    response.force_close()
    if request.transport is not None:
        request.transport.close()
