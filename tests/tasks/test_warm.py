"""warm: every blob is held afterwards, or named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.errors import RepoNotAllowed, StoreFull
from proxy.hub.names import Pair
from proxy.tasks import blobs
from proxy.tasks import warm as tasks
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
