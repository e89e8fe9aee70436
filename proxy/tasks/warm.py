"""warm: hold every blob of some pairs, before anyone asks for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from proxy.errors import MirrorError, WindowClosed
from proxy.hub.names import Digest, Pair
from proxy.mirror.mirror import Mirror
from proxy.mirror.part import Room
from proxy.pins.lock import Entry
from proxy.tasks import blobs

_STEP = 1 << 20  # bytes between two words about one file
_LOOK_AGAIN_S = 60.0  # a clock may be set while we wait

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Planned:
    """What there is to do. Bytes and files that are held already are counted in `held_*`."""

    files: int
    bytes: int
    held_files: int
    held_bytes: int
    free: int  # bytes of disk that may still be used (what `keep_free` keeps is left out)


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the allowlist has to say to those who use a pair."""

    pair: Pair
    notice: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing may be fetched at this hour; it goes on in so many seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one file is, and all of them together (held ones included)."""

    entry: Entry
    entry_bytes: int
    done_files: int
    done_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A blob came, was verified, and is held."""

    entry: Entry
    done_files: int
    done_bytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A blob could not be had; the others go on."""

    entry: Entry
    error: MirrorError


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    fetched_files: int
    fetched_bytes: int
    failed: int


Event = Noticed | Planned | Waiting | Progress | Fetched | Failed | Finished


async def warm(
    mirror: Mirror,
    pairs: Iterable[Pair] | None = None,
    *,
    jobs: int = 4,
    pause: Pause = asyncio.sleep,
) -> AsyncGenerator[Event]:
    """Fetch what is missing of these pairs (None: of all), `jobs` files at a time.

    Outside of the mirror's hours it waits, and goes on where it was.

    Raises: Refused (a pair that is not locked), StoreFull before anything is fetched, StoreError.
    """
    chosen = list(blobs.snapshots(mirror.catalog, pairs))
    for snapshot in chosen:
        if snapshot.allowed.notice:
            yield Noticed(snapshot.pair, snapshot.allowed.notice)
    needed = blobs.entries(chosen)
    missing = [entry for entry in needed if not await mirror.cache.held(entry)]
    size, missing_size = sum(e.size for e in needed), sum(e.size for e in missing)
    yield Planned(len(needed), size, len(needed) - len(missing), size - missing_size, free(mirror))
    await asyncio.to_thread(check_room, mirror, missing)
    total = (len(needed), size)
    async for event in fetch(mirror, missing, jobs=jobs, held=total, pause=pause):
        yield event


def free(mirror: Mirror) -> int:
    """Bytes of disk that blobs may still take."""
    status = os.statvfs(mirror.spool)
    return max(0, status.f_bavail * status.f_frsize - mirror.config.keep_free)


def check_room(mirror: Mirror, missing: Collection[Entry]) -> None:
    """Raises: StoreFull, if these blobs do not fit. Blocking."""
    need = sum(entry.size for entry in missing)
    Room(mirror.config.keep_free).check(mirror.spool, need, f"{len(missing)} files")


async def fetch(
    mirror: Mirror,
    missing: Sequence[Entry],
    *,
    jobs: int,
    held: tuple[int, int],
    pause: Pause = asyncio.sleep,
) -> AsyncGenerator[Event]:
    """Fetch these blobs. `held` is how many files and bytes there will be when all are done."""
    counted = _Count(held[0] - len(missing), held[1] - sum(entry.size for entry in missing))
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    todo = iter(missing)

    async def work() -> None:
        for entry in todo:
            try:
                came = await hold(entry)
            except MirrorError as e:
                counted.part.pop(entry.digest, None)
                events.put_nowait(Failed(entry, e))
            else:
                counted.hold(entry, came=came)
                events.put_nowait(Fetched(entry, counted.files, counted.bytes))

    async def hold(entry: Entry) -> bool:
        while True:
            # Before and between downloads: each holds its part, for which a server may have
            # clients.
            await opened()
            with suppress(WindowClosed):
                return await mirror.cache.hold(entry, partial(report, entry))

    async def opened() -> None:
        while (wait_s := mirror.closed_s()) > 0:
            if not counted.waiting:
                events.put_nowait(Waiting(wait_s))
            counted.waiting = True
            await pause(min(wait_s, _LOOK_AGAIN_S))
        counted.waiting = False

    def report(entry: Entry, have: int) -> None:
        if have - counted.part.get(entry.digest, -_STEP) >= _STEP:
            counted.part[entry.digest] = have
            events.put_nowait(Progress(entry, have, counted.files, counted.bytes))

    workers = [asyncio.create_task(work(), name=f"warm {n}") for n in range(max(1, jobs))]
    ended = asyncio.create_task(_end(workers, events), name="warm")
    try:
        while (event := await events.get()) is not None:
            yield event
        await ended  # a bug in a worker is loud
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, ended, return_exceptions=True)
    yield Finished(counted.came_files, counted.came_bytes, counted.missing_of(held[0]))


async def _end(workers: Iterable[asyncio.Task[None]], events: asyncio.Queue[Event | None]) -> None:
    """After the last event comes None, whatever becomes of the workers."""
    try:
        await asyncio.gather(*workers)
    finally:
        events.put_nowait(None)


class _Count:
    """What is held and what is under way."""

    def __init__(self, files: int, size: int) -> None:
        self.files = files
        self._held = size
        self.part: dict[Digest, int] = {}  # bytes of files under way
        self.waiting = False  # and that was said
        self.came_files = 0
        self.came_bytes = 0

    @property
    def bytes(self) -> int:
        return self._held + sum(self.part.values())

    def hold(self, entry: Entry, *, came: bool) -> None:
        self.part.pop(entry.digest, None)
        self.files += 1
        self._held += entry.size
        if came:
            self.came_files += 1
            self.came_bytes += entry.size

    def missing_of(self, files: int) -> int:
        return files - self.files
