"""One download and its readers: shared, resumed, verified before anyone can finish."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from proxy.errors import (
    DigestMismatch,
    IntegrityError,
    StoreError,
    StoreFull,
    UpstreamMissing,
    UpstreamUnavailable,
)
from proxy.hub.names import Digest
from proxy.mirror import flock
from proxy.mirror.fill import ATTEMPTS, Fill, Workshop
from proxy.mirror.follower import HOLD_BACK, Follower
from proxy.mirror.misled import Misled
from proxy.mirror.part import UNKNOWN, Room
from proxy.mirror.transfer import Extra
from proxy.store.local import LocalStore
from tests.fakes.content import Content
from tests.mirror.bench import DATA, KB, MB, QUICK, Bench, Puppet, read, read_all, until

P = ParamSpec("P")
T = TypeVar("T")
WHOLE = DATA.read(0, DATA.size)
SHOWN = DATA.size - HOLD_BACK


# --- one download ---------------------------------------------------------------------------------


async def test_a_missing_blob_is_fetched_once_and_then_held(bench: Bench) -> None:
    entry = bench.publish()
    assert await read_all(bench.cache, entry) == WHOLE
    assert await read_all(bench.cache, entry) == WHOLE
    assert bench.hub.fetched == [("model.bin", 0)]
    assert bench.spooled == []


async def test_many_readers_share_one_download(bench: Bench) -> None:
    entry = bench.publish()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read_all(bench.cache, entry)) for _ in range(50)]
    assert all(task.result() == WHOLE for task in tasks)
    assert bench.hub.sent == entry.size


async def test_a_late_reader_gets_the_beginning_too(bench: Bench) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(192 * KB)
    early = asyncio.create_task(read_all(bench.cache, entry))
    await gate.reached.wait()
    late = asyncio.create_task(read_all(bench.cache, entry))
    gate.open.set()
    assert await early == await late == WHOLE
    assert bench.hub.fetched == [("model.bin", 0)]


async def test_bytes_are_shown_while_the_rest_is_still_to_come(bench: Bench) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    async with asyncio.timeout(5):
        assert await read(reader, 0, 128 * KB) == WHOLE[: 128 * KB]
    gate.open.set()
    assert await read(reader, 128 * KB, entry.size) == WHOLE[128 * KB :]
    reader.close()


async def test_an_empty_file_is_held_without_a_byte_from_anywhere(bench: Bench) -> None:
    entry = bench.publish(Content("nothing", 0))
    assert await bench.cache.hold(entry)
    assert bench.hub.sent == 0
    assert bench.blob(entry).stat().st_size == 0


async def test_hold_returns_once_the_blob_is_held_and_tells_how_far_it_is(bench: Bench) -> None:
    entry = bench.publish()
    seen: list[int] = []
    assert await bench.cache.hold(entry, seen.append)
    assert seen == sorted(seen)
    assert not await bench.cache.hold(entry)


async def test_a_client_that_leaves_stops_nothing(bench: Bench) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(64 * KB)
    reading = asyncio.create_task(read_all(bench.cache, entry))
    await gate.reached.wait()
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    fill = bench.fill()
    gate.open.set()
    await until(fill, lambda: fill.held)
    assert bench.blob(entry).read_bytes() == WHOLE
    assert bench.hub.fetched == [("model.bin", 0)]


async def test_a_failure_reaches_every_reader(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.missing = True
    async with asyncio.timeout(5):
        results = await asyncio.gather(
            *(read_all(bench.cache, entry) for _ in range(5)),
            bench.cache.hold(entry),
            return_exceptions=True,
        )
    assert {type(result) for result in results} == {UpstreamMissing}
    bench.hub.missing = False
    assert await read_all(bench.cache, entry) == WHOLE


async def test_a_download_that_brought_nothing_takes_no_room(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.down = True
    with pytest.raises(UpstreamUnavailable):
        await bench.cache.hold(entry)
    await bench.cache.close()
    assert bench.spooled == []


# --- hold-back ------------------------------------------------------------------------------------


async def test_the_last_bytes_wait_for_the_verdict(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = ATTEMPTS
    reader = await bench.cache.open(entry, entry.size)
    at = 0
    with pytest.raises(DigestMismatch):
        async with asyncio.timeout(5):
            while True:
                at = await reader.ready(at)
    assert at <= SHOWN
    reader.close()


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (100, DATA.size - 1), (0, DATA.size - 1)])
async def test_a_bounded_range_waits_for_the_verdict(bench: Bench, start: int, stop: int) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(256 * KB)
    reading = asyncio.create_task(read_all(bench.cache, entry, start, stop))
    await gate.reached.wait()
    fill = bench.fill()
    await until(fill, lambda: fill.front == 256 * KB)
    assert not reading.done()
    assert fill.exposed == 0
    gate.open.set()
    assert await reading == WHOLE[start:stop]


async def test_a_small_file_waits_for_the_verdict_as_a_whole(bench: Bench) -> None:
    small = Content("small", HOLD_BACK)
    entry = bench.publish(small)
    bench.hub.wrong_times = 1
    assert await read_all(bench.cache, entry) == small.read(0, small.size)


# --- wrong bytes ----------------------------------------------------------------------------------


async def test_who_was_shown_nothing_waits_for_the_next_attempt(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = 1
    assert await read_all(bench.cache, entry, 0, entry.size - 1) == WHOLE[:-1]
    assert bench.hub.blamed == ["model.bin"]
    assert bench.cache.misled.limit(entry.digest) == 0, "nobody saw anything"


async def test_who_was_shown_wrong_bytes_is_cut(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = 1
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    assert await read(reader, 0, 128 * KB) != WHOLE[: 128 * KB]
    gate.open.set()
    with pytest.raises(DigestMismatch):
        await read(reader, 128 * KB, entry.size)
    reader.close()
    assert await read_all(bench.cache, entry) == WHOLE


async def test_how_far_clients_were_misled_outlives_a_restart(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = 1
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 128 * KB)
    fill = bench.fill()
    gate.open.set()
    await until(fill, lambda: fill.held)
    reader.close()
    assert bench.cache.misled.limit(entry.digest) == 128 * KB
    cache = await bench.restart()
    assert cache.misled.limit(entry.digest) == 128 * KB


async def test_after_so_many_wrong_downloads_it_is_given_up_for_a_while(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = 99
    for _ in range(3):
        with pytest.raises(IntegrityError):
            await read_all(bench.cache, entry)
        with pytest.raises(IntegrityError):
            await bench.cache.hold(entry)
    assert len(bench.hub.fetched) == ATTEMPTS
    assert not bench.blob(entry).exists()
    assert bench.spooled == []


async def test_a_wrong_beginning_from_before_is_thrown_away_as_a_whole(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.wrong_times, bench.hub.cut_after = 1, 128 * KB
    gate = bench.hub.hold_at(64 * KB)
    reading = asyncio.create_task(read_all(bench.cache, entry, 0, entry.size - 1))
    await gate.reached.wait()
    fill = bench.fill()
    await until(fill, lambda: fill.front == 64 * KB)
    await bench.restart()  # 64 KiB of wrong bytes are kept
    with pytest.raises(StoreError):
        await reading
    bench.hub.before, bench.hub.wrong_times = None, 0
    assert await read_all(bench.cache, entry, 0, entry.size - 1) == WHOLE[:-1]
    assert bench.hub.fetched == [("model.bin", 0), ("model.bin", 64 * KB), ("model.bin", 0)]


async def test_nobody_fails_who_asks_just_when_an_attempt_fails(bench: Bench) -> None:
    """Whatever moment of an attempt a reader comes at, he gets all of it or is cut."""
    entry = bench.publish()
    bench.hub.wrong_times = 2
    first = asyncio.create_task(bench.cache.hold(entry))
    readers = []
    while not first.done():
        readers.append(asyncio.create_task(read_all(bench.cache, entry, 0, entry.size - 1)))
        for _ in range(5):
            await asyncio.sleep(0)
    assert await first
    assert all(got == WHOLE[:-1] for got in await asyncio.gather(*readers))


async def test_what_cannot_be_remembered_is_not_forgotten_either(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = 1
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 128 * KB)
    misled = bench.data / "misled"
    misled.mkdir()
    gate.open.set()
    with pytest.raises(StoreError):
        await read(reader, 128 * KB, entry.size)
    reader.close()
    await bench.cache.close()
    misled.rmdir()
    bench.hub.blamed.append("so the next one is right")
    cache = bench.start()
    assert await read_all(cache, entry) == WHOLE
    assert cache.misled.limit(entry.digest) >= 128 * KB


# --- what clients saw, across processes -----------------------------------------------------------


async def test_after_a_kill_whoever_saw_anything_may_be_misled(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 128 * KB)
    cache = bench.kill()
    assert cache.misled.limit(entry.digest) >= entry.size
    reader.close()


async def test_after_a_kill_nobody_is_misled_who_saw_nothing(bench: Bench) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    holding = asyncio.create_task(bench.cache.hold(entry))
    await gate.reached.wait()
    cache = bench.kill()
    assert cache.misled.limit(entry.digest) == 0
    gate.open.set()
    await holding


async def test_after_an_orderly_stop_nobody_is_misled(bench: Bench) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 128 * KB)
    cache = await bench.restart()
    gate.open.set()
    assert await read_all(cache, entry, 128 * KB) == WHOLE[128 * KB :]
    assert cache.misled.limit(entry.digest) == 0
    assert bench.hub.fetched == [("model.bin", 0), ("model.bin", 128 * KB)]
    reader.close()


async def test_what_was_shown_before_an_orderly_stop_counts_when_the_verdict_falls(
    bench: Bench,
) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = 1
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 128 * KB)
    cache = await bench.restart()
    reader.close()
    gate.open.set()
    assert await cache.hold(entry)
    assert cache.misled.limit(entry.digest) == 128 * KB


async def test_a_kill_after_an_orderly_stop_loses_nothing_that_was_shown_since(
    bench: Bench,
) -> None:
    entry = bench.publish()
    bench.hub.hold_at(64 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 64 * KB)
    reader.close()
    cache = await bench.restart()
    bench.hub.hold_at(192 * KB)
    reader = await cache.open(entry, entry.size)
    await read(reader, 0, 192 * KB)
    assert json.loads(bench.sidecar(entry).read_bytes())["exposed"] == UNKNOWN
    cache = bench.kill()
    assert cache.misled.limit(entry.digest) >= entry.size
    reader.close()


class Clerk(ThreadPoolExecutor):
    """Threads that a test may stop from beginning anything."""

    def __init__(self) -> None:
        super().__init__(8)
        self.working = threading.Event()
        self.working.set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def later() -> T:
            assert self.working.wait(10)
            return fn(*args, **kwargs)

        return super().submit(later)


class Alone:
    """A fill without a cache, so that its threads can be held up."""

    def __init__(self, data: Path) -> None:
        self.hub = Puppet()
        self.clerk = Clerk()
        self.entry = self.hub.publish("org/m", "model.bin", DATA)
        self.shop = Workshop(
            store=LocalStore(data),
            upstream=self.hub,
            spool=data,
            misled=Misled(data / "misled"),
            room=Room(0),
            disk=self.clerk,
            hashing=ThreadPoolExecutor(1),
            extra=Extra(8),
            tuning=QUICK,
            gate=asyncio.Semaphore(1),
        )
        self.fill = Fill(self.entry, self.shop)

    def close(self) -> None:
        self.clerk.working.set()
        self.clerk.shutdown()
        self.shop.hashing.shutdown()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncGenerator[Alone]:
    made = Alone(tmp_path)
    yield made
    made.close()


async def test_no_reader_is_shown_bytes_before_that_is_on_disk(alone: Alone) -> None:
    gate = alone.hub.hold_at(64 * KB)
    running = asyncio.create_task(alone.fill.run())
    await gate.reached.wait()
    await until(alone.fill, lambda: alone.fill.front == 64 * KB)
    alone.clerk.working.clear()
    readers = [Follower(alone.fill, alone.entry.size) for _ in range(3)]
    tasks = [asyncio.create_task(reader.ready(0)) for reader in readers]
    done, _ = await asyncio.wait(tasks, timeout=0.05)
    assert not done
    alone.clerk.working.set()
    assert set(await asyncio.gather(*tasks)) == {64 * KB}
    gate.open.set()
    await running
    for reader in readers:
        reader.close()


async def test_a_cancelled_download_waits_for_its_threads(alone: Alone) -> None:
    """Else a thread would go on writing to a descriptor that is somebody else's by then."""
    gate = alone.hub.hold_at(64 * KB)
    running = asyncio.create_task(alone.fill.run())
    await gate.reached.wait()
    alone.clerk.working.clear()
    gate.open.set()
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=0.05)
    assert not done
    alone.clerk.working.set()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_download_cancelled_while_it_opens_its_part_lets_go_of_it(
    alone: Alone, tmp_path: Path
) -> None:
    alone.clerk.working.clear()
    running = asyncio.create_task(alone.fill.run())
    for _ in range(5):
        await asyncio.sleep(0)
    running.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    alone.clerk.working.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(tmp_path.glob("*.part")) == []


