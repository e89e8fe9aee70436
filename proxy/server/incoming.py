"""The body of a request: asked for where the client waits for that, read in time, made sense of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.errors import InvalidName

BODY_S = 10.0
# What readers of Python and aiohttp raise for bytes that are not what the head says: JSON, forms of
# unknown charsets and encodings, numbers without end, broken gzip.
_NONSENSE = (
    ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, HttpProcessingError,
    web.RequestPayloadError,
)  # fmt: skip


@asynccontextmanager
async def reading(request: web.BaseRequest, kind: str, name: str, what: str) -> AsyncIterator[None]:
    """A block that reads the body of a request and takes it to pieces.

    Raises: InvalidName, if it does not come in time or makes no sense; `what` says of it that.
    """
    try:
        async with asyncio.timeout(BODY_S):
            await _invite(request)
            yield
    except TimeoutError as e:
        raise InvalidName(kind, name, "its body did not arrive in time") from e
    except _NONSENSE as e:
        raise InvalidName(kind, name, f"{what}: {' '.join(str(e).split())}") from e


async def _invite(request: web.BaseRequest) -> None:
    """RFC 9110 §10.1.1. aiohttp does this in its router, which we do without."""
    expected = request.headers.get("Expect", "").strip().lower()
    if expected == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer, which aiohttp takes for begun otherwise
