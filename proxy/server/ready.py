"""Answers whose head was put together before: HEAD of a locked file, and small files.

aiohttp collects an answer's headers in a multidict, completes them and writes them out, every time
anew. The head of a locked file never changes but for its last lines, Date and X-Request-Id.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from proxy.pins.lock import Entry

# RFC 9110 §5.5: what would end a field, or begin another one.
_BREAK = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer with all of a file."""

    headers: Mapping[str, str]  # without Content-Length, and what is on every answer
    size: int  # bytes of the file
    block: bytes  # status line and headers of a 200, but for the last lines

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int, always: Mapping[str, str]) -> Head:
        """For `size` bytes; `always` is on every answer. Raises: ValueError (a line break)."""
        complete = {**headers, "Content-Length": str(size), **always}
        if any(_BREAK.search(text) for item in complete.items() for text in item):
            raise ValueError("a header holds a line break")
        lines = "".join(f"{name}: {text}\r\n" for name, text in complete.items())
        return cls(headers, size, f"HTTP/1.1 200 OK\r\n{lines}".encode())


def headers_of(entry: Entry, warning: str = "") -> dict[str, str]:
    """What every client takes from the head (huggingface_hub, file_download.py,
    get_hf_file_metadata)."""
    tag = f'"{entry.etag}"'
    headers = {
        "ETag": tag,
        "X-Linked-ETag": tag,
        "X-Linked-Size": str(entry.size),
        "X-Repo-Commit": entry.commit,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
        "Cache-Control": "no-cache",
    }
    return {**headers, "X-HF-Warning": warning} if warning else headers


def answer(
    request: web.BaseRequest, head: Head, request_id: str, body: bytes
) -> web.StreamResponse:
    """A 200 with all of a file; with `body` b"", what HEAD is told of it."""
    if request.version == HttpVersion11 and request.keep_alive:
        return Ready(head, request_id, body)
    # Another version of HTTP, or a word to say on the connection.
    headers = {**head.headers, "Content-Length": str(head.size)}
    return web.Response(headers=headers, body=body or None)


class Ready(web.StreamResponse):
    """A 200 that is sent in one piece."""

    def __init__(self, head: Head, request_id: str, body: bytes) -> None:
        """`body` is b"" for HEAD. The base class would make what this one does without."""
        date = _date(int(time.time()))
        self._bytes = b"%bDate: %b\r\nX-Request-Id: %b\r\n\r\n%b" % (
            head.block, date, request_id.encode(), body,
        )  # fmt: skip
        self._writer: AbstractStreamWriter | None = None

    @property
    def status(self) -> int:
        return 200

    @property
    def prepared(self) -> bool:
        """Always: nothing can be added to it."""
        return True

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._writer = request.writer
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Raises: ConnectionError (the client left)."""
        assert self._writer is not None
        # aiohttp keeps an answer until the next one on its connection; the bytes must not stay.
        taken, self._bytes = self._bytes, b""
        await self._writer.write(taken)
        del taken
        await self._writer.drain()


@lru_cache(maxsize=4)
def _date(second: int) -> bytes:
    """RFC 9110 §5.6.7."""
    return formatdate(second, usegmt=True).encode()
