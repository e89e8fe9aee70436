"""Reading a blob while it arrives, and never more of it than may be shown."""

from __future__ import annotations

import asyncio
from typing import BinaryIO, Protocol

from proxy.errors import DigestMismatch, MirrorError
from proxy.pins.lock import Entry

HOLD_BACK = 64 << 10  # bytes at the end that wait for the digest


class Reader(Protocol):
    """A blob that is held or arriving, as a file of which a growing part may be read."""

    @property
    def file(self) -> BinaryIO:
        """Valid after the first `ready`."""
        ...

    async def ready(self, at: int) -> int:
        """Waits until the byte at offset `at` may be shown; [at, what is returned) may be read.

        Raises: MirrorError, if that will not happen.
        """
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """A download in flight, here or in another process."""

    @property
    def entry(self) -> Entry: ...
    @property
    def error(self) -> MirrorError | None:
        """Why it ended without the blob; None while it runs, and when it is held."""
        ...

    @property
    def held(self) -> bool:
        """Verified, adopted, durable."""
        ...

    @property
    def attempt(self) -> int:
        """How often it began anew because the bytes were wrong, or may have been lost."""
        ...

    @property
    def wrong(self) -> int:
        """How often all bytes had come and were not the right ones."""
        ...

    @property
    def source(self) -> str:
        """The upstream that delivered last; "" until it is known."""
        ...

    @property
    def front(self) -> int:
        """Bytes from offset 0 on that are there without a gap."""
        ...

    @property
    def inode(self) -> int:
        """Of the file that grows; 0 while there is none."""
        ...

    @property
    def changed(self) -> asyncio.Event:
        """Set, and replaced by another one, when any of these changes."""
        ...

    async def run(self) -> None:
        """Download, verify, adopt. The outcome, whatever it is, reaches every reader."""
        ...

    def fail(self, error: MirrorError) -> None:
        """End without having run; readers hear why."""
        ...

    async def expose(self, limit: int) -> None:
        """Note that a reader is to be shown unverified bytes below `limit` as they come.

        Durable before there is a byte to show, or when it returns, for whoever asks.
        """
        ...

    def open(self) -> BinaryIO | None:
        """The file as it is now, for one reader; None while there is none."""
        ...


class Follower:
    """Reads what arrives as it grows, and never past what may be shown."""

    def __init__(self, fill: Source, stop: int) -> None:
        self._fill = fill
        # Only an answer that runs to the last byte may start before the verdict: a bounded one
        # could be completed with wrong bytes.
        self._early = stop == fill.entry.size and stop > HOLD_BACK
        self._attempt = -1  # whose bytes we were shown
        self._file: BinaryIO | None = None

    @property
    def file(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    async def ready(self, at: int) -> int:
        fill = self._fill
        while True:
            changed = fill.changed
            if self._attempt not in (-1, fill.attempt):
                raise DigestMismatch(fill.entry.path, fill.entry.digest, "other bytes")
            if fill.held and self._show():
                return fill.entry.size
            if fill.error is not None:
                raise fill.error
            if self._early:
                limit, attempt = min(fill.front, fill.entry.size - HOLD_BACK), fill.attempt
                await fill.expose(limit)  # at first of nothing: then nobody waits for it later
                same = attempt == fill.attempt and fill.error is None
                if limit > at and same and self._show():
                    return limit
            await changed.wait()

    def _show(self) -> bool:
        if self._file is None:
            self._file = self._fill.open()
        if self._file is None:  # between two attempts: there will be a change
            return False
        self._attempt = self._fill.attempt
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
