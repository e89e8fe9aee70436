"""Bringing the missing bytes of one part from an upstream, over as many connections as it takes.

One connection asks for all that is missing. If the file is large and that connection turns out to
be the limit, more are opened, each on a segment ahead of the first gap; the first one gives up the
part of its range that others took over. Where an upstream cannot start in the middle, one
connection starts over and what is there already is skipped.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, field

from proxy.errors import RangeIgnored, UpstreamError, UpstreamOffline, UpstreamUnavailable
from proxy.mirror.extents import Extents
from proxy.mirror.part import Part
from proxy.pins.lock import Entry
from proxy.upstream.base import Piece, Upstream


@dataclass(frozen=True, slots=True)
class Tuning:
    """When to use how many connections, and when to give up. Sizes are bytes, times seconds."""

    batch: int = 1 << 20  # bytes per write
    flush_s: float = 0.05  # how long bytes may wait for their batch to fill
    large: int = 64 << 20  # only what misses this much is fetched over several connections
    segment: int = 24 << 20  # what a further connection asks for
    steal: int = 2 << 20  # the least that is taken from a connection near the end
    slow: float = 32e6  # bytes per second: a connection below is the limit
    probe_s: float = 0.2  # how long a connection is watched before it is judged
    tick_s: float = 0.05  # how often it is watched
    tries: int = 5  # failures in a row without progress
    failures: int = 20  # failures with little progress between them
    much: int = 4 << 20  # progress that forgives earlier failures
    patience_s: float = 12.0  # without a byte, a failure is final after this long
    longest_wait_s: float = 60.0  # asked to wait longer than this, we give up and pass it on
    backoff_s: float = 0.2  # doubles with every failure in a row, plus or minus half
    keep_free: int = 0  # of the disk


@dataclass(slots=True)
class Extra:
    """How many connections beyond the first all transfers of this process may open."""

    left: int


@dataclass(eq=False, slots=True)
class _Lane:
    """One connection: [at, stop) is still to come. `stop` may shrink while it runs."""

    at: int
    stop: int
    received: int = 0  # where what came ends: [at, received) is about to be written
    began_at: int = 0  # where the range that was asked for begins
    asked: int = 0  # and where it ends
    skip: int = 0  # bytes before `at` that come because the upstream starts at the beginning
    waited_s: float = 0.0  # for the upstream
    began: float = 0.0  # when the first byte came; 0 before that
    came: int = 0  # bytes since then
    task: asyncio.Task[None] | None = None
    extra: bool = False
    batch: bytearray = field(default_factory=bytearray)  # came, and is not written yet
    flushed: float = 0.0  # when a batch was last begun to be written
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def left(self) -> int:
        """Bytes that are still to come; those that came are about to be written."""
        return self.stop - max(self.at, self.received)


@dataclass(slots=True)
class Transfer:
    """One attempt at a file, until nothing is missing."""

    entry: Entry
    part: Part
    upstream: Upstream
    in_thread: Callable[[Callable[[], None]], Awaitable[None]]  # runs disk work off the loop
    hashing: Executor  # runs beside it
    progress: Callable[[], None]  # called after bytes were written
    extra: Extra
    tuning: Tuning = field(default_factory=Tuning)
    clock: Callable[[], float] = time.monotonic

    _lanes: list[_Lane] = field(default_factory=list)
    _width: int = 1
    _ranges: bool = True  # whether the upstream starts in the middle, as far as we know
    _strikes: int = 0
    _failures: int = 0
    _had: int = 0  # bytes that were there at the last failure
    _progressed: float = 0.0  # when the last byte was written
    _syncing: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Returns when every byte is in the part. Raises: UpstreamError, StoreError."""
        self._progressed = self.clock()
        try:
            while self.part.have.total < self.entry.size:
                self._open_lanes()
                tasks = [lane.task for lane in self._lanes if lane.task is not None]
                await asyncio.wait(
                    tasks, timeout=self.tuning.tick_s, return_when=asyncio.FIRST_COMPLETED
                )
                for lane in [one for one in self._lanes if one.task and one.task.done()]:
                    if lane in self._lanes:
                        await self._end(lane)
                for lane in self._lanes:  # those that wait for more: readers wait for what came
                    if lane.batch and self.clock() - lane.flushed >= self.tuning.flush_s:
                        await self._put(lane)  # a sync may take long, and lanes are to be opened
                self._widen()
            while self._syncing is not None:
                await self._synced(self._syncing)
        finally:
            tasks = [lane.task for lane in self._lanes if lane.task is not None]
            for task in tasks:
                task.cancel()
            for lane in list(self._lanes):  # before the wait: it may be cancelled once more
                self._drop(lane)
            await asyncio.gather(
                *tasks, *([self._syncing] if self._syncing else []), return_exceptions=True
            )

    # --- lanes ------------------------------------------------------------------------------------

    def _open_lanes(self) -> None:
        while len(self._lanes) < self._width or not self._lanes:
            extra = bool(self._lanes)
            if extra and self.extra.left <= 0:
                return
            lane = self._next_lane()
            if lane is None:
                return
            lane.extra = extra
            self.extra.left -= extra
            self._lanes.append(lane)
            lane.task = asyncio.create_task(self._bring(lane), name=f"fetch {self.entry.path}")

    def _next_lane(self) -> _Lane | None:
        """The first range that nobody brings, else half of what the slowest still has to."""
        taken = Extents(self.part.have)
        for lane in self._lanes:
            taken.add(lane.at, lane.stop)
        gap = next(taken.gaps(self.entry.size), None)
        if gap is not None:
            start, stop = gap
            if not self._ranges:
                return _Lane(start, self.entry.size, skip=start)
            if self._width > 1:
                stop = min(stop, start + self.tuning.segment)
            return _Lane(start, stop)
        longest = max(self._lanes, key=lambda lane: lane.left, default=None)
        if longest is None or not self._ranges or longest.left < 2 * self.tuning.steal:
            return None
        middle = longest.stop - longest.left // 2
        stolen = _Lane(middle, longest.stop)
        longest.stop = middle
        return stolen

    def _widen(self) -> None:
        """Open more connections if the only one is what holds us up."""
        tuning = self.tuning
        wanted = self.upstream.connections
        if self._width > 1 or wanted <= 1 or not self._ranges or len(self._lanes) != 1:
            return
        lane = self._lanes[0]
        elapsed = self.clock() - lane.began
        if not lane.began or elapsed < tuning.probe_s or lane.stop - lane.at < tuning.large:
            return
        if lane.came / elapsed < tuning.slow and lane.waited_s > 0.5 * elapsed:
            self._width = wanted
            lane.stop = min(lane.stop, max(lane.at, lane.received) + tuning.segment)

    async def _bring(self, lane: _Lane) -> None:
        """Write [at, stop) of the file as it comes. Raises: UpstreamError, StoreError."""
        tuning, clock = self.tuning, self.clock
        lane.received = lane.at
        skip = lane.skip
        lane.began_at = 0 if skip else lane.at
        lane.asked = lane.stop
        asked = clock()
        try:
            async with aclosing(self.upstream.fetch(self.entry, lane.began_at, lane.stop)) as body:
                async for piece in body:
                    chunk, came = piece, clock()
                    if lane.began:
                        lane.waited_s += came - asked
                    else:
                        lane.began = came
                    lane.came += len(chunk)
                    if skip:
                        dropped = min(skip, len(chunk))
                        skip -= dropped
                        chunk = chunk[dropped:]
                    chunk = chunk[: max(0, lane.stop - lane.received)]
                    lane.received += len(chunk)
                    # Only what lies in memory of its own may wait for the disk here: what aiohttp
                    # holds is lost if the connection ends meanwhile.
                    if isinstance(chunk, memoryview) and not lane.batch:
                        await self._flush(lane, chunk)
                    else:
                        lane.batch += chunk
                        full = lane.received >= lane.stop or len(lane.batch) >= tuning.batch
                        if full or came - lane.flushed >= tuning.flush_s:
                            await self._flush(lane)
                    if lane.at >= lane.stop:
                        return
                    asked = clock()
        except UpstreamError:
            await self._flush(lane)  # what came is not asked for again
            raise
        await self._flush(lane)
        if lane.at < lane.stop:
            raise UpstreamUnavailable(
                self.upstream.name, f"{self.entry.path} ended {lane.stop - lane.at} bytes early"
            )

    async def _flush(self, lane: _Lane, piece: Piece = b"") -> None:
        """Write what came, and then a piece that was never put with it; sync if it is time."""
        if await self._put(lane, piece):
            await self._sync()

    async def _put(self, lane: _Lane, piece: Piece = b"") -> bool:
        """Write; True if it is time to sync. Two who ask at once write one after the other, in
        order."""
        async with lane.writing:
            batch, lane.batch = lane.batch, bytearray()
            lane.flushed = self.clock()
            due = await self._write(lane, batch)
            return await self._write(lane, piece) or due

    async def _write(self, lane: _Lane, batch: bytearray | Piece) -> bool:
        if not batch:
            return False
        start, stop = lane.at, lane.at + len(batch)
        # What is there may have been hashed: other bytes in its place would never be noticed.
        missing = tuple(self.part.have.gaps(stop, start))
        written = False

        def write() -> None:
            nonlocal written
            hashing = None
            if missing == ((start, stop),) and start == self.part.hashed:
                # At the same time: both only read it, and take about as long.
                hashing = self.hashing.submit(self.part.hash_ahead, start, batch)
            try:
                self._write_missing(missing, batch, start)
                written = True
            finally:  # nobody may have the buffer while it is hashed
                hashed = hashing.result() if hashing is not None else None
            if hashed is not None:
                self.part.hash_written(start, stop, hashed)

        try:
            await self.in_thread(write)
        finally:
            if written:  # also if we are given up just now: what was hashed may not come again
                lane.at = stop
                self._progressed = self.clock()
                self._strikes = 0
                due = self.part.wrote(start, stop)
                self.progress()
        return due

    async def _sync(self) -> None:
        """Put what came on disk while more comes; if that is still going on from before, wait."""
        while self._syncing is not None:
            await self._synced(self._syncing)
        self._syncing = asyncio.ensure_future(self.in_thread(self.part.sync))

    async def _synced(self, syncing: asyncio.Future[None]) -> None:
        """Wait for the end of a sync. Raises: StoreError, if it failed."""
        await asyncio.wait([syncing])
        syncing.result()  # one that failed stays, for `run` and everybody else to find
        if self._syncing is syncing:
            self._syncing = None

    def _write_missing(
        self, missing: Iterable[tuple[int, int]], batch: bytearray | Piece, offset: int
    ) -> None:
        for start, stop in missing:
            self.part.write(start, memoryview(batch)[start - offset : stop - offset])

    def _drop(self, lane: _Lane) -> None:
        self._lanes.remove(lane)
        if lane.extra:
            self.extra.left += 1

    # --- failures ---------------------------------------------------------------------------------

    async def _end(self, lane: _Lane) -> None:
        self._drop(lane)
        assert lane.task is not None
        if lane.task.cancelled() or (error := lane.task.exception()) is None:
            return
        if isinstance(error, RangeIgnored) and lane.began_at:
            if self._ranges:
                await self._only_from_the_start()
            return
        if not isinstance(error, UpstreamUnavailable) or isinstance(error, UpstreamOffline):
            raise error
        await self._endure(error)

    async def _only_from_the_start(self) -> None:
        """No more ranges: one connection, which may go on to the end if it began at the start."""
        self._ranges = False
        self._width = 1
        keep = min(self._lanes, key=lambda lane: lane.at, default=None)
        others = [lane for lane in self._lanes if lane is not keep]
        tasks = [lane.task for lane in others if lane.task is not None]
        for task in tasks:
            task.cancel()
        # Until they have let go: two connections never write the same bytes.
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in others:
            self._drop(lane)
        if keep is not None:
            keep.stop = keep.asked or keep.stop

    async def _endure(self, error: UpstreamUnavailable) -> None:
        """Wait before the next try, or raise `error` if there is no use in one."""
        tuning = self.tuning
        forgiven = self.part.have.total - self._had >= tuning.much
        self._failures = 1 if forgiven else self._failures + 1
        self._had = self.part.have.total
        self._strikes += 1
        if self._lanes:  # others go on; perhaps the upstream does not like so many of us
            self._width = max(1, len(self._lanes))
            return
        wait = tuning.backoff_s * 2 ** (self._strikes - 1) * random.uniform(0.5, 1.5)  # noqa: S311  # jitter
        if error.retry_after_s is not None:
            if error.retry_after_s > tuning.longest_wait_s:
                raise error
            wait = max(wait, error.retry_after_s)
            self._progressed = self.clock() + wait  # being told to wait is not silence
        silent_s = self.clock() - self._progressed
        if (
            self._strikes >= tuning.tries
            or self._failures >= tuning.failures
            or silent_s > tuning.patience_s
        ):
            raise error
        await asyncio.sleep(wait)
