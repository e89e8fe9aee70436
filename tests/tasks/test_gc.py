"""gc: what no pin needs goes, what one needs stays."""

from __future__ import annotations

import pytest

from proxy.errors import ConfigError, StoreError
from proxy.hub.names import Digest
from proxy.mirror import flock
from proxy.tasks import gc as tasks
from proxy.tasks import lock as locking
from proxy.tasks import warm
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import PAIR, REPO, Site, collect

GONE = "acme/gone@main"


async def two_pairs(site: Site, hub: FakeHub) -> Digest:
    """Two warm pairs, of which one is locked no more; its blob."""
    entry = hub.publish("acme/gone", "gone.bin", b"g" * 5000)
    site.allow(f"- {PAIR}", f"- {GONE}")
    await site.run_lock()
    async with site.mirror() as mirror:
        await collect(warm.warm(mirror))
        site.allow(f"- {PAIR}")
        await collect(locking.prune(mirror))
    return entry.digest


async def test_what_no_pin_needs_goes_and_what_one_needs_stays(site: Site, hub: FakeHub) -> None:
    gone = await two_pairs(site, hub)
    async with site.mirror() as mirror:
        events = await collect(tasks.gc(mirror))
        assert events[0] == tasks.Swept(gone, 5000)
        finished = events[-1]
        assert isinstance(finished, tasks.Finished)
        assert (finished.blobs, finished.freed, finished.kept_blobs) == (1, 5000, 3)
        for entry in hub.entries(REPO).values():
            assert await mirror.cache.held(entry)
        assert await mirror.store.size(gone) is None


async def test_a_dry_run_deletes_nothing(site: Site, hub: FakeHub) -> None:
    gone = await two_pairs(site, hub)
    async with site.mirror() as mirror:
        assert tasks.Swept(gone, 5000) in await collect(tasks.gc(mirror, dry_run=True))
        assert await mirror.store.size(gone) == 5000


async def test_a_pin_that_is_not_allowed_any_more_is_still_needed(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    site.allow("- acme/other@main")
    async with site.mirror() as mirror:
        finished = (await collect(tasks.gc(mirror)))[-1]
    assert isinstance(finished, tasks.Finished)
    assert finished.blobs == 0


async def test_without_a_readable_lock_nothing_is_deleted(site: Site, hub: FakeHub) -> None:
    await two_pairs(site, hub)
    async with site.mirror() as mirror:
        held = [one async for one in mirror.store.list()]
        site.config.lock.write_text("{")
        with pytest.raises(ConfigError):
            await collect(tasks.gc(mirror))
        site.config.lock.unlink()
        with pytest.raises(ConfigError, match="there is no lock"):
            await collect(tasks.gc(mirror))
        assert [one async for one in mirror.store.list()] == held


async def test_nothing_is_swept_while_somebody_locks(site: Site, hub: FakeHub) -> None:
    await two_pairs(site, hub)
    async with site.mirror() as mirror, mirror.publishing():
        with pytest.raises(StoreError):
            await collect(tasks.gc(mirror))


async def test_abandoned_downloads_go_and_running_ones_stay(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        needed = hub.entries(REPO)["model.bin"].digest.hex
        for name in (f"{'0' * 64}.part", f"{needed}.part", "abc.small", "busy.small", "other"):
            (mirror.spool / name).write_bytes(b"x")
        with flock.holding(mirror.spool / "busy.small"):
            events = await collect(tasks.gc(mirror))
        swept = {event.name for event in events if isinstance(event, tasks.SweptPart)}
        assert swept == {f"{'0' * 64}.part", "abc.small"}
        left = {path.name for path in mirror.spool.iterdir()}
        assert left == {f"{needed}.part", "busy.small", "other"}
