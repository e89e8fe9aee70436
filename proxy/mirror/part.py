"""A download in progress on disk, and what of it may be believed after a crash.

    <spool>/<hex>.part     the file at its full size, with gaps
    <spool>/<hex>.json     {"size": …, "have": [[start, stop], …], "exposed": n}

`have` names only bytes that were on disk when it was written. `exposed` says how far clients were
shown bytes whose digest is not known: 0 not at all, -1 the process died before it could say.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.errors import InvalidName, StoreError, StoreFull, disk_failed
from proxy.hub.names import Digest
from proxy.mirror import flock
from proxy.mirror.extents import Extents

if TYPE_CHECKING:
    from hashlib import _Hash as Hash  # it has no public name

UNKNOWN = -1
_HASH_PIECE = 256 << 10
_OURS = (".part", ".json", ".tmp")  # whatever else lies in the spool is of no use to the next one
SYNC_EVERY = 24 << 20  # bytes; at most this much and what is in flight is fetched twice


@dataclass(frozen=True, slots=True)
class Room:
    """How much of the disk may be used."""

    keep_free: int  # bytes
    # Two who look before either takes would both find the same room.
    _taking: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def check(self, folder: Path, need: int, what: str) -> None:
        """Raises: StoreFull, if `need` more bytes would leave less than `keep_free`."""
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        if need > 0 and free - need < self.keep_free:
            raise StoreFull(what, need, free, self.keep_free)

    def take(self, file: Path, fd: int, size: int) -> None:
        """Reserve the disk for an open file of `size` bytes. Raises: StoreFull, OSError."""
        with self._taking:
            need = size - os.fstat(fd).st_blocks * 512
            self.check(file.parent, need, file.name)
            try:
                if size:
                    os.posix_fallocate(fd, 0, size)
                os.ftruncate(fd, size)
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                status = os.fstatvfs(fd)
                free = status.f_bavail * status.f_frsize
                raise StoreFull(file.name, need, free, self.keep_free) from e


class Part:
    """One part file, open and locked. Its methods block: call them in a thread.

    They may run side by side, except `sync` and `keep`, and nothing may be written after `keep`,
    `forget`, `discard` or `close`.

    A sha256 runs behind the first gap: over what is written at its place, while that is in memory,
    and over what was there already by reading it.
    """

    def __init__(self, spool: Path, digest: Digest, size: int, room: Room) -> None:
        """Open or create. Raises: flock.Held (another process fills it), StoreError, StoreFull."""
        self.path = spool / f"{digest.hex}.part"
        self._sidecar = spool / f"{digest.hex}.json"
        self.size = size
        try:
            self._fd = self._open()
        except OSError as e:
            raise disk_failed(f"open {self.path}", e) from e
        self.inode = os.fstat(self._fd).st_ino
        self._marks = threading.Lock()  # over `have`: threads copy it while the loop adds to it
        self._saving = threading.Lock()  # over the sidecar and the file it is made from
        self._right = False  # the digest of all of it is
        self._lost = False  # the disk took bytes and may not have kept them
        self._sha256 = hashlib.sha256()
        self.hashed = 0  # bytes from offset 0 on
        self._hashing = threading.Lock()  # over these two
        recorded, self.exposed = _read_sidecar(self._sidecar, size)
        self.found_exposed = self.exposed  # by whoever filled it before
        try:
            if any(stop > os.fstat(self._fd).st_size for _, stop in recorded):
                recorded = Extents()
            self.have = Extents(recorded)  # what the file holds
            self._recorded = recorded  # what of it would survive a crash
            self._unsynced = 0
            room.take(self.path, self._fd, size)
            if self._sidecar.exists():  # else there is nothing to say before the first sync
                self._record()
        except BaseException as e:
            if not recorded.total:  # of no use to the next one; and what there is of it takes room
                with suppress(OSError):
                    self.path.unlink()
            os.close(self._fd)
            if isinstance(e, OSError):
                raise disk_failed(f"prepare {self.path}", e) from e
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
            raise disk_failed(f"write {self.path}", e) from e

    def hash_ahead(self, start: int, piece: bytes | bytearray | memoryview) -> Hash | None:
        """Hash a piece while it is being written, if everything before it is hashed.

        What is returned counts once `hash_written` is told that the piece is in the file.
        """
        with self._hashing:
            if start != self.hashed:
                return None
            ahead = self._sha256.copy()
        ahead.update(piece)
        return ahead

    def hash_written(self, start: int, stop: int, ahead: Hash) -> None:
        """[start, stop) was written, and is hashed."""
        with self._hashing:
            if start == self.hashed:
                self._sha256, self.hashed = ahead, stop

    def hash(self, stop: int) -> None:
        """Hash what the file holds up to `stop`. Raises: StoreError."""
        with self._hashing:
            while self.hashed < stop:
                piece = self.read(self.hashed, min(stop, self.hashed + _HASH_PIECE))
                if not piece:
                    raise StoreError(f"{self.path} is shorter than what was written to it")
                self._sha256.update(piece)
                self.hashed += len(piece)

    def digest(self) -> str:
        """Of what is hashed, as `sha256:<hex>`."""
        return f"sha256:{self._sha256.hexdigest()}"

    def wrote(self, start: int, stop: int) -> bool:
        """Note bytes that `write` wrote; True if it is time to `sync`."""
        with self._marks:
            self.have.add(start, stop)
            self._unsynced += stop - start
            return self._unsynced >= SYNC_EVERY

    def read(self, start: int, stop: int) -> bytes:
        try:
            return os.pread(self._fd, stop - start, start)
        except OSError as e:
            raise disk_failed(f"read {self.path}", e) from e

    def sync(self) -> None:
        """Put what is written on disk and then say so in the sidecar."""
        with self._marks:
            have = Extents(self.have)
            self._unsynced = 0
        if self._lost:
            raise StoreError(f"{self.path} could not be synced once and is not trusted any more")
        try:
            # An error is told once: the next call may succeed although the kernel has dropped the
            # pages (fsync(2), EIO).
            self._lost = True
            os.fdatasync(self._fd)
            self._lost = False
            with self._saving:
                self._recorded = have
                self._record()
        except OSError as e:
            raise disk_failed(f"sync {self.path}", e) from e

    def expose(self) -> None:
        """Remember, before it happens, that clients see bytes that are not verified."""
        with self._saving:
            if self._right:
                self.exposed = UNKNOWN  # here and not on disk: nothing needs to be remembered
            if self.exposed == UNKNOWN or self._fd < 0:
                return
            try:
                self._record(exposed=UNKNOWN)
                _sync_folder(self.path.parent)
                self.exposed = UNKNOWN  # last: whoever finds it need not wait
            except OSError as e:
                raise disk_failed(f"write {self._sidecar}", e) from e

    def vouch(self) -> None:
        """All of it is right, so clients were shown nothing else, and will not be.

        Whatever was shown of other bytes than these has to be remembered elsewhere before. This is
        for a crash after the part became a blob and before `forget`: nobody can tell then whether
        the blob came from this part.
        """
        with self._saving:
            self._right = True
            with suppress(OSError):  # then that crash takes its clients for misled: no harm
                # Whatever a power cut leaves says no less than this. A sync is for `have`.
                self._record(exposed=0, durable=self._recorded.total > 0)

    def descriptor(self) -> int:
        """A descriptor of its own for a reader; it outlives this part, and locks nothing."""
        try:
            return os.dup(self._fd)
        except OSError as e:  # no descriptor left
            raise StoreError(f"cannot open {self.path}: {e}") from e

    def keep(self, exposed: int) -> None:
        """Let go; what was written stays for the next one, and what was not takes no room."""
        self.sync()
        with self._saving:
            try:
                self._record(exposed)
                os.ftruncate(self._fd, max(stop for _, stop in self.have))
            except OSError as e:
                raise disk_failed(f"keep {self.path}", e) from e
            self._let_go()

    def forget(self) -> None:
        """The part became a blob: drop the sidecar and let go."""
        with self._saving:
            with suppress(OSError):  # then the next start drops it
                self._sidecar.unlink(missing_ok=True)
            self._let_go()

    def discard(self, *, remember: bool = False) -> None:
        """Throw the bytes away and let go; with `remember` the sidecar stays, for `exposed`."""
        with self._saving:
            if not remember:
                with suppress(OSError):
                    self._sidecar.unlink(missing_ok=True)
            with suppress(OSError):  # last: then somebody else may take this place
                self.path.unlink(missing_ok=True)
            self._let_go()

    def close(self) -> None:
        """Let go; what was synced stays for the next one."""
        with self._saving:
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            flock.unlock(self._fd)  # readers may hold copies of it for long
            os.close(self._fd)
            self._fd = -1

    def _record(self, exposed: int | None = None, *, durable: bool = True) -> None:
        shown = self.exposed if exposed is None else exposed
        temporary = self._sidecar.with_suffix(".tmp")
        content = {
            "size": self.size,
            "have": [list(one) for one in self._recorded],
            "exposed": shown,
        }
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            line = json.dumps(content).encode()
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, "only a part of it was written")
            if durable:
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
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Extents(), UNKNOWN


def drop_sidecars(spool: Path) -> None:
    """Sidecars without a part, once what they say of clients is written elsewhere."""
    with suppress(OSError):  # the next start tries again
        for sidecar in spool.glob("*.json"):
            if not sidecar.with_suffix(".part").exists():
                sidecar.unlink(missing_ok=True)


def leftovers(spool: Path) -> list[Digest]:
    """Clean the spool of half states and name the downloads that clients may hold bad bytes of.

    For the start of a server, before anything is filled. Parts that another process works on are
    left alone. Raises: StoreError.
    """
    exposed = []
    try:
        for temporary in spool.glob("*.tmp"):
            if not _busy(temporary.with_suffix(".part")):
                temporary.unlink(missing_ok=True)
        for sidecar in spool.glob("*.json"):
            part = sidecar.with_suffix(".part")
            if _busy(part):
                continue
            shown = _read_sidecar(sidecar, -1)[1]
            if shown == UNKNOWN or (shown > 0 and not part.exists()):
                with suppress(InvalidName):  # some other file than ours
                    exposed.append(Digest.of_hex(sidecar.stem))
            elif not part.exists():
                sidecar.unlink(missing_ok=True)
        for file in spool.iterdir():
            lone = file.suffix == ".part" and not file.with_suffix(".json").exists()
            if file.is_file() and (lone or file.suffix not in _OURS):
                flock.remove_idle(file)
    except OSError as e:
        raise disk_failed(f"clean {spool}", e) from e
    return exposed


def _busy(part: Path) -> bool:
    try:
        # O_NONBLOCK: a FIFO planted here must not hang us.
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not flock.lock(fd)
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
