"""A download in progress on disk, and what of it may be believed after a crash.

    <spool>/<hex>.part     the file at its full size, with gaps
    <spool>/<hex>.json     {"size": …, "have": [[start, stop], …], "exposed": n}

`have` names only bytes that were on disk when it was written. `exposed` says how far clients were
shown bytes before their digest was known: 0 not at all, -1 the process died before it could say.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import StoreError, StoreFull
from proxy.hub.names import Digest
from proxy.mirror import flock
from proxy.mirror.extents import Extents

UNKNOWN = -1
SYNC_EVERY = 32 << 20  # bytes; at most this much and what is in flight is fetched twice


@dataclass(frozen=True, slots=True)
class Room:
    """How much of the disk may be used."""

    keep_free: int  # bytes

    def check(self, folder: Path, need: int, what: str) -> None:
        """Raises: StoreFull, if `need` more bytes would leave less than `keep_free`."""
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        if need > 0 and free - need < self.keep_free:
            raise StoreFull(what, need, free, self.keep_free)


class Part:
    """One part file, open and locked. Its methods block: call them in a thread.

    Writes at different offsets may run side by side; `sync` must not run beside itself.
    """

    def __init__(self, spool: Path, digest: Digest, size: int, room: Room) -> None:
        """Open or create. Raises: flock.Held (another process fills it), StoreError, StoreFull."""
        self.path = spool / f"{digest.hex}.part"
        self._sidecar = spool / f"{digest.hex}.json"
        self.size = size
        try:
            self._fd = self._open()
        except OSError as e:
            raise StoreError(f"cannot open {self.path}: {e}") from e
        try:
            recorded, self.exposed = _read_sidecar(self._sidecar, size)
            status = os.fstat(self._fd)
            if status.st_size != size:
                recorded = Extents()
            self.have = Extents(recorded)  # what the file holds
            self._recorded = recorded  # what of it would survive a crash
            self._unsynced = 0
            room.check(spool, size - status.st_blocks * 512, self.path.name)
            if size:
                os.posix_fallocate(self._fd, 0, size)
            os.ftruncate(self._fd, size)
            self._record()
        except BaseException as e:
            os.close(self._fd)
            if isinstance(e, OSError):
                raise StoreError(f"cannot prepare {self.path}: {e}") from e
            raise

    def _open(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if not flock.lock(fd):
                os.close(fd)
                raise flock.Held(self.path)
            # The holder before us may have moved the file into the store; then this is not it.
            with suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == os.fstat(fd).st_ino:
                    return fd
            os.close(fd)

    def write(self, offset: int, piece: bytes | bytearray | memoryview) -> None:
        view = memoryview(piece)
        at = offset
        try:
            while view:
                written = os.pwrite(self._fd, view, at)
                at += written
                view = view[written:]
        except OSError as e:
            raise StoreError(f"cannot write {self.path}: {e}") from e

    def wrote(self, start: int, stop: int) -> bool:
        """Note bytes that `write` wrote; True if it is time to `sync`."""
        self.have.add(start, stop)
        self._unsynced += stop - start
        return self._unsynced >= SYNC_EVERY

    def read(self, start: int, stop: int) -> bytes:
        try:
            return os.pread(self._fd, stop - start, start)
        except OSError as e:
            raise StoreError(f"cannot read {self.path}: {e}") from e

    def sync(self, exposed: int | None = None) -> None:
        """Put what is written on disk and then say so in the sidecar."""
        have = Extents(self.have)
        self._unsynced = 0
        if exposed is not None:
            self.exposed = exposed
        try:
            os.fdatasync(self._fd)
            self._recorded = have
            self._record()
        except OSError as e:
            raise StoreError(f"cannot sync {self.path}: {e}") from e

    def expose(self) -> None:
        """Remember, before it happens, that clients see bytes that are not verified."""
        if self.exposed != UNKNOWN:
            self.exposed = UNKNOWN
            try:
                self._record()
            except OSError as e:
                raise StoreError(f"cannot write {self._sidecar}: {e}") from e

    def descriptor(self) -> int:
        """A descriptor of its own for a reader; it outlives this part."""
        return os.dup(self._fd)

    def forget(self) -> None:
        """The part became a blob: drop the sidecar and let go."""
        self._sidecar.unlink(missing_ok=True)
        self.close()

    def discard(self) -> None:
        """Throw the bytes away and let go."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._sidecar.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go; what was synced stays for the next one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _record(self) -> None:
        temporary = self._sidecar.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            content = {
                "size": self.size,
                "have": [list(one) for one in self._recorded],
                "exposed": self.exposed,
            }
            os.write(fd, json.dumps(content).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(self._sidecar)


def _read_sidecar(file: Path, size: int) -> tuple[Extents, int]:
    """What may be believed; nothing, if the sidecar is not there or makes no sense."""
    try:
        raw = json.loads(file.read_bytes())
        if raw["size"] != size:
            return Extents(), int(raw["exposed"])
        ranges = [(int(start), int(stop)) for start, stop in raw["have"]]
        if any(not 0 <= start < stop <= size for start, stop in ranges):
            return Extents(), int(raw["exposed"])
        return Extents(ranges), int(raw["exposed"])
    except FileNotFoundError:
        return Extents(), 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Extents(), UNKNOWN


def leftovers(spool: Path) -> list[Digest]:
    """Clean the spool of half states and name the downloads that clients may hold bad bytes of.

    For the start of a server, before anything is filled. Parts that another process works on are
    left alone. Raises: StoreError.
    """
    exposed = []
    try:
        for temporary in spool.glob("*.tmp"):
            temporary.unlink(missing_ok=True)
        for sidecar in spool.glob("*.json"):
            part = sidecar.with_suffix(".part")
            if _busy(part):
                continue
            shown = _read_sidecar(sidecar, -1)[1]
            if shown == UNKNOWN or (shown > 0 and not part.exists()):
                exposed.append(Digest.of_hex(sidecar.stem))
            if not part.exists():
                sidecar.unlink(missing_ok=True)
        for part in spool.glob("*.part"):
            if not part.with_suffix(".json").exists() and not _busy(part):
                part.unlink(missing_ok=True)
    except OSError as e:
        raise StoreError(f"cannot clean {spool}: {e}") from e
    return exposed


def _busy(part: Path) -> bool:
    try:
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not flock.lock(fd)
    finally:
        os.close(fd)
