"""Zygotes for the whole session, one for each thread of a test, and a bench for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.bench import HELD, Bench, small_world
from tests.crash.zygote import Zygote
from tests.fakes.hub_server import HubServer


@pytest.fixture(scope="session")
def zygotes() -> Iterator[list[Zygote]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Zygote()) for _ in range(2)]


@pytest.fixture
def zygote(zygotes: list[Zygote]) -> Zygote:
    return zygotes[0]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(small_world()) as hub:
        yield hub


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where the mirror of `bench` keeps its data."""
    return tmp_path / "m" / "data"


@pytest.fixture
def idle(tmp_path: Path, data: Path, zygote: Zygote, hub: HubServer) -> Iterator[Bench]:
    """A mirror that has locked everything and does not run; ended and checked by the fixture."""
    bench = Bench(tmp_path / "m", zygote, hub, data)
    yield bench
    assert "Traceback" not in bench.mirror.log
    bench.mirror.kill()
    bench.mirror.check_blobs()


@pytest.fixture
def bench(idle: Bench, tmp_path: Path) -> Bench:
    """It holds one file and runs, under the rules in `rules`."""
    plan = idle.mirror.plan(rules=str(tmp_path / "rules"), folder=str(tmp_path))
    assert idle.mirror.start(plan=plan, sync_every=1 << 20), idle.mirror.log
    idle.right(HELD, "little.bin")
    return idle
