"""One download in flight: one writer, many readers, verified before anyone can finish."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from proxy.errors import DigestMismatch, MirrorError, StoreError, StoreFull, disk_failed
from proxy.mirror import flock
from proxy.mirror.misled import Misled
from proxy.mirror.part import UNKNOWN, Part, Room
from proxy.mirror.transfer import Extra, Transfer, Tuning
from proxy.pins.lock import Entry
from proxy.store.base import BlobStore
from proxy.upstream.base import Upstream

log = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPTS = 3  # downloads with a wrong digest before we give up
_HASH_RUN = 8 << 20  # bytes hashed per thread hop
_POLL_S = 0.2  # how often we look whether another process is done


@dataclass(slots=True)
class Workshop:
    """What all fills of a process share."""

    store: BlobStore
    upstream: Upstream
    spool: Path
    misled: Misled
    room: Room
    disk: Executor  # writes and syncs
    hashing: Executor  # long runs of CPU work that let go of the GIL
    extra: Extra
    tuning: Tuning
    gate: asyncio.Semaphore  # how many fills run at once

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Runs in a thread. Whoever is cancelled meanwhile waits for its end: nobody may close a
        file, or write the same place anew, while a thread still writes."""
        return await _in(self.disk, work)

    async def write(self, work: Callable[[], None]) -> None:
        await _in(self.disk, work)

    async def hash_run(self, work: Callable[[], None]) -> None:
        await _in(self.hashing, work)


async def _in(executor: Executor, work: Callable[[], T]) -> T:
    # Not asyncio.shield: each future on the way is a turn of the loop, and there are thousands.
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(ended.set)

    running = executor.submit(work)
    running.add_done_callback(tell)
    try:
        await ended.wait()
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await ended.wait()
        raise
    return running.result()


