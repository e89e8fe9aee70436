"""Files that are not LFS: nobody publishes their sha256, so their bytes have to be read once.

What vouches for the bytes is the git blob id in the commit's tree.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from pathlib import Path

from proxy.errors import (
    DigestMismatch,
    RangeIgnored,
    UpstreamOffline,
    UpstreamUnavailable,
    disk_failed,
)
from proxy.hub.gitoid import BlobHasher
from proxy.hub.names import Digest
from proxy.hub.wire import TreeEntry
from proxy.mirror import flock
from proxy.tasks.resolve import Pause, wait_s
from proxy.upstream.base import Piece, Upstream

SUFFIX = ".small"  # of such a download in the spool
TRIES = 5  # in a row without one more byte
WRONG_TRIES = 3  # how often the bytes may be wrong before we believe that they are


class _Part:
    """The bytes so far, on disk, and their hashes. Locked, so that gc leaves it alone."""

    def __init__(self, file: Path, size: int) -> None:
        self._out = flock.create(file)
        self._size = size
        try:
            self.restart()
        except BaseException:
            self._out.close()
            raise

    def restart(self) -> None:
        self._out.truncate(0)
        self._out.seek(0)
        self.written = 0
        self.sha256 = hashlib.sha256()
        self.git = BlobHasher(self._size)

    def append(self, piece: Piece) -> None:
        at = 0
        while at < len(piece):
            at += self._out.write(piece[at:])
        self.written += len(piece)
        self.sha256.update(piece)
        self.git.update(bytes(piece))

    def close(self) -> None:
        self._out.close()


async def fetch(upstream: Upstream, file: TreeEntry, to: Path, *, pause: Pause) -> Digest:
    """Download a file that is not LFS to `to`, which is not there yet; the result is its digest.

    A cut download goes on where it stopped. Raises: UpstreamError, DigestMismatch, StoreError.
    """
    try:
        part = await asyncio.to_thread(_Part, to, file.size)
        try:
            for _ in range(WRONG_TRIES):
                await _complete(upstream, file, part, pause)
                got = part.git.oid()
                if got == file.git_oid:
                    return Digest.of_hex(part.sha256.hexdigest())
                upstream.blame(file)
                await asyncio.to_thread(part.restart)
        finally:
            part.close()
    except OSError as e:
        raise disk_failed(f"write {to}", e) from e
    raise DigestMismatch(f"{file.repo} {file.path}", f"git:{file.git_oid}", f"git:{got}")


async def _complete(upstream: Upstream, file: TreeEntry, part: _Part, pause: Pause) -> None:
    failures, restarts = 0, 0
    while part.written < file.size:
        before = part.written
        error = UpstreamUnavailable(upstream.name, f"{file.path} ended {file.size - before} early")
        try:
            async with aclosing(upstream.fetch(file, part.written, file.size)) as pieces:
                async for piece in pieces:
                    wanted = piece[: file.size - part.written]
                    await asyncio.to_thread(part.append, wanted)
        except RangeIgnored:
            await asyncio.to_thread(part.restart)
            restarts += 1
            if restarts == TRIES:
                raise
            continue
        except UpstreamOffline:
            raise
        except UpstreamUnavailable as e:
            error = e
        if part.written == file.size:
            return
        failures = 0 if part.written > before else failures + 1
        if failures == TRIES:
            raise error
        await pause(wait_s(error, failures))
