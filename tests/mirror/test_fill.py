"""One download and its readers: shared, resumed, verified before anyone can finish."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import (
    DigestMismatch,
    StoreError,
    StoreFull,
    UpstreamMissing,
    UpstreamUnavailable,
)
from proxy.hub.names import Digest
from proxy.mirror import flock
from proxy.mirror.fill import ATTEMPTS, Fill
from proxy.mirror.follower import HOLD_BACK, Follower
from proxy.store.local import LocalStore
from tests.fakes.content import Content
from tests.mirror.alone import Alone
from tests.mirror.bench import DATA, KB, MB, QUICK, Bench, read, read_all, until

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
    # What comes during a sync waits for the next one; 24 MiB of each are possible.
    assert bench.hub.fetched[1][1] >= 20 * MB
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


# --- cancelled ------------------------------------------------------------------------------------


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


async def test_who_comes_while_a_kept_part_is_stored_waits_in_peace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients were shown some of it before; nothing more has to be noted."""
    entry = bench.publish()
    gate = bench.hub.hold_at(192 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await reader.ready(0)
    await gate.reached.wait()
    reader.close()
    await bench.restart()
    storing, go_on, adopt = asyncio.Event(), asyncio.Event(), LocalStore.adopt

    async def slow(store: LocalStore, digest: Digest, file: Path) -> None:
        storing.set()
        await go_on.wait()
        await adopt(store, digest, file)

    monkeypatch.setattr(LocalStore, "adopt", slow)
    gate.open.set()
    holding = asyncio.create_task(bench.cache.hold(entry))
    await storing.wait()
    fires, fire = 0, Fill._fire

    def count(fill: Fill) -> None:
        nonlocal fires
        fires += 1
        fire(fill)

    monkeypatch.setattr(Fill, "_fire", count)
    late = asyncio.create_task(read_all(bench.cache, entry))
    await asyncio.sleep(0.2)
    assert fires < 5
    go_on.set()
    assert await late == WHOLE
    await holding
