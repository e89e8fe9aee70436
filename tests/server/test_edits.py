"""Edits are followed: one reload at a time, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import watchfiles

import proxy
from proxy.config import Config, Listen
from proxy.mirror.mirror import Mirror
from proxy.server import edits, run
from proxy.server.autolock import AutoLock
from proxy.server.run import running
from proxy.server.site import Site
from proxy.server.workers import Workers
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


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "_IDLE_MS", 200)
    monkeypatch.setattr(edits, "_RETRY_S", 0.2)


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


async def test_a_signal_that_comes_during_the_start_is_followed_after_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lists have been read by then, and may be others."""
    before = signal.signal(signal.SIGHUP, lambda *_: None)  # else a failure ends all tests

    class Early(Workers):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            hang_up()

    monkeypatch.setattr(run, "Workers", Early)
    reloaded = asyncio.Event()
    monkeypatch.setattr(AutoLock, "wake", lambda _: reloaded.set())
    try:
        async with running(replace(config, workers=2)), asyncio.timeout(10):
            await reloaded.wait()
    finally:
        signal.signal(signal.SIGHUP, before)


_EARLY = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "proxy.cli.main":
            os.kill(os.getpid(), signal.SIGHUP)
sys.meta_path.insert(0, Finder())
sys.argv = ["hubpin", "-c", "nothing.yaml", *sys.argv[1:]]
from proxy.__main__ import main
main()
"""


@pytest.mark.parametrize(("command", "status"), [("serve", 2), ("lock", -signal.SIGHUP)])
def test_a_signal_while_the_program_is_read_ends_no_server(
    tmp_path: Path, command: str, status: int
) -> None:
    """A manager may ask for a reload as soon as it has started the process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(proxy.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", _EARLY, command], cwd=tmp_path, env=environment, check=False
    )
    assert ended.returncode == status


def allows(site: Site, text: str) -> Callable[[], bool]:
    return lambda: any(str(one.pair) == text for one in site.mirror.catalog.unlocked())


async def test_a_watch_that_fails_is_told_and_tried_again(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel's limit of watches belongs to all programs of a user."""
    watch = watchfiles.awatch
    failures = 3

    def scarce(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError("no more watches")
        return watch(*args, **kwargs)

    monkeypatch.setattr(watchfiles, "awatch", scarce)
    async with running(config) as (site, _):
        await came_true(lambda: failures < 3)
        config.allowlist.write_text("allow: [acme/missed@main]\n")  # nobody sees it
        await came_true(allows(site, "acme/missed@main"))
        config.allowlist.write_text("allow: [acme/seen@main]\n")
        await came_true(allows(site, "acme/seen@main"))
    told = [one.getMessage() for one in caplog.records if one.name == "proxy.server.edits"]
    assert len([one for one in told if "SIGHUP" in one and "no more watches" in one]) == 1


async def test_an_edit_while_the_server_starts_is_not_lost(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lists are read before anybody watches them."""

    class Late(AutoLock):
        def __init__(self, mirror: Mirror) -> None:
            super().__init__(mirror)
            config.allowlist.write_text("allow: [acme/late@main]\n")

    monkeypatch.setattr(run, "AutoLock", Late)
    async with running(config) as (site, _):
        await came_true(allows(site, "acme/late@main"))


@pytest.mark.parametrize("pause_s", [0.0, 1.5])
@pytest.mark.parametrize("moved", [True, False])
async def test_a_folder_that_is_replaced_is_watched_anew(
    site: Site, moved: bool, pause_s: float
) -> None:
    allowlist = site.mirror.config.allowlist
    await asyncio.sleep(0.3)  # nothing says that it is watched
    if moved:
        allowlist.parent.rename(allowlist.parent.with_name("old"))
    else:
        allowlist.unlink()
        allowlist.parent.rmdir()
    await asyncio.sleep(pause_s)
    allowlist.parent.mkdir()
    allowlist.write_text("allow: [acme/first@main]\n")
    await came_true(allows(site, "acme/first@main"))
    allowlist.write_text("allow: [acme/second@main]\n")
    await came_true(allows(site, "acme/second@main"))
