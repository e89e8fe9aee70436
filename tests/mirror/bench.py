"""A blob cache on a temporary directory, an upstream that a test steers, and a patient reader."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from proxy.mirror.cache import BlobCache
from proxy.mirror.fill import Fill
from proxy.mirror.follower import Reader
from proxy.mirror.transfer import Tuning
from proxy.pins.lock import Entry
from proxy.store.local import LocalStore
from proxy.store.recency import Recency
from proxy.upstream.base import Located
from tests.fakes.content import Blob, Content
from tests.fakes.memory import FakeHub

KB = 1 << 10
MB = 1 << 20
DATA = Content("model", 300 * KB)
# Failures are final at once, and a batch is one piece of the fake.
QUICK = Tuning(batch=64 * KB, flush_s=0.0, tick_s=0.01, backoff_s=0.0)


class Puppet(FakeHub):
    """A hub that lies for some time, and whose every piece a test may hold up."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong_times = 0  # so many downloads are wrong, until each is blamed
        self.before: Callable[[int, int], Awaitable[None]] | None = None  # start, offset of piece

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
        self.lies = len(self.blamed) < self.wrong_times
        at = start
        async with aclosing(super().fetch(file, start, stop)) as body:
            async for piece in body:
                if self.before is not None:
                    await self.before(start, at)
                yield piece
                at += len(piece)

    def hold_at(self, offset: int) -> Gate:
        """Holds up every piece from this offset on."""
        gate = Gate(offset)
        self.before = gate
        return gate


class Gate:
    """Where pieces wait; `reached` is set when one does."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, start: int, at: int) -> None:
        if at >= self.offset and not self.open.is_set():
            self.reached.set()
            await self.open.wait()


class Bench:
    """One process after another on the same data directory."""

    def __init__(self, data: Path, tuning: Tuning = QUICK) -> None:
        self.hub = Puppet()
        self.tuning = tuning
        self.data = data
        self._opened: list[BlobCache] = []
        self.cache = self.start()

    def start(self) -> BlobCache:
        (self.data / "spool").mkdir(parents=True, exist_ok=True)
        self.store = LocalStore(self.data)
        self.recency = Recency(self.data / "index-v1")
        self.cache = BlobCache(
            self.store, self.hub, data=self.data, recency=self.recency, tuning=self.tuning
        )
        self._opened.append(self.cache)
        self.cache.recover()
        return self.cache

    async def restart(self) -> BlobCache:
        """Stop as on SIGTERM, and start again."""
        await self.cache.close()
        return self.start()

    def kill(self) -> BlobCache:
        """Start again on what a kill -9 at this moment would leave: the files as they are."""
        after = self.data.with_name(f"{self.data.name}-{len(self._opened)}")
        shutil.copytree(self.data, after)
        self.data = after
        return self.start()

    async def close(self) -> None:
        for cache in self._opened:
            await cache.close()
        self.recency.close()

    def publish(self, content: Blob = DATA, path: str = "model.bin") -> Entry:
        return self.hub.publish("org/m", path, content)

    def fill(self) -> Fill:
        """The only download in flight."""
        (fill,) = self.cache.fills
        assert isinstance(fill, Fill)
        return fill

    @property
    def spooled(self) -> list[str]:
        return sorted(os.listdir(self.data / "spool"))

    def part(self, entry: Entry) -> Path:
        return self.data / "spool" / f"{entry.digest.hex}.part"

    def sidecar(self, entry: Entry) -> Path:
        return self.data / "spool" / f"{entry.digest.hex}.json"

    def blob(self, entry: Entry) -> Path:
        return self.data / "blobs-v1" / "sha256" / entry.digest.hex[:2] / entry.digest.hex


async def read(reader: Reader, at: int, stop: int) -> bytes:
    """What a client gets of [at, stop), in the end. Raises: MirrorError."""
    got = b""
    async with asyncio.timeout(10):
        while at < stop:
            ready = min(stop, await reader.ready(at))
            got += os.pread(reader.file.fileno(), ready - at, at)
            at = ready
    return got


async def read_all(
    cache: BlobCache, entry: Entry, start: int = 0, stop: int | None = None
) -> bytes:
    stop = entry.size if stop is None else stop
    reader = await cache.open(entry, stop)
    try:
        return await read(reader, start, stop)
    finally:
        reader.close()


async def until(fill: Fill, true: Callable[[], bool]) -> None:
    """Returns when the fill has come to a point."""
    async with asyncio.timeout(10):
        while not true():
            await fill.changed.wait()