class Fill:
    """Downloads one entry into a part file while readers read that file as it grows.

    The last bytes are held back until the digest is right: a reader can be cut short, but can never
    finish a body that failed verification. A reader that was shown bytes of an attempt that failed
    is cut; one that was shown nothing yet waits for the next attempt.
    """

    def __init__(self, entry: Entry, workshop: Workshop) -> None:
        self.entry = entry
        self.error: MirrorError | None = None
        self.held = False  # verified, adopted, durable
        self.attempt = 0
        self.source = ""
        self.exposed = 0  # how far readers were shown bytes before they were verified
        self._watched = False  # somebody is to be shown bytes as they come
        self._shop = workshop
        self._part: Part | None = None
        self.changed = asyncio.Event()  # replaced by the next one whenever it is set

    @property
    def wrong(self) -> int:
        return self.attempt  # each attempt but the last one ended with wrong bytes

    @property
    def inode(self) -> int:
        """Of the part file; 0 while there is none."""
        return self._part.inode if self._part is not None else 0

    @property
    def front(self) -> int:
        """Bytes from offset 0 on that are there without a gap, and may be shown."""
        if self.held:
            return self.entry.size
        part = self._part
        if part is None or (self._watched and part.exposed != UNKNOWN):  # it is being noted
            return 0
        return part.have.front

    async def run(self) -> None:
        """Download, verify, adopt. The outcome, whatever it is, reaches every reader."""
        error: MirrorError | None = StoreError("the download was stopped")
        try:
            await self._run()
            error = None
        except MirrorError as e:
            error = e
        except OSError as e:
            error = disk_failed(f"write {self.entry.path}", e)
        finally:  # also when cancelled, or broken by a bug: nobody may wait for ever
            part, self._part = self._part, None
            try:
                if part is not None:
                    await self._put_down(part, error)
            finally:
                self.error = error
                self.held = error is None
                self._fire()

    def fail(self, error: MirrorError) -> None:
        """End without having run; readers hear why."""
        self.error = error
        self._fire()

    # --- the download -----------------------------------------------------------------------------

    async def _run(self) -> None:
        async with self._shop.gate:
            await self._fetch()

    async def _fetch(self) -> None:
        while True:
            part = await self._open()
            if part is None:
                return  # another process brought it
            digest = await self._download(part)
            self.source = self._shop.upstream.source(self.entry)
            if digest == self.entry.digest:
                await self._adopt(part)
                return
            self._shop.upstream.blame(self.entry)
            if self.exposed:
                self._shop.misled.add(self.entry.digest, self.exposed)
            # No await since the verdict: nobody is shown more of this attempt than was noted.
            self._part, self.exposed = None, 0
            self.attempt += 1
            self._fire()
            await self._shop.on_disk(part.discard)
            error = DigestMismatch(
                f"{self.entry.repo}/{self.entry.path}", self.entry.digest, digest
            )
            log.error("wrong bytes, attempt %d of %d: %s", self.attempt, ATTEMPTS, error)
            if self.attempt >= ATTEMPTS:
                raise error

    async def _open(self) -> Part | None:
        """The part to fill; None if another process filled it while we waited for its lock."""
        entry, shop = self.entry, self._shop
        while True:
            with suppress(flock.Held):
                part = await shop.on_disk(self._take_part)
                break
            await asyncio.sleep(_POLL_S)
            if await self._is_stored():
                return None
        if await self._is_stored():
            return None  # it was adopted between our look into the store and our lock
        # What readers of an earlier process were shown must be what we verify, or be remembered.
        asked, found = self.exposed, part.found_exposed
        if found == UNKNOWN or found > part.have.front:
            self.exposed = entry.size
            shop.misled.add(entry.digest, entry.size)
            self.exposed = asked
        else:
            self.exposed = max(asked, found)
        return part

    def _take_part(self) -> Part:
        """In a thread; kept here at once, because the one who waits may be cancelled."""
        shop = self._shop
        self._part = Part(shop.spool, self.entry.digest, self.entry.size, shop.room)
        return self._part

    async def _is_stored(self) -> bool:
        size = await self._shop.store.size(self.entry.digest)
        if size is not None and size != self.entry.size:
            raise wrong_size(self.entry, size)
        return size is not None

    async def _download(self, part: Part) -> str:
        """Bring what is missing and return the digest of the whole."""
        shop = self._shop
        transfer = asyncio.create_task(
            Transfer(
                self.entry,
                part,
                shop.upstream,
                shop.write,
                shop.hashing,
                self._fire,
                shop.extra,
                shop.tuning,
            ).run(),
            name=f"transfer {self.entry.path}",
        )
        transfer.add_done_callback(lambda _: self._fire())
        # While the upstream is asked: both take milliseconds, and somebody waits.
        noting = asyncio.create_task(self.expose(0)) if self._watched else None
        try:
            digest = await self._hash(part, transfer, noting)
            await transfer
            if noting is not None:
                await noting
            return digest
        finally:
            transfer.cancel()
            await asyncio.gather(transfer, *([noting] if noting else []), return_exceptions=True)

    async def _hash(
        self, part: Part, transfer: asyncio.Task[None], noting: asyncio.Task[None] | None
    ) -> str:
        """Hash in order what the transfer did not hash as it wrote it, from the page cache."""
        while part.hashed < self.entry.size:
            changed = self.changed
            front = part.have.front
            if noting is not None and noting.done():
                await noting  # raises, if it failed: then nobody may be shown anything
            if front > part.hashed:
                await self._shop.hash_run(partial(part.hash, min(front, part.hashed + _HASH_RUN)))
            elif transfer.done():
                await transfer  # raises what stopped it
                raise StoreError(f"the download of {self.entry.path} left a gap")
            else:
                await changed.wait()
        return part.digest()

    async def _adopt(self, part: Part) -> None:
        """Whoever is cancelled meanwhile waits for its end: what is half a blob is no part."""
        adopting = asyncio.ensure_future(self._adopt_whole(part))
        try:
            await asyncio.shield(adopting)
        except asyncio.CancelledError:
            while not adopting.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([adopting])
            if not adopting.cancelled():
                adopting.exception()  # is known by its traces: the part is kept, or gone
            raise

    async def _adopt_whole(self, part: Part) -> None:
        # What was shown of wrong attempts, or is of unknown worth, is in `misled` by now.
        if part.exposed:
            await self._shop.on_disk(part.vouch)
        try:
            await self._shop.store.adopt(self.entry.digest, part.path)
        except StoreFull:
            raise  # the part is good, and waits for room
        except StoreError:
            # Its pages may be lost although they read well (fsync(2), EIO): never trusted again.
            self._part = None
            await self._shop.on_disk(part.discard)
            raise
        self._part = None
        await self._shop.on_disk(part.forget)

    async def _put_down(self, part: Part, error: MirrorError | None) -> None:
        """Keep what is good for the next one."""
        if error is not None and part.have.total:
            exposed = min(self.exposed, part.have.front)  # more cannot have been shown
            try:
                await self._shop.on_disk(lambda: part.keep(exposed))
            except StoreFull:  # what its sidecar said before stays true
                await self._shop.on_disk(part.close)
                return
            except StoreError as e:
                log.warning("a part is thrown away: %s", e)
            else:
                return
        # The bytes go, the knowledge that clients saw some of them must not.
        remember = False
        if error is not None and self.exposed:
            try:
                self._shop.misled.add(self.entry.digest, self.exposed)
            except StoreError as e:
                log.error("%s", e)
                remember = True
        await self._shop.on_disk(lambda: part.discard(remember=remember))

    # --- readers ----------------------------------------------------------------------------------

    def _fire(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def expose(self, limit: int) -> None:
        """Note that a reader is to be shown unverified bytes below `limit` as they come.

        Durable before there is a byte to show, or when it returns.
        """
        part, self._watched = self._part, True
        self.exposed = max(self.exposed, limit)
        if part is not None and part.exposed != UNKNOWN:
            try:
                await self._shop.on_disk(part.expose)
            finally:
                self._fire()  # what has come may be seen now

    def open(self) -> BinaryIO | None:
        """The file as it is now, for one reader; None while there is none."""
        if self._part is not None:
            return os.fdopen(self._part.descriptor(), "rb", buffering=0)
        file = self._shop.store.open(self.entry.digest)
        if file is None and self.held:
            raise StoreError(f"{self.entry.digest} vanished as soon as it was stored")
        return file


def wrong_size(entry: Entry, size: int) -> DigestMismatch:
    """The blob is held, and is not as long as the lock says."""
    return DigestMismatch(f"{entry.repo}/{entry.path}", f"{entry.size} bytes", f"{size} bytes")
