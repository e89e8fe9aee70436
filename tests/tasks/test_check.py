"""lock --check: unlocked, drifted, or nobody could be asked."""

from __future__ import annotations

from proxy.hub.names import Pair
from proxy.tasks import check as tasks
from proxy.tasks.lock import Warned
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import PAIR, REPO, Site, collect, no_pause


async def run(site: Site, *hubs: FakeHub, offline: bool = False) -> list[tasks.Event]:
    async with site.mirror(*hubs, offline=offline) as mirror:
        return await collect(tasks.check(mirror, pause=no_pause))


async def test_what_is_locked_and_has_not_moved_is_fine(site: Site) -> None:
    await site.run_lock()
    events = await run(site)
    assert events[-1] == tasks.Checked(1, 0, 0, 0, 0)


async def test_a_pair_that_nobody_locked_is_named(site: Site) -> None:
    assert tasks.Unlocked(Pair(PAIR)) in await run(site)


async def test_a_moved_revision_is_drift_and_is_not_followed(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    before = site.config.lock.read_bytes()
    hub.publish(REPO, "config.json", "new", lfs=False)
    events = await run(site)
    drifted = next(event for event in events if isinstance(event, tasks.Drifted))
    assert drifted.upstream_commit == hub.world.repo(REPO).at("main").sha
    assert site.config.lock.read_bytes() == before


async def test_a_deleted_repository_is_drift(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    del hub.world.repos[next(iter(hub.world.repos))]
    drifted = [event for event in await run(site) if isinstance(event, tasks.Drifted)]
    assert drifted[0].upstream_commit is None


async def test_a_changed_filter_is_named(site: Site) -> None:
    await site.run_lock()
    site.allow('- repo: acme/tiny\n  revision: main\n  exclude: ["*.bin"]')
    assert tasks.FilterChanged(Pair(PAIR)) in await run(site)


async def test_a_pin_off_the_allowlist_is_named(site: Site) -> None:
    await site.run_lock()
    site.allow("- acme/other@main")
    assert tasks.Unlisted(Pair(PAIR)) in await run(site)


async def test_nobody_to_ask_is_not_the_same_as_no_drift(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    hub.down = True
    events = await run(site)
    assert any(isinstance(event, tasks.Unknown) for event in events)
    assert events[-1] == tasks.Checked(1, 0, 0, 0, unknown=1)


async def test_offline_asks_nobody(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    hub.asked.clear()
    events = await run(site, offline=True)
    assert hub.asked == []
    assert [event.asked for event in events if isinstance(event, tasks.InForce)] == [False]


async def test_a_commit_cannot_drift(site: Site, hub: FakeHub) -> None:
    site.allow(f"- acme/tiny@{hub.world.repo(REPO).at('main').sha}")
    await site.run_lock()
    hub.asked.clear()
    assert (await run(site))[-1] == tasks.Checked(1, 0, 0, 0, 0)
    assert hub.asked == []


async def test_authorities_that_differ_are_named(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    stale = FakeHub("stale")
    stale.publish(REPO, "config.json", "old", lfs=False)
    assert any(isinstance(event, Warned) for event in await run(site, hub, stale))


async def test_what_a_policy_would_refuse_is_listed_before_it_is_made(site: Site) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        events = await collect(tasks.check(mirror, deny=(".bin",), pause=no_pause))
    (denied,) = [event for event in events if isinstance(event, tasks.Denied)]
    assert (denied.paths, denied.files) == (("model.bin",), 3)
    assert denied.bytes == 256 * 4000


async def test_a_policy_takes_denied_files_out_of_the_lock_and_back_in(site: Site) -> None:
    await site.run_lock()
    before = site.config.lock.read_bytes()
    text = site.config.allowlist.read_text()
    site.config.allowlist.write_text(f'formats:\n  deny: [".bin"]\n{text}')
    async with site.mirror() as mirror:
        events = await collect(tasks.check(mirror, pause=no_pause))
    assert {type(event) for event in events} >= {tasks.Denied, tasks.FilterChanged}
    await site.run_lock()
    assert set(site.lock().pins[Pair(PAIR)].files) == {"README.md", "config.json"}
    async with site.mirror() as mirror:
        assert isinstance((await collect(tasks.check(mirror, pause=no_pause)))[0], tasks.InForce)
    site.config.allowlist.write_text(text)
    await site.run_lock()
    assert site.config.lock.read_bytes() == before
