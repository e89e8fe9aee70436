"""Git packs of locked snapshots, made once and kept on our disk until others need the room.

<data>/git-v1/<key>.pack         a pack; the key is made of the commits in it
              <key>.<pid>.part   one that a process of ours makes, which holds a lock on it

All of it is safe to delete any time. Two processes may make the same pack at once: wasteful, never
wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from proxy.errors import StoreError, StoreFull, TooLarge
from proxy.hub.gitpack import PackWriter
from proxy.hub.names import GitOid
from proxy.mirror import flock
from proxy.mirror.cache import BlobCache
from proxy.pins.gitrepo import GitCommit
from proxy.pins.lock import Entry
from proxy.store.base import BlobStore

log = logging.getLogger(__name__)

MAX_BYTES = 4 << 30  # of files that are not LFS; the Hub asks for LFS above 10 MB a file
_KEPT = 16  # packs
_AT_ONCE = 8  # missing files that are fetched side by side
_PIECE = 1 << 20


class GitPacks:
    """Makes a pack for a set of commits, or finds the one that was made."""

    def __init__(self, folder: Path, cache: BlobCache, store: BlobStore, keep_free: int) -> None:
        self._folder = folder
        self._cache = cache
        self._store = store
        self._keep_free = keep_free
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._checked: set[str] = set()  # keys of packs that are whole

    async def open(self, commits: Collection[GitCommit]) -> BinaryIO:
        """A pack with everything of these commits; the caller closes it.

        Raises: TooLarge, StoreError, and whatever kept a file from being fetched.
        """
        oids = sorted({commit.oid for commit in commits})
        key = hashlib.sha256("\n".join(oids).encode()).hexdigest()
        file = self._folder / f"{key}.pack"
        if key not in self._tasks and not await self._is_whole(key, file):
            # The task is ours: a client that leaves must not stop it.
            task = asyncio.create_task(self._make(key, file, commits), name=f"pack {key[:12]}")
            self._tasks[key] = task
            task.add_done_callback(lambda task: self._end(key, task))
        if key in self._tasks:
            await asyncio.shield(self._tasks[key])
        try:
            os.utime(file)
            return file.open("rb")
        except OSError as e:
            raise StoreError(f"cannot open {file}: {e}") from e

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _end(self, key: str, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not task.cancelled() and task.exception() is not None:
            log.warning("no git pack: %s", task.exception())

    async def _is_whole(self, key: str, file: Path) -> bool:
        """Whether the pack is there; one of an earlier process is read once."""
        if not file.exists():
            return False
        if key not in self._checked and await asyncio.to_thread(_adds_up, file):
            self._checked.add(key)
        return key in self._checked

    async def _make(self, key: str, file: Path, commits: Iterable[GitCommit]) -> None:
        made: dict[GitOid, tuple[str, bytes]] = {}
        files: dict[GitOid, Entry] = {}
        for commit in commits:
            made |= commit.made
            files |= commit.files
        size = sum(entry.size for entry in files.values())
        if size > MAX_BYTES:
            raise TooLarge("a git clone of this", size, MAX_BYTES)
        await self._hold(files.values())
        await asyncio.to_thread(self._write, file, made, files, size)
        self._checked.add(key)

    async def _hold(self, entries: Iterable[Entry]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def hold(entry: Entry) -> None:
            async with gate:
                await self._cache.hold(entry)

        try:
            async with asyncio.TaskGroup() as group:
                for entry in entries:
                    group.create_task(hold(entry))
        except ExceptionGroup as e:
            raise e.exceptions[0] from None

    def _write(
        self,
        file: Path,
        made: dict[GitOid, tuple[str, bytes]],
        files: dict[GitOid, Entry],
        size: int,
    ) -> None:
        part = file.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._make_room(file)
            free = shutil.disk_usage(self._folder).free
            if free - size < self._keep_free:
                raise StoreFull("a git pack", size, free, self._keep_free)
            with flock.create(part) as held, os.fdopen(os.dup(held.fileno()), "wb") as sink:
                pack = PackWriter(sink.write, len(made) + len(files))
                for kind, body in made.values():
                    pack.begin(kind, len(body))
                    pack.feed(body)
                    pack.end()
                for entry in files.values():
                    self._copy(entry, pack)
                pack.close()
                sink.flush()
                os.fsync(sink.fileno())
                part.replace(file)
        except OSError as e:
            raise StoreError(f"cannot write {file}: {e}") from e
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _copy(self, entry: Entry, pack: PackWriter) -> None:
        """Into the pack, hashed once more on the way: a pack is kept for long."""
        source = self._store.open(entry.digest)
        if source is None:
            raise StoreError(f"{entry.digest} vanished while it was packed")
        hasher = hashlib.sha256()
        pack.begin("blob", entry.size)
        with source:
            while piece := source.read(_PIECE):
                hasher.update(piece)
                pack.feed(piece)
        pack.end()
        if hasher.hexdigest() != entry.digest.hex:
            raise StoreError(f"{entry.digest} went bad on disk; hubpin verify puts it aside")

    def _make_room(self, file: Path) -> None:
        """Leave the packs that were used last, and no part that a crash left behind."""
        for part in self._folder.glob("*.part"):
            flock.remove_idle(part)
        packs = sorted(self._folder.glob("*.pack"), key=_used)
        for old in packs[: max(0, len(packs) - _KEPT + 1)]:
            if old != file:
                old.unlink(missing_ok=True)  # who reads it keeps it open
                log.info("dropped the git pack %s", old.name)


def _used(pack: Path) -> float:
    try:
        return pack.stat().st_mtime
    except FileNotFoundError:  # another process of ours dropped it
        return 0.0


def _adds_up(file: Path) -> bool:
    """Whether a pack ends in the checksum of its bytes."""
    try:
        with file.open("rb") as source:
            left = os.fstat(source.fileno()).st_size - 20
            digest = hashlib.sha1(usedforsecurity=False)
            while left > 0 and (piece := source.read(min(left, _PIECE))):
                digest.update(piece)
                left -= len(piece)
            return left == 0 and source.read() == digest.digest()
    except OSError as e:
        log.warning("the pack %s cannot be read and is made again: %s", file, e)
        return False
