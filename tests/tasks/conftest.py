"""A site in a temporary directory, with a Hub in memory as its upstream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from proxy.assemble import prepare_data
from proxy.config import Config
from proxy.mirror.cache import BlobCache
from proxy.mirror.mirror import Mirror
from proxy.mirror.transfer import Tuning
from proxy.pins import lock as locks
from proxy.pins.lock import Lock
from proxy.pins.reload import Reloader
from proxy.store.local import LocalStore
from proxy.store.recency import Recency
from proxy.tasks import lock as locking
from proxy.upstream.base import Upstream
from proxy.upstream.failover import Failover
from tests.fakes.memory import FakeHub

T = TypeVar("T")

REPO = "acme/tiny"
PAIR = "acme/tiny@main"


async def no_pause(seconds: float) -> None:
    """Time flies."""


async def collect(events: AsyncGenerator[T]) -> list[T]:
    async with aclosing(events) as opened:
        return [event async for event in opened]


class Site:
    """An allowlist, its lock, and a data directory."""

    def __init__(self, folder: Path, hub: FakeHub) -> None:
        self.config = Config(data=folder / "data", allowlist=folder / "allowlist.yaml", keep_free=0)
        self.hub = hub
        self.allow(f"- {PAIR}")

    def allow(self, *entries: str) -> None:
        text = "".join(f"  {line}\n" for entry in entries for line in entry.splitlines())
        self.config.allowlist.write_text(f"allow:\n{text}")

    def lock(self) -> Lock:
        return locks.load(self.config.lock)

    @asynccontextmanager
    async def mirror(self, *hubs: Upstream, offline: bool = False) -> AsyncIterator[Mirror]:
        prepare_data(self.config)
        members = list(hubs) or [self.hub]
        upstream = members[0] if len(members) == 1 else Failover(members)
        store = LocalStore(self.config.data)
        recency = Recency(self.config.data / "index-v1")
        async with AsyncExitStack() as stack:
            stack.callback(recency.close)
            cache = BlobCache(
                store, upstream, data=self.config.data, recency=recency, tuning=Tuning()
            )
            stack.push_async_callback(cache.close)
            yield Mirror(
                replace(self.config, offline=offline),
                Reloader(self.config.allowlist, self.config.lock),
                cache, store, recency, upstream, tuple(members),
            )  # fmt: skip

    async def run_lock(self, *hubs: Upstream) -> list[locking.Event]:
        async with self.mirror(*hubs) as mirror:
            return await collect(locking.lock(mirror, pause=no_pause))


@pytest.fixture
def hub() -> FakeHub:
    hub = FakeHub()
    hub.publish(REPO, "config.json", '{"a": 1}', lfs=False)
    hub.publish(REPO, "README.md", "---\nlicense: mit\n---\n", lfs=False)
    hub.publish(REPO, "model.bin", bytes(range(256)) * 4000)
    return hub


@pytest.fixture
def site(tmp_path: Path, hub: FakeHub) -> Site:
    return Site(tmp_path, hub)
