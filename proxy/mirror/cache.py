"""The store in front of the upstream; at most one download per digest at a time."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from proxy.errors import BlobAltered, IntegrityError, StoreError, WindowClosed
from proxy.hub.names import Digest
from proxy.mirror.fill import Fill, Workshop, wrong_size
from proxy.mirror.follower import Follower, Reader, Source
from proxy.mirror.misled import Misled
from proxy.mirror.part import Room, drop_sidecars, leftovers
from proxy.mirror.transfer import Extra, Tuning
from proxy.pins.lock import Entry
from proxy.store.base import BlobStore
from proxy.store.recency import Recency
from proxy.telemetry import metrics
from proxy.telemetry.audit import Audit, Fetched, Wrong
from proxy.upstream.base import Upstream

log = logging.getLogger(__name__)

_DISK_THREADS = 6
_HASH_THREADS = 4
_FILLS = 32  # downloads at once; the rest wait their turn
# After this many seconds a blob whose upstreams all sent wrong bytes is asked for again.
_REST_AFTER_BAD_S = 10.0
# Errors of reading that say nothing about the blob.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.ETIMEDOUT})


class Held:
    """A reader of a blob that we hold."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self._size = size

    async def ready(self, at: int) -> int:  # all of it is
        return self._size

    def close(self) -> None:
        self.file.close()