# --- resume ---------------------------------------------------------------------------------------


async def test_a_cut_download_goes_on_where_it_stopped(bench: Bench) -> None:
    entry = bench.publish()
    bench.hub.cut_after = 100 * KB
    assert await read_all(bench.cache, entry) == WHOLE
    assert bench.hub.fetched == [("model.bin", 0), ("model.bin", 100 * KB)]


async def test_a_download_that_failed_goes_on_when_somebody_asks_again(bench: Bench) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    holding = asyncio.create_task(bench.cache.hold(entry))
    await gate.reached.wait()
    bench.hub.down = True
    gate.open.set()
    with pytest.raises(UpstreamUnavailable):
        await holding
    bench.hub.down = False
    fetched = len(bench.hub.fetched)
    assert await read_all(bench.cache, entry) == WHOLE
    assert bench.hub.fetched[fetched:] == [("model.bin", 192 * KB)]


async def test_after_a_kill_what_was_synced_is_not_fetched_again(bench: Bench) -> None:
    big = Content("big", 70 * MB)
    entry = bench.publish(big)
    bench.hub.chunk = MB
    gate = bench.hub.hold_at(68 * MB)
    holding = asyncio.create_task(bench.cache.hold(entry))
    await gate.reached.wait()
    before = bench.hub.sent
    cache = bench.kill()
    gate.open.set()
    await cache.hold(entry)
    assert bench.hub.fetched[1][1] >= 32 * MB
    assert bench.blob(entry).read_bytes() == big.read(0, big.size)
    assert before >= 68 * MB
    await holding


