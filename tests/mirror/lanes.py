"""An upstream whose connections a test watches and breaks, and a part to fill from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from proxy.mirror.part import Part
from proxy.mirror.transfer import Extra, Transfer, Tuning
from proxy.pins.lock import Entry
from proxy.upstream.base import Located
from tests.fakes.content import Blob, Content
from tests.fakes.memory import FakeHub
from tests.mirror.bench import KB, MB

DATA = Content("weights", 4 * MB)
# A connection is judged at its second piece, and every connection is too slow.
PARALLEL = Tuning(
    batch=16 * KB, flush_s=0.0, large=256 * KB, segment=256 * KB, steal=128 * KB,
    slow=1e9, probe_s=0.5, tick_s=0.001, backoff_s=0.0, much=64 * KB,
)  # fmt: skip


@dataclass
class Clock:
    """Time passes when a test says so."""

    now: float = 1.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Connection:
    """One fetch, as the upstream sees it."""

    start: int
    stop: int
    at: int = 0
    closed: bool = False


class Lanes(FakeHub):
    """An upstream with connections that a test watches, holds up and breaks one by one."""

    def __init__(self, connections: int = 1) -> None:
        super().__init__()
        self.connections = connections
        self.chunk = 16 * KB
        self.opened: list[Connection] = []
        self.most = 0
        self.content: Blob | None = None  # served instead of the right one
        # Called before every piece; what it raises breaks the connection.
        self.before: Callable[[Connection], object] = lambda _: None
        # Whether a connection may send its next piece; asked again when there are news.
        self.may: Callable[[Connection], bool] = lambda _: True
        self.clock = Clock()
        self.piece_s = 1.0  # a piece takes so long to come
        self._news = asyncio.Event()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await self._news.wait()

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
        here = Connection(start, stop, start)
        self.opened.append(here)
        self.most = max(self.most, sum(not one.closed for one in self.opened))
        self._tell()
        try:
            async with aclosing(super().fetch(file, start, stop)) as body:
                async for piece in body:
                    self.before(here)
                    await self.until(lambda: self.may(here))
                    self.clock.now += self.piece_s
                    if self.content is not None:
                        yield self.content.read(here.at, here.at + len(piece))
                    else:
                        yield piece
                    here.at += len(piece)
        finally:
            here.closed = True
            self._tell()


@dataclass
class Site:
    """A part and everything to fill it with."""

    folder: Path
    hub: Lanes
    entry: Entry
    part: Part
    threads: ThreadPoolExecutor
    hashing: ThreadPoolExecutor
    extra: Extra = field(default_factory=lambda: Extra(8))
    progress: int = 0

    def transfer(self, tuning: Tuning = PARALLEL) -> Transfer:
        return Transfer(
            self.entry, self.part, self.hub, self._in_thread, self.hashing, self._progress,
            self.extra, tuning, self.hub.clock,
        )  # fmt: skip

    async def run(self, tuning: Tuning = PARALLEL) -> None:
        async with asyncio.timeout(20):
            await self.transfer(tuning).run()

    def content(self) -> bytes:
        return self.part.read(0, self.entry.size)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self.threads, work)

    def _progress(self) -> None:
        self.progress += 1
