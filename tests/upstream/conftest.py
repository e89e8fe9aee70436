"""Two servers that misbehave on request, and an upstream that asks them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from yarl import URL

from proxy.config import Secret, Timeouts, UpstreamConfig
from proxy.upstream.exchange import Limits
from proxy.upstream.hub import HubUpstream
from proxy.upstream.manners import Manners
from tests.upstream.contract import world
from tests.upstream.hubs import TOKEN, FakeTime, Make
from tests.upstream.origin import Origin, of_world, origin


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def hub() -> AsyncIterator[Origin]:
    async with origin() as made:
        made.otherwise = of_world(world())
        yield made


@pytest.fixture
async def cdn() -> AsyncIterator[Origin]:
    async with origin("127.0.0.2") as made:
        yield made


@pytest.fixture
async def make(hub: Origin, cdn: Origin, time: FakeTime) -> AsyncIterator[Make]:
    made: list[HubUpstream] = []

    def make_one(
        url: str = "",
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
    ) -> HubUpstream:
        hosts = (f"{cdn.host}:{cdn.port}",)
        config = UpstreamConfig(URL(url or hub.url), Secret(TOKEN), redirect_hosts=hosts)
        manners = Manners("hub", clock=time, sleep=time.sleep, jitter=lambda: 1.0)
        timeouts = timeouts or Timeouts(connect=2.0, read=5.0)
        made.append(HubUpstream(config, timeouts, limits=limits, manners=manners))
        return made[-1]

    yield make_one
    for one in made:
        await one.close()


@pytest.fixture
def upstream(make: Make) -> HubUpstream:
    return make()
