"""lock: what is frozen, what never moves, and what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from proxy.errors import (
    ConfigError,
    DigestMismatch,
    RepoNotAllowed,
    RevisionNotAllowed,
    StoreError,
    UpstreamError,
    UpstreamUnavailable,
)
from proxy.hub.names import Pair
from proxy.pins import lock as locks
from proxy.tasks import lock as tasks
from proxy.tasks import lockfile
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import PAIR, REPO, Site, collect, no_pause


async def test_every_file_is_locked_with_the_digest_of_its_bytes(site: Site, hub: FakeHub) -> None:
    hub.world.repo(REPO).extra = {"cardData": {"license": "mit"}}
    await site.run_lock()
    pin = site.lock().pins[Pair(PAIR)]
    assert dict(pin.files) == hub.entries(REPO)
    assert pin.license == "mit"
    assert pin.upstream == hub.name


async def test_locking_the_same_state_twice_gives_the_same_bytes(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    first = site.config.lock.read_bytes()
    events = await site.run_lock()
    assert any(isinstance(event, tasks.Kept) for event in events)
    assert site.config.lock.read_bytes() == first
    site.config.lock.unlink()
    hub.world.repo(REPO).extra = {"downloads": 77, "likes": 5, "trendingScore": 9}
    await site.run_lock()
    assert site.config.lock.read_bytes() == first


async def test_a_locked_pair_is_not_moved(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    before = site.config.lock.read_bytes()
    hub.publish(REPO, "config.json", '{"a": 2}', lfs=False)
    hub.asked.clear()
    await site.run_lock()
    assert site.config.lock.read_bytes() == before
    assert hub.asked == []


async def test_an_update_moves_a_pair_and_says_what_changes(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    entry = hub.publish(REPO, "config.json", '{"a": 2}', lfs=False)
    async with site.mirror() as mirror:
        events = await collect(tasks.lock(mirror, update=[Pair(PAIR)], pause=no_pause))
    locked = next(event for event in events if isinstance(event, tasks.Locked))
    assert locked.old is not None
    assert locked.delta is not None
    assert [new.path for _, new in locked.delta.changed] == ["config.json"]
    assert site.lock().pins[Pair(PAIR)].files["config.json"] == entry
    # The other small file is known by its git id and is not read again.
    assert [path for path, _ in hub.fetched].count("README.md") == 1


async def test_an_update_goes_back_only_by_force(site: Site, hub: FakeHub) -> None:
    old = hub.world.repo(REPO).at("main").sha
    hub.publish(REPO, "config.json", '{"a": 2}', lfs=False)
    await site.run_lock()
    hub.world.repo(REPO).move("main", old)
    async with site.mirror() as mirror:
        events = await collect(tasks.lock(mirror, update=[Pair(PAIR)], pause=no_pause))
        failed = next(event for event in events if isinstance(event, tasks.Failed))
        assert "--force" in str(failed.error)
        assert site.lock().pins[Pair(PAIR)].commit != old
        await collect(tasks.lock(mirror, update=[Pair(PAIR)], force=True, pause=no_pause))
        assert site.lock().pins[Pair(PAIR)].commit == old


async def test_only_what_is_allowed_can_be_updated(site: Site) -> None:
    async with site.mirror() as mirror:
        with pytest.raises(RepoNotAllowed):
            await collect(tasks.lock(mirror, update=[Pair("acme/other@main")]))
        with pytest.raises(RevisionNotAllowed, match="Allowed revisions: main"):
            await collect(tasks.lock(mirror, update=[Pair("acme/tiny@v1")]))


async def test_another_filter_reads_the_same_commit_again(site: Site, hub: FakeHub) -> None:
    site.allow('- repo: acme/tiny\n  revision: main\n  include: ["*.json"]')
    await site.run_lock()
    narrow = site.lock().pins[Pair(PAIR)]
    assert list(narrow.files) == ["config.json"]
    hub.publish(REPO, "config.json", '{"a": 2}', lfs=False)
    site.allow(f"- {PAIR}")
    await site.run_lock()
    wide = site.lock().pins[Pair(PAIR)]
    assert wide.commit == narrow.commit
    assert set(wide.files) == {"config.json", "README.md", "model.bin"}
    assert wide.files["config.json"].digest == narrow.files["config.json"].digest


async def test_small_files_are_held_once_they_are_locked(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        files = mirror.catalog.lock.pins[Pair(PAIR)].files
        assert await mirror.store.size(files["config.json"].digest) == files["config.json"].size
        assert await mirror.store.size(files["model.bin"].digest) is None
        assert list(mirror.spool.iterdir()) == []


async def test_one_pair_that_fails_does_not_cost_the_others(site: Site, hub: FakeHub) -> None:
    site.allow("- acme/missing@main", f"- {PAIR}")
    events = await site.run_lock()
    assert events[-1] == tasks.Finished(locked=1, kept=0, failed=1)
    assert set(site.lock().pins) == {PAIR}


@pytest.mark.parametrize("kind", ["gated", "private"])
async def test_a_restricted_repository_is_not_opened_to_everyone(
    site: Site, hub: FakeHub, kind: str
) -> None:
    if kind == "gated":
        hub.world.repo(REPO).gated = "auto"
    else:
        hub.world.repo(REPO).private = True
    failed = [event for event in await site.run_lock() if isinstance(event, tasks.Failed)]
    assert isinstance(failed[0].error, ConfigError)
    assert "share: lan" in str(failed[0].error)
    assert kind in str(failed[0].error)
    assert site.lock().pins == {}
    site.allow("- repo: acme/tiny\n  revision: main\n  share: lan")
    await site.run_lock()
    assert set(site.lock().pins) == {PAIR}


async def test_wrong_bytes_of_a_small_file_are_never_locked(site: Site, hub: FakeHub) -> None:
    hub.lies = True
    failed = [event for event in await site.run_lock() if isinstance(event, tasks.Failed)]
    assert isinstance(failed[0].error, DigestMismatch)
    assert hub.blamed
    assert site.lock().pins == {}


async def test_a_cut_small_file_resumes_where_it_stopped(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "vocab.txt", b"v" * 200_000, lfs=False)
    hub.cut_after = 100_000
    await site.run_lock()
    assert ("vocab.txt", 100_000) in hub.fetched
    assert site.lock().pins[Pair(PAIR)].files["vocab.txt"].size == 200_000


async def test_an_upstream_without_ranges_starts_over(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "vocab.txt", b"v" * 200_000, lfs=False)
    hub.cut_after, hub.ignores_range = 100_000, True
    await site.run_lock()
    assert [start for path, start in hub.fetched if path == "vocab.txt"] == [0, 100_000, 0]
    assert site.lock().pins[Pair(PAIR)].files["vocab.txt"].size == 200_000


async def test_a_tree_that_breaks_off_is_read_again(site: Site, hub: FakeHub) -> None:
    hub.cut_tree_after = 1
    await site.run_lock()
    assert len(site.lock().pins[Pair(PAIR)].files) == 3


async def test_an_upstream_that_is_down_is_asked_some_times_and_named(
    site: Site, hub: FakeHub
) -> None:
    hub.down, hub.retry_after_s = True, 5.0
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    async with site.mirror() as mirror:
        events = await collect(tasks.lock(mirror, pause=pause))
    failed = next(event for event in events if isinstance(event, tasks.Failed))
    assert isinstance(failed.error, UpstreamUnavailable)
    assert waits == [5.0, 5.0]


async def test_the_first_authority_decides_and_a_stale_one_is_named(
    site: Site, hub: FakeHub
) -> None:
    stale = FakeHub("stale")
    stale.publish(REPO, "config.json", "old", lfs=False)
    events = await site.run_lock(hub, stale)
    warned = [event for event in events if isinstance(event, tasks.Warned)]
    assert len(warned) == 1
    assert "stale says" in warned[0].message
    pin = site.lock().pins[Pair(PAIR)]
    assert (pin.commit, pin.upstream) == (hub.world.repo(REPO).at("main").sha, hub.name)


async def test_the_next_authority_answers_for_one_that_is_down(site: Site, hub: FakeHub) -> None:
    first = FakeHub("first")
    first.down = True
    await site.run_lock(first, hub)
    assert site.lock().pins[Pair(PAIR)].upstream == hub.name


async def test_a_commit_that_means_another_one_is_refused(site: Site, hub: FakeHub) -> None:
    repo = hub.world.repo(REPO)
    site.allow(f"- acme/tiny@{'1' * 40}")
    repo.tags["1" * 40] = repo.at("main").sha
    failed = [event for event in await site.run_lock() if isinstance(event, tasks.Failed)]
    assert isinstance(failed[0].error, UpstreamError)


async def test_a_commit_that_lists_other_bytes_than_before_is_refused(
    site: Site, hub: FakeHub
) -> None:
    site.allow('- repo: acme/tiny\n  revision: main\n  include: ["model.bin"]')
    await site.run_lock()
    lock = site.lock()
    pin = lock.pins[Pair(PAIR)]
    digest = hub.entries(REPO)["config.json"].digest
    other = msgspec.structs.replace(pin.files["model.bin"], digest=digest)
    forged = replace(pin, files={"model.bin": other})
    site.config.lock.write_bytes(locks.dumps(lock.with_pins([forged])))
    site.allow(f"- {PAIR}")
    failed = [event for event in await site.run_lock() if isinstance(event, tasks.Failed)]
    assert isinstance(failed[0].error, DigestMismatch)


async def test_pins_off_the_allowlist_stay_until_they_are_pruned(site: Site, hub: FakeHub) -> None:
    hub.publish("acme/other", "a.txt", "a", lfs=False)
    site.allow(f"- {PAIR}", "- acme/other@main")
    await site.run_lock()
    site.allow(f"- {PAIR}")
    await site.run_lock()
    assert "acme/other@main" in site.lock().pins
    async with site.mirror() as mirror:
        dropped = await collect(tasks.prune(mirror))
    assert [event.pair for event in dropped] == ["acme/other@main"]
    assert set(site.lock().pins) == {PAIR}


async def test_fields_of_a_newer_tool_survive_an_update(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    text = site.config.lock.read_text().replace('"commit"', '"channel": "canary",\n   "commit"', 1)
    site.config.lock.write_text(text)
    hub.publish(REPO, "config.json", '{"a": 2}', lfs=False)
    async with site.mirror() as mirror:
        await collect(tasks.lock(mirror, update=[Pair(PAIR)], pause=no_pause))
    assert site.lock().pins[Pair(PAIR)].extra == {"channel": "canary"}


async def test_two_who_lock_the_same_pair_agree_on_the_first_ones(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    theirs = site.lock().pins[Pair(PAIR)]
    ours = replace(theirs, date="2030-01-01T00:00:00.000Z")
    assert await lockfile.save(site.config.lock, ours, instead_of=None) == theirs
    assert await lockfile.save(site.config.lock, ours, instead_of=theirs) == ours
    with pytest.raises(StoreError, match="somebody else"):
        await lockfile.save(site.config.lock, theirs, instead_of=theirs)


async def test_many_who_lock_different_pairs_lose_nothing(site: Site, hub: FakeHub) -> None:
    names = [f"acme/m{number}" for number in range(8)]
    for name in names:
        hub.publish(name, "a.txt", name, lfs=False)
    site.allow(*(f"- {name}@main" for name in names))
    async with site.mirror() as mirror, asyncio.timeout(20):
        await asyncio.gather(
            *(collect(tasks.lock(mirror, only=[Pair(f"{name}@main")])) for name in names)
        )
    assert set(site.lock().pins) == {f"{name}@main" for name in names}


async def test_the_lock_keeps_its_mode_and_stays_a_link(site: Site, hub: FakeHub) -> None:
    real = site.config.lock.parent / "elsewhere.lock"
    real.write_bytes(locks.dumps(locks.Lock()))
    real.chmod(0o640)
    site.config.lock.symlink_to(real.name)
    await site.run_lock()
    assert site.config.lock.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert set(locks.load(real).pins) == {PAIR}
