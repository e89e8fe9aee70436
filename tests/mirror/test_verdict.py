"""Wrong bytes: who was shown some is cut and remembered, whatever happens to us meanwhile."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxy.errors import (
    DigestMismatch,
    IntegrityError,
    StoreError,
)
from proxy.mirror.fill import ATTEMPTS
from proxy.mirror.follower import Follower
from proxy.mirror.part import UNKNOWN
from tests.mirror.alone import Alone
from tests.mirror.bench import DATA, KB, Bench, read, read_all, until

WHOLE = DATA.read(0, DATA.size)


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
    await cache.hold(entry)  # a reader may still be shown what was kept, and be cut
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
