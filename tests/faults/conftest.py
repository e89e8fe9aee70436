"""A Hub for the whole session, and a new mirror for every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fakes.control import HubControl
from tests.fakes.hub_process import HubProcess
from tests.fakes.hub_server import HubServer
from tests.fakes.settings import Settings
from tests.fakes.world import lfs
from tests.faults.bench import (
    ALLOW,
    BIG,
    BIG_PATH,
    FILE,
    FILES,
    REPO,
    SMALL,
    Bench,
    small_world,
)  # fmt: skip
from tests.faults.client import ask
from tests.faults.mirror import MirrorProcess, Nursery, Source
from tests.faults.place import Place


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a minute by itself goes last, when the minute is over."""
    items.sort(key=lambda item: item.get_closest_marker("at_the_end") is not None)


@pytest.fixture(scope="session")
def shared_hub() -> Iterator[HubControl]:
    with HubProcess(Settings(world="empty")) as hub:
        hub.commit(REPO, FILES)
        hub.commit("acme/big", {"big.bin": lfs(BIG)})
        yield hub


@pytest.fixture(scope="session")
def lock(shared_hub: HubControl) -> Iterator[bytes]:
    """The lock of what the shared Hub holds."""
    mirror = MirrorProcess([Source(shared_hub.url)], ALLOW)
    done = mirror.command("lock")
    assert done.returncode == 0, done.stderr
    yield mirror.lock.read_bytes()
    mirror.close()


@pytest.fixture(scope="session")
def nursery(shared_hub: HubControl, lock: bytes) -> Iterator[Nursery]:
    nursery = Nursery([Source(shared_hub.url)], ALLOW, lock)
    yield nursery
    nursery.close()


@pytest.fixture
def hub(shared_hub: HubControl) -> Iterator[HubControl]:
    """The shared Hub as if it were new."""
    shared_hub.heal()
    shared_hub.reset()
    yield shared_hub
    shared_hub.heal()


@pytest.fixture
def bench(hub: HubControl, nursery: Nursery) -> Iterator[Bench]:
    """A mirror with everything locked and nothing held; checked when the test is done with it."""
    mirror = nursery.take()
    try:
        bench = Bench(hub, mirror)
        yield bench
        bench.aftermath()
    finally:
        mirror.close()


@pytest.fixture(scope="session")
def place(shared_hub: HubControl, lock: bytes) -> Iterator[Place]:
    mirror = MirrorProcess([Source(shared_hub.url)], ALLOW, lock=lock).start()
    place = Place(Bench(shared_hub, mirror))
    try:
        shared_hub.heal()
        for url in (place.bench.url(FILE), place.bench.url(SMALL), mirror.url + BIG_PATH):
            assert ask(url).status == 200
        yield place
    finally:
        for client in place.slow:
            client.close()
        mirror.close()


@pytest.fixture
def own_hub() -> Iterator[HubServer]:
    """A Hub whose world the test may change."""
    with HubServer(small_world()) as hub:
        yield hub


@pytest.fixture
def second_hub() -> Iterator[HubServer]:
    """Another one with the same repositories and the same commits."""
    with HubServer(small_world()) as hub:
        yield hub


@pytest.fixture
def start(lock: bytes) -> Iterator[Callable[..., MirrorProcess]]:
    """Starts mirrors of the test's own; everything that the shared Hub has is locked there."""
    mirrors: list[MirrorProcess] = []

    def start(
        *hubs: HubControl | Source, locked: bool = True, allow: tuple[str, ...] = ALLOW,
        settings: dict[str, str] | None = None, environment: dict[str, str] | None = None,
    ) -> MirrorProcess:  # fmt: skip
        sources = [hub if isinstance(hub, Source) else Source(hub.url) for hub in hubs]
        mirror = MirrorProcess(
            sources, allow, lock=lock if locked else b"", settings=settings,
            environment=environment,
        )  # fmt: skip
        mirrors.append(mirror)
        return mirror.start()

    yield start
    for mirror in mirrors:
        mirror.close()
