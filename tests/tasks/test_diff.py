"""diff: two locked pairs, or a pair and what its upstream has now."""

from __future__ import annotations

import pytest

from proxy.errors import RevisionNotPinned
from proxy.hub.names import Pair
from proxy.tasks import diff as tasks
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import PAIR, REPO, Site, collect


async def compare(site: Site, old: str, new: str | None) -> tasks.Compared:
    async with site.mirror() as mirror:
        events = await collect(tasks.diff(mirror, Pair(old), Pair(new) if new else None))
    compared = events[-1]
    assert isinstance(compared, tasks.Compared)
    return compared


async def test_two_pairs_are_compared_from_the_lock_alone(site: Site, hub: FakeHub) -> None:
    hub.world.repo(REPO).tag("v1")
    hub.publish(REPO, "model.bin", b"other weights")
    hub.publish(REPO, "new.txt", "new", lfs=False)
    site.allow(f"- {PAIR}", "- acme/tiny@v1")
    await site.run_lock()
    hub.down = True
    compared = await compare(site, "acme/tiny@v1", PAIR)
    assert [entry.path for entry in compared.delta.added] == ["new.txt"]
    assert [new.path for _, new in compared.delta.changed] == ["model.bin"]
    assert compared.delta.bytes_to_move == len(b"other weights") + 3


async def test_what_an_update_would_do_is_shown_and_not_done(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    before = site.config.lock.read_bytes()
    hub.publish(REPO, "config.json", '{"bigger": true}', lfs=False)
    hub.world.repo(REPO).extra = {"cardData": {"license": "cc-by-nc-4.0"}}
    hub.fetched.clear()
    compared = await compare(site, PAIR, None)
    assert [new.path for _, new in compared.delta.changed] == ["config.json"]
    assert (compared.delta.added, compared.delta.removed) == ((), ())
    assert compared.delta.bytes_to_move == len('{"bigger": true}')
    assert compared.new.license == "cc-by-nc-4.0"
    assert hub.fetched == [("config.json", 0)], "to look into it"
    assert site.config.lock.read_bytes() == before


async def test_nothing_changes_where_nothing_moved(site: Site) -> None:
    await site.run_lock()
    compared = await compare(site, PAIR, None)
    assert compared.old.commit == compared.new.commit
    assert compared.delta.bytes_to_move == 0
    assert (compared.delta.added, compared.delta.changed) == ((), ())


async def test_files_that_the_filter_does_not_admit_do_not_count(site: Site, hub: FakeHub) -> None:
    site.allow('- repo: acme/tiny\n  revision: main\n  include: ["*.json"]')
    await site.run_lock()
    hub.publish(REPO, "huge.bin", b"x" * 1000)
    assert (await compare(site, PAIR, None)).delta.added == ()


async def test_a_pair_that_is_not_locked_cannot_be_compared(site: Site) -> None:
    with pytest.raises(RevisionNotPinned):
        await compare(site, PAIR, None)
