"""Edits are followed: one reload at a time, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from proxy.config import Config, Listen
from proxy.server.run import running
from proxy.server.site import Site
from proxy.telemetry import metrics
from tests.server.world import came_true


@pytest.fixture
def config(tmp_path: Path) -> Config:
    allowlist = tmp_path / "lists" / "allowlist.yaml"
    allowlist.parent.mkdir()
    allowlist.write_text("allow: []\n")
    return Config(
        listen=Listen("127.0.0.1", 0),
        data=tmp_path / "data",
        allowlist=allowlist,
        upstreams=(),
        keep_free=0,
        fetcher=False,
    )


@pytest.fixture
async def site(config: Config) -> AsyncGenerator[Site]:
    async with running(config) as (site, _):
        yield site


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


async def test_many_signals_are_one_reload_that_runs_and_one_that_is_due(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    gate = threading.Event()

    def slow() -> bool:
        begun.append(1)
        return gate.wait(10)

    monkeypatch.setattr(site.mirror.reloader, "reload", slow)
    for _ in range(10):
        hang_up()
        await asyncio.sleep(0.02)
    assert len(begun) == 1
    gate.set()
    await came_true(lambda: len(begun) == 2)
    await asyncio.sleep(0.1)  # nothing says that nothing more comes
    assert len(begun) == 2


async def test_a_reload_that_breaks_is_told_and_the_next_one_is_done(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reload = site.mirror.reloader.reload
    monkeypatch.setattr(site.mirror.reloader, "reload", lambda: 1 / 0)
    hang_up()
    await came_true(lambda: "ZeroDivisionError" in caplog.text)
    assert stale() == 1
    monkeypatch.setattr(site.mirror.reloader, "reload", reload)
    hang_up()
    await came_true(lambda: stale() == 0)


def stale() -> float | None:
    return metrics.REGISTRY.get_sample_value("hubpin_catalog_stale")