async def test_a_stopped_download_tells_its_readers_and_keeps_what_came(bench: Bench) -> None:
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    reading = asyncio.create_task(read_all(bench.cache, entry))
    await gate.reached.wait()
    fill = bench.fill()
    await until(fill, lambda: fill.front == 128 * KB)
    await bench.cache.close()
    with pytest.raises(StoreError):
        await reading
    assert json.loads(bench.sidecar(entry).read_bytes())["have"] == [[0, 128 * KB]]
    assert bench.hub.active == 0


# --- our own disk ---------------------------------------------------------------------------------


class Failing(LocalStore):
    """A store that cannot take anything, until it can."""

    broken = True

    async def adopt(self, digest: Digest, file: Path) -> None:
        if self.broken:
            raise StoreError("no")
        await super().adopt(digest, file)


async def test_a_store_that_fails_is_said_and_the_file_is_not_trusted_again(
    alone: Alone, tmp_path: Path
) -> None:
    store = Failing(tmp_path)
    alone.fill = Fill(alone.entry, replace(alone.shop, store=store))
    await alone.fill.run()
    assert isinstance(alone.fill.error, StoreError)
    assert list(tmp_path.glob("*.part")) == []
    reader = Follower(alone.fill, alone.entry.size)
    with pytest.raises(StoreError):
        await reader.ready(0)
    store.broken = False
    again = Fill(alone.entry, replace(alone.shop, store=store))
    await again.run()
    assert again.held