class BlobCache:
    """Follows what runs, serves what is held, starts what is neither."""

    def __init__(  # noqa: PLR0913  # what a process has one of
        self,
        store: BlobStore,
        upstream: Upstream,
        *,
        data: Path,
        recency: Recency,
        tuning: Tuning | None = None,
        audit: Audit | None = None,
    ) -> None:
        tuning = tuning or Tuning()
        self._audit = audit or Audit(None)
        self.misled = Misled(data / "misled")
        self.spool = data / "spool"
        self._store = store
        self._recency = recency
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk")
        self._hashing = ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="hash")
        self._shop = Workshop(
            store=store,
            upstream=upstream,
            spool=self.spool,
            misled=self.misled,
            room=Room(tuning.keep_free),
            disk=self._disk,
            hashing=self._hashing,
            extra=Extra(max(8, upstream.connections - 1)),
            tuning=tuning,
            gate=asyncio.Semaphore(_FILLS),
        )
        # May be replaced before the first download, to have downloads done elsewhere.
        self.make_fill: Callable[[Entry], Source] = lambda entry: Fill(entry, self._shop)
        # What is done when one ends, after so many seconds. May be replaced as well.
        self.report: Callable[[Source, float], None] = self._report
        self._fills: dict[Digest, Source] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._checks: dict[Digest, asyncio.Task[bool]] = {}
        self._bad: dict[Digest, tuple[IntegrityError, float]] = {}

    def recover(self) -> None:
        """Clean the spool after a crash. Blocking; for the start, before anything is filled."""
        for digest in leftovers(self.spool):
            # The lock may not name it any more, so its size is unknown: all of it is suspect.
            self.misled.add(digest, 1 << 62)
        drop_sidecars(self.spool)

    @property
    def fills(self) -> tuple[Source, ...]:
        """The downloads in flight."""
        return tuple(self._fills.values())

    async def open(self, entry: Entry, stop: int) -> Reader:
        """A reader of the entry's bytes up to `stop`; the caller closes it.

        Raises: StoreError, IntegrityError (every source sent wrong bytes a moment ago).
        """
        fill = self._fills.get(entry.digest)
        if fill is None:
            file = await self._open_held(entry)
            if file is not None:
                self._recency.touch(entry.digest)
                return Held(file, entry.size)
            # A fill that ended during that await is run again. Wasteful, never wrong.
            fill = self.start(entry)
        return Follower(fill, stop)

    def load(self, entry: Entry) -> bytes | None:
        """All bytes of a small entry, if they are held and nothing is wrong; else `open` it."""
        if entry.digest in self._fills:
            return None
        body = self._store.load(entry.digest, entry.size)
        if body is not None:
            self._recency.touch(entry.digest)
        return body

    async def held(self, entry: Entry) -> bool:
        """Whether the blob is here; an altered one counts once it was hashed and found right.

        Raises: StoreError, IntegrityError (it is right, and the lock says another size).
        """
        try:
            size = await self._store.size(entry.digest)
        except BlobAltered:
            if not await self.check(entry.digest):
                return False
            size = await self._store.size(entry.digest)
        if size is None or size == entry.size:
            return size is not None
        if await self.check(entry.digest):
            raise wrong_size(entry, size)
        return False

    async def hold(self, entry: Entry, progress: Callable[[int], None] | None = None) -> bool:
        """Returns once the blob is held; False if it was already.

        `progress` is told how many bytes from the start are there. Raises: MirrorError.
        """
        fill = self._fills.get(entry.digest)
        if fill is None:
            if await self.held(entry):
                return False
            fill = self.start(entry)
        while not fill.held:
            if fill.error is not None:
                raise fill.error
            if progress is not None:
                progress(fill.front)
            await fill.changed.wait()
        return True

    async def check(self, digest: Digest, *, rate: float = 0.0) -> bool:
        """Hash what is held, at most at `rate` bytes per second if that is given.

        Wrong bytes are put into quarantine and False is returned, as for bytes that are not held
        at all. Raises: StoreError.
        """
        task = self._checks.get(digest)
        if task is None:
            task = asyncio.create_task(self._check(digest, rate), name=f"check {digest}")
            self._checks[digest] = task
            task.add_done_callback(lambda _: self._checks.pop(digest, None))
        return await asyncio.shield(task)

    def distrust(self, digest: Digest) -> None:
        """Reading a held blob failed: hash it in the background, and put it aside if it is bad."""
        task = asyncio.create_task(self._check_quietly(digest), name=f"distrust {digest}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check_quietly(self, digest: Digest) -> None:
        try:
            await self.check(digest)
        except StoreError as e:
            log.error("%s cannot be checked: %s", digest, e)

    async def close(self) -> None:
        """Stop every download; what came so far is kept for the next start."""
        for task in (*self._tasks, *self._checks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._checks.values(), return_exceptions=True)
        for fill in self._fills.values():  # their tasks were cancelled before they ever ran
            fill.fail(StoreError("the download was stopped"))
        self._disk.shutdown()
        self._hashing.shutdown()

    async def _open_held(self, entry: Entry) -> BinaryIO | None:
        try:
            file = self._store.open(entry.digest)
        except BlobAltered:
            log.warning("%s was altered on disk; it is hashed before it is served", entry.digest)
            held = await self.check(entry.digest)
            file = self._store.open(entry.digest) if held else None
        if file is None or (size := os.fstat(file.fileno()).st_size) == entry.size:
            return file
        file.close()
        if await self.check(entry.digest):
            raise wrong_size(entry, size)  # the blob is right, so the lock is not
        return None

    async def _is_altered(self, digest: Digest) -> bool:
        try:
            await self._store.size(digest)
        except BlobAltered:
            return True
        return False

    async def _check(self, digest: Digest, rate: float) -> bool:
        altered = await self._is_altered(digest)
        hasher = hashlib.sha256()
        loop = asyncio.get_running_loop()
        unreadable = False
        try:
            async with aclosing(self._store.read(digest)) as pieces:
                async for piece in pieces:
                    await loop.run_in_executor(self._hashing, hasher.update, piece)
                    if rate:
                        await asyncio.sleep(len(piece) / rate)
        except StoreError as e:
            if isinstance(e.__cause__, FileNotFoundError):
                return False
            if isinstance(e.__cause__, OSError) and e.__cause__.errno in _PASSING:
                raise
            log.error("%s cannot be read and is put aside: %s", digest, e)
            unreadable = True
        if not unreadable and Digest.of_hex(hasher.hexdigest()) == digest:
            await self._store.confirm(digest)
            return True
        if altered and not await self._is_altered(digest):
            # Another process was faster: what lies here now is not what was read, or nothing is.
            return await self._check(digest, rate)
        log.error("%s went bad on disk; it is in quarantine/", digest)
        metrics.INTEGRITY_FAILURES.labels("disk").inc()
        self._audit.note(Wrong("disk", "", digest, "", times=1, healed=False))
        await self._store.quarantine(digest)
        return False

    def start(self, entry: Entry) -> Source:
        """The download of a blob: the one that runs, else a new one.

        Raises: IntegrityError (every source sent wrong bytes a moment ago).
        """
        running = self._fills.get(entry.digest)
        if running is not None:
            return running
        error, until = self._bad.get(entry.digest, (None, 0.0))
        if error is not None:
            if time.monotonic() < until:
                raise error.with_traceback(None)  # else it grows with every client
            del self._bad[entry.digest]
        fill = self._fills[entry.digest] = self.make_fill(entry)
        # The task is ours, not the request's: a client that leaves must not stop it.
        task = asyncio.create_task(self._run(fill), name=f"fill {entry.path}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return fill

    async def _run(self, fill: Source) -> None:
        entry = fill.entry
        began = time.monotonic()
        metrics.FILLS_RUNNING.inc()
        try:
            await fill.run()
        finally:
            metrics.FILLS_RUNNING.dec()
            if self._fills.get(entry.digest) is fill:
                del self._fills[entry.digest]
            self.report(fill, time.monotonic() - began)

    def _report(self, fill: Source, seconds: float) -> None:
        entry, error = fill.entry, fill.error
        outcome = "ok" if error is None else type(error).__name__
        metrics.FILLS.labels(outcome).inc()
        if error is None:
            metrics.FILLED_BYTES.inc(entry.size)
            what = f"{entry.repo}/{entry.path}"
            log.info("fetched %s, %d bytes in %.1f s", what, entry.size, seconds)
            self._audit.note(
                Fetched(
                    entry.repo, entry.commit, entry.path, entry.digest, entry.size,
                    source=fill.source, seconds=round(seconds, 3),
                )
            )  # fmt: skip
        else:
            level = logging.INFO if isinstance(error, WindowClosed) else logging.WARNING
            log.log(level, "could not fetch %s/%s: %s", entry.repo, entry.path, error)
        if fill.wrong:
            metrics.INTEGRITY_FAILURES.labels("upstream").inc(fill.wrong)
            name = f"{entry.repo}/{entry.path}"
            self._audit.note(
                Wrong(
                    "upstream", fill.source, entry.digest, name,
                    times=fill.wrong, healed=error is None,
                )
            )  # fmt: skip
        if isinstance(error, IntegrityError):
            self._bad[entry.digest] = (error, time.monotonic() + _REST_AFTER_BAD_S)
