"""Pairs that appear on the list are locked by themselves, once, and never moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from proxy.errors import Busy, MirrorError, RevisionNotPinned
from proxy.hub.names import Pair
from proxy.server import autolock
from tests.server.world import ALLOWLIST, World, came_true, serving

PAIR = Pair("acme/tiny@main")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    """Nothing is locked at the start."""
    async with serving(tmp_path, auto_lock=True) as made:
        yield made


async def test_who_asks_for_a_pair_that_is_not_locked_yet_waits_for_it(world: World) -> None:
    reply = await world.ask(world.url("config.json"))
    assert (reply.status, reply.body) == (200, b"{}")
    assert world.config.lock.exists()


async def test_all_pairs_of_the_list_are_locked_without_anybody_asking(world: World) -> None:
    await came_true(lambda: not list(world.mirror.catalog.unlocked()))
    assert len(world.mirror.catalog.lock.pins) == 3


async def test_many_who_ask_at_once_cause_one_question(world: World) -> None:
    replies = await asyncio.gather(*(world.ask(world.url("config.json")) for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert world.hub.asked.count(("acme/tiny", "main")) == 1


async def test_a_pair_that_is_added_while_the_server_runs_is_locked(world: World) -> None:
    await came_true(lambda: not list(world.mirror.catalog.unlocked()))
    world.hub.publish("acme/new", "x.txt", "new", lfs=False)
    world.config.allowlist.write_text(ALLOWLIST + "  - acme/new@main\n")
    world.mirror.reloader.reload()
    world.site.autolock.wake()
    assert (await world.ask("/acme/new/resolve/main/x.txt")).body == b"new"


async def test_a_locked_pair_is_never_moved(world: World) -> None:
    first = await world.ask(world.url("config.json"))
    world.hub.publish("acme/tiny", "config.json", "changed", lfs=False)
    world.site.autolock.wake()
    await world.ask("/api/models/acme/tiny")
    again = await world.ask(world.url("config.json"))
    assert again.body == first.body
    assert again.headers["X-Repo-Commit"] == first.headers["X-Repo-Commit"]


async def test_a_pair_that_the_upstream_does_not_have_is_said_so(tmp_path: Path) -> None:
    async with serving(tmp_path, auto_lock=True, allowlist="allow: [acme/no@main]") as world:
        reply = await world.ask("/acme/no/resolve/main/x")
        assert reply.status in (404, 502)
        status = (await world.ask("/-/status")).json
        assert isinstance(status, dict)
        (unlocked,) = status["unlocked"]
        assert unlocked["pair"] == "acme/no@main"
        assert "acme/no" in unlocked["error"]


async def test_a_failed_pair_is_tried_again_when_somebody_asks_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autolock, "_RETRY_ASKED_S", 0.0)
    async with serving(tmp_path, auto_lock=True, allowlist="allow: [acme/late@main]") as world:
        assert (await world.ask("/acme/late/resolve/main/x.txt")).status >= 400
        world.hub.publish("acme/late", "x.txt", "here", lfs=False)
        assert (await world.ask("/acme/late/resolve/main/x.txt")).body == b"here"


async def test_one_pair_that_fails_does_not_cost_the_others(tmp_path: Path) -> None:
    text = ALLOWLIST + "  - acme/no@main\n"
    async with serving(tmp_path, auto_lock=True, allowlist=text) as world:
        assert (await world.ask(world.url("config.json"))).status == 200
        assert (await world.ask("/acme/no/resolve/main/x")).status >= 400
        assert (await world.ask(world.url("config.json"))).status == 200


async def test_nobody_waits_longer_than_his_patience(tmp_path: Path) -> None:
    async with serving(tmp_path, auto_lock=True) as world:
        world.hub.gate = asyncio.Event()  # small files do not come
        await world.hub.at_gate.wait()
        with pytest.raises(Busy):
            await world.site.autolock.settle(PAIR, 0.02)
        world.hub.gate.set()
        await world.site.autolock.settle(PAIR, 10.0)
        assert PAIR in world.mirror.catalog.lock.pins


async def test_a_hundred_who_wait_in_vain_all_hear_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path, auto_lock=True, allowlist="allow: [acme/no@main]") as world:
        results = await asyncio.gather(
            *(world.site.autolock.settle(Pair("acme/no@main"), 10.0) for _ in range(100)),
            return_exceptions=True,
        )
        assert all(isinstance(one, MirrorError) for one in results)


async def test_with_auto_lock_off_nothing_is_locked(tmp_path: Path) -> None:
    async with serving(tmp_path, auto_lock=False) as world:
        with pytest.raises(RevisionNotPinned):
            await world.site.autolock.settle(PAIR, 10.0)
        assert not world.hub.asked
