"""Blobs as files on this machine's disk.

    <root>/blobs-v1/sha256/ab/abcd…    one file per blob, mode 0444, never modified
    <root>/quarantine/abcd….<n>        what was found under a digest and was something else

The modification time of a blob is a seal: adopting sets it to a moment in the years 2001 to 2010
that follows from the digest, and whoever writes to the file later breaks it. So an altered blob is
noticed by the fstat that opening needs anyway, with no index to keep and none to lose; a backup
that keeps times keeps the seals, and one that does not costs one more hashing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from io import FileIO
from itertools import count
from pathlib import Path
from typing import BinaryIO

from aiofiles.threadpool import wrap

from proxy.errors import BlobAltered, InvalidName, StoreError, disk_failed
from proxy.hub.names import Digest

_PIECE = 1 << 20
# O_NONBLOCK: a FIFO planted here must not hang us. O_NOFOLLOW: nor a link lead us out.
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SEAL_EPOCH = 1_000_000_000  # 2001-09-09, Unix seconds


class LocalStore:
    """A BlobStore in a directory that belongs to us alone."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs-v1" / "sha256"
        self._shelves = str(self._blobs)
        self._quarantine = root / "quarantine"
        self._lasting: set[Path] = set()  # folders whose own names are on disk

    async def size(self, digest: Digest) -> int | None:
        """Two system calls on the loop: cheaper than a thread hop."""
        try:
            status = os.lstat(self._file(digest))
        except FileNotFoundError:
            return None
        except OSError as e:
            raise disk_failed(f"stat {digest}", e) from e
        _check_seal(digest, status)
        return status.st_size

    def open(self, digest: Digest) -> BinaryIO | None:
        hexdigits = digest.hex
        try:
            # A Path costs as much as the call itself, and every small file comes by here.
            fd = os.open(f"{self._shelves}/{hexdigits[:2]}/{hexdigits}", _PLAIN)
        except FileNotFoundError:
            return None
        except OSError as e:
            if e.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket, planted
                raise BlobAltered(digest) from e
            raise disk_failed(f"open {digest}", e) from e
        try:
            _check_seal(digest, os.fstat(fd))
            return FileIO(fd, "rb")
        except BaseException:
            os.close(fd)
            raise

    def load(self, digest: Digest, size: int) -> bytes | None:
        """Four system calls on a bare descriptor; around it as many objects would cost as much."""
        hexdigits = digest.hex
        try:
            fd = os.open(f"{self._shelves}/{hexdigits[:2]}/{hexdigits}", _PLAIN)
            try:
                status = os.fstat(fd)
                _check_seal(digest, status)
                body = os.pread(fd, size, 0) if status.st_size == size else None
            finally:
                os.close(fd)
        except (BlobAltered, OSError):
            return None
        return body if body is not None and len(body) == size else None

    async def read(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[bytes]:
        try:
            with self._regular(digest) as plain:
                plain.seek(start)
                file = wrap(plain)
                left = (1 << 62) if stop is None else stop - start
                while left > 0 and (piece := await file.read(min(_PIECE, left))):
                    left -= len(piece)
                    yield piece
        except OSError as e:
            raise disk_failed(f"read {digest}", e) from e

    async def adopt(self, digest: Digest, file: Path) -> None:
        try:
            await asyncio.to_thread(self._adopt, digest, file)
        except OSError as e:
            raise disk_failed(f"store {digest}", e) from e

    async def confirm(self, digest: Digest) -> None:
        def seal() -> None:
            with self._regular(digest) as file:
                os.fchmod(file.fileno(), 0o444)
                _seal(digest, file.fileno())

        try:
            await asyncio.to_thread(seal)
        except OSError as e:
            raise disk_failed(f"confirm {digest}", e) from e

    async def quarantine(self, digest: Digest) -> None:
        try:
            await asyncio.to_thread(self._put_aside, digest)
        except OSError as e:
            raise disk_failed(f"quarantine {digest}", e) from e

    async def delete(self, digest: Digest) -> None:
        try:
            self._file(digest).unlink(missing_ok=True)
        except IsADirectoryError:  # planted
            await self.quarantine(digest)
        except OSError as e:
            raise disk_failed(f"delete {digest}", e) from e

    async def list(self) -> AsyncIterator[tuple[Digest, int]]:
        for shelf in await asyncio.to_thread(_names, self._blobs):
            for name in await asyncio.to_thread(_names, self._blobs / shelf):
                if not name.startswith(shelf):
                    continue  # nothing of ours
                try:
                    digest = Digest.of_hex(name)
                    size = os.lstat(self._blobs / shelf / name).st_size
                except (FileNotFoundError, InvalidName):
                    continue  # deleted meanwhile; nothing of ours
                except OSError as e:
                    raise disk_failed(f"stat {self._blobs / shelf / name}", e) from e
                yield digest, size

    def _file(self, digest: Digest) -> Path:
        return self._blobs / digest.hex[:2] / digest.hex

    def _regular(self, digest: Digest) -> BinaryIO:
        """The file under this digest, sealed or not. Raises: OSError, if it is no plain file."""
        fd = os.open(self._file(digest), _PLAIN)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file")
        return os.fdopen(fd, "rb", buffering=0)

    def _adopt(self, digest: Digest, file: Path) -> None:
        """The order is the promise: bytes are on disk before their name is."""
        target = self._file(digest)
        _seal(digest, file)
        # An error of fsync is final: the kernel may have dropped the pages (fsync(2), EIO), so
        # nobody tries again with the same file.
        try:
            _sync(file)
        except OSError as e:
            raise StoreError(f"cannot sync {file}: {e}") from e
        for folder in (self._blobs.parent, self._blobs, target.parent):
            # One that is there already may have been made just before a crash, or in this very
            # moment by another thread.
            if folder not in self._lasting or not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync(folder.parent)
                self._lasting.add(folder)
        if target.is_dir():  # planted: rename() cannot replace it
            self._put_aside(digest)
        file.rename(target)
        target.chmod(0o444)  # not before: after a crash the part is written on
        _sync(target.parent)

    def _put_aside(self, digest: Digest) -> None:
        self._quarantine.mkdir(mode=0o700, exist_ok=True)
        taken = {path.name for path in self._quarantine.glob(f"{digest.hex}.*")}
        free = next(n for n in count() if f"{digest.hex}.{n}" not in taken)
        with suppress(FileNotFoundError):
            self._file(digest).rename(self._quarantine / f"{digest.hex}.{free}")


def _seal_time(digest: Digest) -> int:
    """Unix seconds; even, because FAT keeps two-second times."""
    return _SEAL_EPOCH + (int(digest.hex[:7], 16) & ~1)


def _seal(digest: Digest, file: Path | int) -> None:
    moment = _seal_time(digest)
    os.utime(file, (moment, moment))


def _check_seal(digest: Digest, status: os.stat_result) -> None:
    sealed = stat.S_ISREG(status.st_mode) and status.st_mtime_ns == _seal_time(digest) * 10**9
    if not sealed:
        raise BlobAltered(digest)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(
            name for name in os.listdir(folder) if all(c in "0123456789abcdef" for c in name)
        )
    except FileNotFoundError:
        return []
    except OSError as e:
        raise disk_failed(f"list {folder}", e) from e
