"""A command that fetches at certain hours, beside a server whose clients want the same file."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from proxy.errors import WindowClosed
from proxy.mirror.cache import BlobCache
from proxy.store.local import LocalStore
from proxy.upstream.paced import Pace, Paced, Window
from tests.mirror.bench import DATA, KB, QUICK, Bench, read_all

WHOLE = DATA.read(0, DATA.size)


async def test_when_its_hours_end_a_server_goes_on_with_what_came(bench: Bench) -> None:
    clock, day = [datetime.fromisoformat("2026-03-01T05:00")], asyncio.Event()

    async def dawn(start: int, at: int) -> None:
        if at >= 128 * KB:
            clock[0] = clock[0].replace(hour=7)
            day.set()

    entry = bench.publish()
    bench.hub.before = dawn
    night = Pace(window=Window.parse("22:00-06:00"))
    warm = BlobCache(
        LocalStore(bench.data),
        Paced(bench.hub, night, now=lambda: clock[0]),
        data=bench.data,
        recency=bench.recency,
        tuning=QUICK,
    )
    try:
        warming = asyncio.create_task(warm.hold(entry))
        async with asyncio.timeout(5):
            await day.wait()
        assert await read_all(bench.cache, entry) == WHOLE
        with pytest.raises(WindowClosed):
            await warming
        (_, first), (_, second) = bench.hub.fetched
        assert (first, second) == (0, 192 * KB)
        assert not await warm.hold(entry)
    finally:
        await warm.close()