async def test_without_room_nothing_is_fetched_and_what_is_held_is_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "data")
    entry = bench.publish()
    await bench.cache.hold(entry)
    bench.tuning = replace(QUICK, keep_free=1 << 62)
    cache = await bench.restart()
    other = bench.publish(Content("other", 100 * KB), "other.bin")
    with pytest.raises(StoreFull):
        await cache.hold(other)
    assert [path for path, _ in bench.hub.fetched] == ["model.bin"]
    assert bench.spooled == []
    assert await read_all(cache, entry) == WHOLE
    await bench.close()


# --- another process ------------------------------------------------------------------------------


async def test_what_another_process_fetches_is_waited_for(bench: Bench) -> None:
    entry = bench.publish()
    here = bench.cache
    gate = bench.hub.hold_at(64 * KB)
    there = bench.start()
    holding = asyncio.create_task(there.hold(entry))
    await gate.reached.wait()
    reading = asyncio.create_task(read_all(here, entry))
    gate.open.set()
    assert await holding
    assert await reading == WHOLE
    assert bench.hub.fetched == [("model.bin", 0)]


async def test_what_another_process_gave_up_is_taken_over(bench: Bench) -> None:
    entry = bench.publish()
    with flock.holding(bench.part(entry)):
        reading = asyncio.create_task(read_all(bench.cache, entry))
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
    assert await reading == WHOLE
