"""Bringing what is missing: over one connection or many, whatever the upstream does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import (
    RangeIgnored,
    StoreError,
    UpstreamMissing,
    UpstreamOffline,
    UpstreamUnavailable,
)
from proxy.mirror.part import Part, Room
from proxy.upstream.base import Located
from tests.fakes.content import Twisted
from tests.mirror.bench import KB, MB
from tests.mirror.lanes import DATA, PARALLEL, Connection, Lanes, Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    hub = Lanes()
    entry = hub.publish("org/m", "model.bin", DATA)
    part = Part(tmp_path, entry.digest, entry.size, Room(0))
    with ThreadPoolExecutor(4) as threads, ThreadPoolExecutor(1) as hashing:
        made = Site(tmp_path, hub, entry, part, threads, hashing)
        yield made
    part.close()
    assert hub.active == 0, "every connection is closed"
    assert made.extra.left == 8, "every connection is given back"


WHOLE = DATA.read(0, DATA.size)


# --- how many connections -------------------------------------------------------------------------


async def test_one_connection_brings_it_all(site: Site) -> None:
    await site.run()
    assert site.content() == WHOLE
    assert site.hub.ranges == [("model.bin", 0, DATA.size)]
    assert site.progress > 1


async def test_a_slow_connection_gets_help(site: Site) -> None:
    site.hub.connections = 4
    site.hub.may = lambda here: here.at < MB or site.hub.most == 4
    await site.run()
    assert site.content() == WHOLE
    assert site.hub.most == 4


async def test_help_brings_little_twice(site: Site) -> None:
    site.hub.connections = 4
    site.hub.may = lambda here: here.at < MB or site.hub.most == 4
    await site.run()
    assert site.hub.sent <= 1.25 * DATA.size


async def test_a_fast_connection_stays_alone(site: Site) -> None:
    site.hub.connections = 4
    await site.run(replace(PARALLEL, slow=1.0))
    assert site.hub.most == 1


async def test_a_connection_that_waits_for_us_stays_alone(site: Site) -> None:
    """If our own disk is what is slow, more connections make it no better."""
    site.hub.connections = 4
    site.hub.piece_s = 0.001

    def tick(work: Callable[[], None]) -> None:
        site.hub.clock.now += 1.0
        work()

    async def slow_disk(work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(site.threads, tick, work)

    transfer = site.transfer(replace(PARALLEL, slow=1e9))
    transfer.in_thread = slow_disk
    await transfer.run()
    assert site.hub.most == 1


async def test_a_small_file_takes_one_connection(site: Site) -> None:
    site.hub.connections = 4
    await site.run(replace(PARALLEL, large=DATA.size + 1))
    assert site.hub.ranges == [("model.bin", 0, DATA.size)]


async def test_an_upstream_that_allows_one_connection_gets_one(site: Site) -> None:
    site.hub.connections = 1
    await site.run()
    assert site.hub.most == 1


async def test_all_transfers_together_open_so_many_connections_and_no_more(site: Site) -> None:
    site.hub.connections = 8
    site.extra.left = 2
    site.hub.may = lambda here: here.at < MB or site.hub.most == 3
    await site.run()
    assert site.content() == WHOLE
    assert site.hub.most == 3
    site.extra.left += 6


async def test_without_a_connection_to_spare_none_is_robbed(site: Site) -> None:
    site.hub.connections = 4
    site.extra.left = 0
    await site.run()
    assert site.content() == WHOLE
    assert len(site.hub.opened) <= 1 + DATA.size // PARALLEL.segment
    site.extra.left = 8


async def test_who_is_done_helps_the_slowest(site: Site) -> None:
    site.hub.connections = 2
    helped = MB  # within the range that the first connection keeps

    def may(here: Connection) -> bool:
        """The first one is stuck until somebody takes a part of its range over."""
        return (
            bool(here.start)
            or here.at < 64 * KB
            or any(0 < c.start < helped for c in site.hub.opened)
        )

    site.hub.may = may
    await site.run(replace(PARALLEL, segment=MB))
    assert site.content() == WHOLE


async def test_only_what_is_missing_is_asked_for(site: Site) -> None:
    for start, stop in ((0, 100 * KB), (MB, 2 * MB)):
        site.part.write(start, WHOLE[start:stop])
        site.part.wrote(start, stop)
    await site.run()
    assert site.content() == WHOLE
    assert site.hub.ranges == [("model.bin", 100 * KB, MB), ("model.bin", 2 * MB, DATA.size)]


async def test_nothing_is_asked_for_if_nothing_is_missing(site: Site) -> None:
    site.part.write(0, WHOLE)
    site.part.wrote(0, DATA.size)
    await site.run()
    assert site.hub.fetched == []


# --- failures -------------------------------------------------------------------------------------


class Breaks:
    """Breaks connections when they come to an offset, so many times."""

    def __init__(self, times: int, error: Exception, at: Callable[[Connection], bool]) -> None:
        self.left = times
        self._error = error
        self._at = at

    def __call__(self, here: Connection) -> None:
        if self.left and self._at(here):
            self.left -= 1
            raise self._error


BROKEN = UpstreamUnavailable("fake", "the connection broke")


async def test_a_broken_connection_goes_on_where_it_was(site: Site) -> None:
    site.hub.before = Breaks(3, BROKEN, lambda here: here.at - here.start >= 64 * KB)
    await site.run()
    assert site.content() == WHOLE
    assert [start for _, start in site.hub.fetched] == [0, 64 * KB, 128 * KB, 192 * KB]
    assert site.hub.sent <= DATA.size + 3 * 16 * KB


async def test_what_came_before_a_break_is_kept_however_little(site: Site) -> None:
    """Else an upstream that breaks after every few bytes never gets anywhere."""
    site.hub.before = Breaks(10, BROKEN, lambda here: here.at - here.start >= 32 * KB)
    await site.run(replace(PARALLEL, batch=MB, flush_s=60.0, tries=3))
    assert site.content() == WHOLE


async def test_a_quiet_end_counts_as_a_break(site: Site) -> None:
    site.hub.cut_after, site.hub.cut_quietly = 100 * KB, True
    await site.run()
    assert site.content() == WHOLE


async def test_one_connection_breaks_while_others_go_on(site: Site) -> None:
    site.hub.connections = 4
    site.hub.before = Breaks(3, BROKEN, lambda here: here.start > MB)
    await site.run()
    assert site.content() == WHOLE


@pytest.mark.parametrize("every", [3, 5, 7])
async def test_connections_that_break_all_the_time_get_there_in_the_end(
    site: Site, every: int
) -> None:
    site.hub.connections = 4
    pieces = iter(range(10**9))
    site.hub.before = Breaks(10**9, BROKEN, lambda _: next(pieces) % every == every - 1)
    await site.run(replace(PARALLEL, much=1))
    assert site.content() == WHOLE


async def test_an_upstream_that_never_answers_is_given_up_after_some_tries(site: Site) -> None:
    site.hub.down = True
    with pytest.raises(UpstreamUnavailable):
        await site.run(replace(PARALLEL, tries=4))
    assert len(site.hub.fetched) == 4


async def test_an_upstream_that_brings_next_to_nothing_is_given_up(site: Site) -> None:
    site.hub.before = Breaks(10**9, BROKEN, lambda here: here.at > here.start)
    with pytest.raises(UpstreamUnavailable):
        await site.run(replace(PARALLEL, failures=6, much=DATA.size))
    assert len(site.hub.fetched) == 6


async def test_progress_forgives_earlier_failures(site: Site) -> None:
    site.hub.before = Breaks(10, BROKEN, lambda here: here.at - here.start >= 128 * KB)
    await site.run(replace(PARALLEL, failures=3, much=64 * KB))
    assert site.content() == WHOLE


async def test_silence_for_too_long_is_final(site: Site) -> None:
    def break_after_some_seconds(here: Connection) -> None:
        site.hub.clock.now += 3.0
        raise BROKEN

    site.hub.before = break_after_some_seconds
    with pytest.raises(UpstreamUnavailable):
        await site.run(replace(PARALLEL, tries=10**6, failures=10**6, patience_s=20.0))
    assert len(site.hub.fetched) == 7


@pytest.mark.parametrize("error", [UpstreamMissing("fake", "gone"), UpstreamOffline()])
async def test_what_no_second_try_can_mend_is_said_at_once(site: Site, error: Exception) -> None:
    site.hub.connections = 4
    site.hub.before = Breaks(1, error, lambda here: here.at >= MB)
    with pytest.raises(type(error)):
        await site.run()


async def test_being_told_to_wait_longer_than_we_can_is_passed_on(site: Site) -> None:
    site.hub.down, site.hub.retry_after_s = True, 61.0
    with pytest.raises(UpstreamUnavailable) as caught:
        await site.run()
    assert caught.value.retry_after_s == 61.0
    assert len(site.hub.fetched) == 1


async def test_being_told_to_wait_is_obeyed(site: Site) -> None:
    told = UpstreamUnavailable("fake", "later", retry_after_s=0.01)
    site.hub.before = Breaks(2, told, lambda here: here.at == 0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await site.run()
    assert loop.time() - began >= 0.02
    assert site.content() == WHOLE


async def test_a_disk_that_fails_ends_it(site: Site) -> None:
    async def broken(work: Callable[[], None]) -> None:
        raise StoreError("no")

    site.hub.connections = 4
    transfer = site.transfer()
    transfer.in_thread = broken
    with pytest.raises(StoreError):
        await transfer.run()


async def test_a_cancelled_transfer_closes_every_connection(site: Site) -> None:
    site.hub.connections = 4
    site.hub.may = lambda here: here.at - here.start < 256 * KB
    running = asyncio.create_task(site.transfer().run())
    async with asyncio.timeout(5):
        await site.hub.until(lambda: site.hub.most == 4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert site.hub.active == 0


# --- upstreams without ranges ---------------------------------------------------------------------


async def test_an_upstream_without_ranges_begins_at_the_beginning(site: Site) -> None:
    site.part.write(0, WHOLE[: 300 * KB])
    site.part.wrote(0, 300 * KB)
    site.hub.ignores_range = True
    await site.run()
    assert site.content() == WHOLE
    assert [start for _, start in site.hub.fetched] == [300 * KB, 0]


async def test_that_ranges_are_ignored_is_found_out_in_the_middle(site: Site) -> None:
    site.hub.connections = 4
    site.hub.ignores_range = True
    await site.run()
    assert site.content() == WHOLE
    assert site.hub.sent <= 1.1 * DATA.size, "the first connection simply went on"


async def test_ranges_may_be_lost_half_way(site: Site) -> None:
    """As when the next upstream takes over."""
    site.hub.connections = 4

    def lose(here: Connection) -> None:
        if here.at >= 2 * MB and not site.hub.ignores_range:
            site.hub.ignores_range = True
            raise BROKEN

    site.hub.before = lose
    await site.run()
    assert site.content() == WHOLE


async def test_an_upstream_that_ignores_even_a_range_from_0_is_given_up(site: Site) -> None:
    site.hub.before = Breaks(9, RangeIgnored("fake", "?"), lambda _: True)
    with pytest.raises(RangeIgnored):
        await site.run()


async def test_bytes_that_are_there_are_never_replaced(site: Site) -> None:
    """They may have been hashed: other bytes in their place would become the blob unseen."""
    for start, stop in ((0, 200 * KB), (MB, 2 * MB)):
        site.part.write(start, WHOLE[start:stop])
        site.part.wrote(start, stop)
    site.hub.ignores_range = True
    site.hub.content = Twisted(DATA, everywhere=True)
    await site.run()
    got = site.content()
    assert got[: 200 * KB] == WHOLE[: 200 * KB]
    assert got[MB : 2 * MB] == WHOLE[MB : 2 * MB]
    assert got[200 * KB : MB] != WHOLE[200 * KB : MB]


async def test_more_than_was_asked_for_is_cut(site: Site) -> None:
    class Generous(Lanes):
        async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
            async with aclosing(super().fetch(file, start, stop)) as body:
                async for piece in body:
                    yield piece + b"more"

    generous = Generous()
    generous.world = site.hub.world
    generous.content = None
    transfer = site.transfer(replace(PARALLEL, batch=1))
    transfer.upstream = generous
    await transfer.run()
    assert site.part.have.total == DATA.size
    assert len(site.content()) == DATA.size
    assert site.part.path.stat().st_size == DATA.size
