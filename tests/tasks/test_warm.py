"""warm: every blob is held afterwards, or named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from proxy.errors import RepoNotAllowed, StoreFull
from proxy.hub.names import Pair
from proxy.mirror import flock
from proxy.mirror.mirror import Mirror
from proxy.tasks import blobs
from proxy.tasks import warm as tasks
from proxy.upstream.paced import Pace, Paced, Window
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import PAIR, REPO, Site, collect


async def test_every_blob_is_held_afterwards(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        events = await collect(tasks.warm(mirror))
        assert isinstance(events[0], tasks.Planned)
        assert (events[0].files, events[0].held_files) == (3, 2)
        size = hub.entries(REPO)["model.bin"].size
        assert events[-1] == tasks.Finished(fetched_files=1, fetched_bytes=size, failed=0)
        held = await blobs.count_held(mirror)
        assert (held[0].held_files, held[0].held_bytes) == (3, held[0].snapshot.size)


async def test_warming_twice_fetches_nothing(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        await collect(tasks.warm(mirror))
        hub.down = True
        assert (await collect(tasks.warm(mirror)))[-1] == tasks.Finished(0, 0, 0)


async def test_progress_never_goes_back_and_ends_at_the_whole(site: Site, hub: FakeHub) -> None:
    for number in range(5):
        hub.publish(REPO, f"part{number}.bin", bytes([number]) * 3_000_000)
    await site.run_lock()
    async with site.mirror() as mirror:
        events = await collect(tasks.warm(mirror, jobs=3))
    seen = [e.done_bytes for e in events if isinstance(e, tasks.Progress | tasks.Fetched)]
    assert seen == sorted(seen)
    planned = events[0]
    assert isinstance(planned, tasks.Planned)
    assert seen[-1] == planned.bytes


async def test_one_file_that_fails_does_not_cost_the_others(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "zzz.bin", b"z" * 1000)
    await site.run_lock()
    del hub.world.repo(REPO).at("main").files["model.bin"]  # type: ignore[attr-defined]  # a dict underneath
    async with site.mirror() as mirror:
        events = await collect(tasks.warm(mirror, jobs=1))
        failed = [event.entry.path for event in events if isinstance(event, tasks.Failed)]
        assert failed == ["model.bin"]
        assert events[-1] == tasks.Finished(fetched_files=1, fetched_bytes=1000, failed=1)


async def test_what_does_not_fit_is_refused_before_anything_is_fetched(
    site: Site, hub: FakeHub
) -> None:
    await site.run_lock()
    hub.fetched.clear()
    site.config = replace(site.config, keep_free=1 << 62)
    async with site.mirror() as mirror:
        with pytest.raises(StoreFull):
            await collect(tasks.warm(mirror))
    assert hub.fetched == []


async def test_only_the_chosen_pairs_are_warmed(site: Site, hub: FakeHub) -> None:
    hub.publish("acme/other", "other.bin", b"o" * 1000)
    site.allow(f"- {PAIR}", "- acme/other@main")
    await site.run_lock()
    hub.fetched.clear()
    async with site.mirror() as mirror:
        await collect(tasks.warm(mirror, [Pair("acme/other@main")]))
        assert {path for path, _ in hub.fetched} == {"other.bin"}
        with pytest.raises(RepoNotAllowed):
            await collect(tasks.warm(mirror, [Pair("acme/nobody@main")]))


# --- certain hours --------------------------------------------------------------------------------


class Night:
    """A site that is warmed between 22:00 and 06:00; time passes with looks and pauses."""

    def __init__(self, site: Site, start: str, look_s: float = 0.0) -> None:
        self.site = site
        self.time = datetime.fromisoformat(f"2026-03-01T{start}")
        self.look_s = look_s
        self.paused_s = 0.0
        self.pace = Pace(window=Window.parse("22:00-06:00"))

    def now(self) -> datetime:
        self.time += timedelta(seconds=self.look_s)
        return self.time

    @asynccontextmanager
    async def mirror(self) -> AsyncIterator[Mirror]:
        async with self.site.mirror(Paced(self.site.hub, self.pace, now=self.now)) as mirror:
            yield replace(mirror, closed_s=lambda: self.pace.closed_s(self.now))

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.paused_s += seconds
        self.time += timedelta(seconds=seconds)
        # Nobody is held up meanwhile: not a client of a server that wants one of these files.
        for part in (self.site.config.data / "spool").glob("*.part"):
            with part.open("rb") as file:
                assert flock.lock(file.fileno())


async def test_it_waits_for_its_hours_and_says_so_once(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "more.bin", b"m" * 1000)
    await site.run_lock()
    hub.fetched.clear()
    night = Night(site, "21:00")
    async with night.mirror() as mirror:
        events = await collect(tasks.warm(mirror, pause=night.pause))
    assert [event for event in events if isinstance(event, tasks.Waiting)] == [tasks.Waiting(3600)]
    assert events[-1] == tasks.Finished(2, hub.entries(REPO)["model.bin"].size + 1000, 0)
    assert sorted(hub.fetched) == [("model.bin", 0), ("more.bin", 0)]


async def test_when_its_hours_end_it_lets_go_and_goes_on_the_next_night(
    site: Site, hub: FakeHub
) -> None:
    await site.run_lock()
    hub.fetched.clear()
    night = Night(site, "05:50", look_s=60)
    async with night.mirror() as mirror:
        events = await collect(tasks.warm(mirror, pause=night.pause))
        assert await mirror.cache.held(hub.entries(REPO)["model.bin"])
    assert len([event for event in events if isinstance(event, tasks.Waiting)]) == 1
    assert not [event for event in events if isinstance(event, tasks.Failed)]
    assert night.time.hour == 22
    (_, first), (_, second) = hub.fetched
    assert first == 0 < second
    seen = [e.done_bytes for e in events if isinstance(e, tasks.Progress | tasks.Fetched)]
    assert seen == sorted(seen)


async def test_nobody_waits_for_hours_if_all_is_held(site: Site) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        await collect(tasks.warm(mirror))
    night = Night(site, "12:00")
    async with night.mirror() as mirror:
        events = await collect(tasks.warm(mirror, pause=night.pause))
    assert (events[-1], night.paused_s) == (tasks.Finished(0, 0, 0), 0)


async def test_what_a_server_fetched_by_day_is_not_fetched_again(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    hub.fetched.clear()
    night = Night(site, "12:00")
    entry = hub.entries(REPO)["model.bin"]

    async with night.mirror() as mirror, site.mirror() as server:

        async def pause(seconds: float) -> None:
            await server.cache.hold(entry)
            await night.pause(seconds)

        events = await collect(tasks.warm(mirror, pause=pause))
    assert events[-1] == tasks.Finished(0, 0, 0)
    assert hub.fetched == [("model.bin", 0)]
