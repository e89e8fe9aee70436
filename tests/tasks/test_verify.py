"""verify: held bytes against the lock, and their repair."""

from __future__ import annotations

from pathlib import Path

from proxy.hub.names import Digest
from proxy.tasks import verify as tasks
from proxy.tasks import warm
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import REPO, Site, collect


def blob(site: Site, digest: Digest) -> Path:
    return next(site.config.data.rglob(f"blobs-v1/**/{digest.hex}"))


def spoil(site: Site, digest: Digest) -> None:
    file = blob(site, digest)
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


async def warmed(site: Site) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        await collect(warm.warm(mirror))


async def run(site: Site, *, repair: bool = False) -> list[tasks.Event]:
    async with site.mirror() as mirror:
        return await collect(tasks.verify(mirror, repair=repair))


async def test_right_bytes_are_right(site: Site) -> None:
    await warmed(site)
    assert (await run(site))[-1] == tasks.Finished(3, 0, 0, 0, 0)


async def test_a_flipped_bit_is_found_and_not_held_any_more(site: Site, hub: FakeHub) -> None:
    await warmed(site)
    entry = hub.entries(REPO)["model.bin"]
    spoil(site, entry.digest)
    events = await run(site)
    assert [event.entry.path for event in events if isinstance(event, tasks.Bad)] == ["model.bin"]
    assert events[-1] == tasks.Finished(right=2, bad=1, missing=0, repaired=0, failed=0)
    async with site.mirror() as mirror:
        assert not await mirror.cache.held(entry)


async def test_a_repair_fetches_what_is_bad(site: Site, hub: FakeHub) -> None:
    await warmed(site)
    spoil(site, hub.entries(REPO)["model.bin"].digest)
    events = await run(site, repair=True)
    assert events[-1] == tasks.Finished(right=2, bad=1, missing=0, repaired=1, failed=0)
    assert (await run(site))[-1] == tasks.Finished(3, 0, 0, 0, 0)


async def test_a_repair_fetches_what_an_earlier_check_put_aside(site: Site, hub: FakeHub) -> None:
    await warmed(site)
    spoil(site, hub.entries(REPO)["model.bin"].digest)
    await run(site)
    events = await run(site, repair=True)
    assert events[-1] == tasks.Finished(right=2, bad=0, missing=1, repaired=1, failed=0)


async def test_a_repair_without_an_upstream_says_that_it_failed(site: Site, hub: FakeHub) -> None:
    await warmed(site)
    spoil(site, hub.entries(REPO)["model.bin"].digest)
    hub.missing = True
    events = await run(site, repair=True)
    assert events[-1] == tasks.Finished(right=2, bad=1, missing=0, repaired=0, failed=1)


async def test_what_was_never_held_is_left_alone(site: Site, hub: FakeHub) -> None:
    hub.publish("acme/cold", "cold.bin", b"c" * 1000)
    site.allow("- acme/cold@main")
    await site.run_lock()
    events = await run(site, repair=True)
    assert events[-1] == tasks.Finished(right=0, bad=0, missing=1, repaired=0, failed=0)
