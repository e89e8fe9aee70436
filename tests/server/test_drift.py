"""A server that looks upstream now and then says what moved, and goes on as before."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from proxy.server.drift import DriftWatch
from tests.fakes.world import regular
from tests.server.test_health import metric, status
from tests.server.world import World


class Enough(Exception):
    """As long as a test wants it to run."""


async def look(world: World, times: int = 1) -> list[float]:
    """Let the watch look so often; the pauses that it made."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > times:
            raise Enough

    with pytest.raises(Enough):
        await world.site.drift.run(pause=pause, clock=lambda: 1000.0)
    return pauses


async def told(world: World) -> dict[str, Any]:
    found = (await status(world))["drift"]
    assert isinstance(found, dict)
    return found


def move(world: World) -> str:
    return str(world.hub.world.repo("acme/tiny").commit({"config.json": regular('{"b": 2}')}))


async def test_what_moved_is_in_the_status_the_metrics_and_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await told(world))["checked"] is None
    before = world.mirror.catalog.lock
    move(world)
    with caplog.at_level(logging.WARNING):
        await look(world, times=2)
    found = await told(world)
    assert [one["pair"] for one in found["pairs"]] == ["acme/tiny@main"]
    assert found["checked"] == 1000
    assert await metric(world, "hubpin_pairs_drifted") == 1
    assert caplog.text.count("acme/tiny@main is at") == 1, "it is said once"
    assert world.mirror.catalog.lock == before


async def test_what_was_followed_is_drift_no_more(world: World) -> None:
    move(world)
    await look(world)
    world.config.lock.unlink()
    await world.lock()
    assert (await told(world))["pairs"] == []
    assert await metric(world, "hubpin_pairs_drifted") == 0


async def test_it_looks_once_per_period_and_not_at_the_start(world: World) -> None:
    assert await look(world, times=2) == [60, 86400, 86400]


async def test_nobody_is_asked_when_offline_or_told_not_to(world: World) -> None:
    for config in (
        replace(world.config, offline=True), replace(world.config, drift_check=0.0)
    ):  # fmt: skip
        await DriftWatch(replace(world.mirror, config=config)).run()  # returns


async def test_what_is_gone_upstream_is_drift_and_served_as_before(world: World) -> None:
    del world.hub.world.repos["acme/tiny"]
    await look(world)
    found = await told(world)
    assert {one["upstream_commit"] for one in found["pairs"]} == {None}
    assert (await world.ask(world.url("config.json"))).status == 200


async def test_a_broken_allowlist_does_not_end_the_watch(world: World) -> None:
    world.config.allowlist.write_text("allow: 1\n")
    await look(world, times=3)
    assert (await told(world))["checked"] is None
