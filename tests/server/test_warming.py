"""Pairs marked `warm: true` are fetched by the running server, without anyone asking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.hub.names import Pair
from proxy.server.upkeep import Upkeep
from proxy.telemetry import metrics
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import Site

WARM, COLD = Pair("acme/warm@main"), Pair("acme/cold@main")


class EnoughError(Exception):
    """The test has seen what it wanted to see."""


class Rounds:
    """Does one thing after each round, then stops the loop; time is the sum of all rests."""

    def __init__(self, *between: Callable[[], object], rest_s: float = 0.0) -> None:
        self._between = list(between)
        self._rest_s = rest_s
        self.now = 0.0

    async def pause(self, seconds: float) -> None:
        self.now += self._rest_s or seconds
        if not self._between:
            raise EnoughError
        self._between.pop(0)()


@pytest.fixture
def hub() -> FakeHub:
    hub = FakeHub()
    for pair in (WARM, COLD):
        hub.publish(pair.repo, "model.bin", f"weights of {pair}")
    return hub


@pytest.fixture
async def site(tmp_path: Path, hub: FakeHub) -> Site:
    site = Site(tmp_path, hub)
    site.allow("- repo: acme/warm\n  revision: main\n  warm: true", f"- {COLD}")
    await site.run_lock()
    hub.fetched.clear()
    return site


async def run(site: Site, *between: Callable[[], object], rest_s: float = 0.0) -> None:
    async with site.mirror() as mirror:
        rounds = Rounds(*between, rest_s=rest_s)
        with pytest.raises(EnoughError):
            await Upkeep(mirror).keep_warm(pause=rounds.pause, clock=lambda: rounds.now)


async def test_a_pair_marked_warm_is_fetched_and_no_other(site: Site, hub: FakeHub) -> None:
    await run(site)
    assert hub.fetched == [("model.bin", 0)]
    async with site.mirror() as mirror:
        held = {
            snapshot.pair: await mirror.cache.held(snapshot.entry("model.bin"))
            for snapshot in mirror.catalog.snapshots()
        }
    assert held == {WARM: True, COLD: False}


async def test_what_was_warm_once_may_be_evicted_in_peace(site: Site, hub: FakeHub) -> None:
    digest = site.lock().pins[WARM].files["model.bin"].digest
    blob = site.config.data / "blobs-v1/sha256" / digest.hex[:2] / digest.hex
    await run(site, blob.unlink, lambda: None)
    assert hub.fetched == [("model.bin", 0)]


async def test_a_pair_that_could_not_be_had_is_left_alone_for_a_while(
    site: Site, hub: FakeHub
) -> None:
    hub.missing = True
    await run(site, lambda: None, lambda: None)
    assert len(hub.fetched) == 1


async def test_a_pair_that_could_not_be_had_is_tried_again_later(site: Site, hub: FakeHub) -> None:
    hub.missing = True
    await run(site, lambda: setattr(hub, "missing", False), rest_s=3600)
    assert len(hub.fetched) == 2
    async with site.mirror() as mirror:
        assert await mirror.cache.held(mirror.catalog.lock.pins[WARM].files["model.bin"])


async def test_a_metric_tells_what_is_still_missing(site: Site, hub: FakeHub) -> None:
    hub.down = True
    await run(site)
    assert _missing() == len(f"weights of {WARM}")
    hub.down = False
    await run(site)
    assert _missing() == 0


def _missing() -> float | None:
    return metrics.REGISTRY.get_sample_value("hubpin_warm_missing_bytes")
