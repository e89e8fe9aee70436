"""What nobody expected happens between the main process and a worker: nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from proxy.config import Config, Listen, UpstreamConfig
from proxy.mirror import channel, fetching
from proxy.server import worker, workers
from proxy.server.run import running
from proxy.server.site import Site
from tests.fakes.content import Content
from tests.fakes.hub_server import HubServer
from tests.fakes.world import World, lfs
from tests.server.crew import kill

FILES = {f"{n}.bin": Content(f"file {n}", 300_000) for n in range(16)}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[tuple[Site, str]]:
    """A mirror whose main process is this one, and which has one worker."""
    with HubServer(World()) as hub:
        hub.commit("acme/m", {name: lfs(one) for name, one in FILES.items()})
        allowlist = tmp_path / "allowlist.yaml"
        allowlist.write_text("allow:\n  - acme/m@main\n")
        cdn = hub.cdn_url.removeprefix("http://")
        config = Config(
            listen=Listen("127.0.0.1", 0),
            data=tmp_path / "data",
            allowlist=allowlist,
            upstreams=(UpstreamConfig(URL(hub.url), redirect_hosts=(cdn,)),),
            keep_free=0,
            workers=2,
        )
        async with running(config) as (site, address):
            await site.autolock.settle(site.mirror.catalog.allowlist.allowed[0].pair, 10)
            yield site, f"{address.local_url}/acme/m/resolve/main/"


async def get(url: str, size: int) -> bytes:
    """The file over a connection of its own; whoever is cut asks again."""
    while True:
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                body = await answer.read()
                if answer.status == 200 and len(body) == size:
                    return body
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)


def once(function: Callable[..., Any], broken: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is another one the first time."""
    left = [broken]

    def either(*args: object) -> object:
        return (left.pop() if left else function)(*args)

    return either


async def replaced(site: Site, pid: int) -> None:
    """Returns when another worker answers in the place of this one."""
    assert site.others is not None
    while site.others.pids in ([], [pid]):  # noqa: ASYNC110  # nobody announces it
        await asyncio.sleep(0.1)


def bug(*_: object) -> object:
    raise RuntimeError("as nobody expected")


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        pytest.param(channel, "load_entry", bug, id="an order is not understood"),
        pytest.param(fetching, "_state", bug, id="nobody says how far it is"),
        pytest.param(fetching, "_state", lambda *_: [], id="nobody understands how far it is"),
    ],
)
async def test_a_bug_between_them_costs_a_worker_and_no_download(
    served: tuple[Site, str],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    broken: Callable[..., Any],
) -> None:
    site, base = served
    assert site.others is not None
    (first,) = site.others.pids
    monkeypatch.setattr(module, name, once(getattr(module, name), broken))
    async with asyncio.timeout(40):
        got = await asyncio.gather(*(get(base + name, one.size) for name, one in FILES.items()))
        assert got == [one.read(0, one.size) for one in FILES.values()]
        await replaced(site, first)


async def test_a_worker_that_cannot_be_started_at_once_is_started_later(
    served: tuple[Site, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site, _ = served
    assert site.others is not None
    (first,) = site.others.pids
    monkeypatch.setattr(workers, "launch", once(worker.launch, bug))
    kill(first)
    async with asyncio.timeout(30):
        await replaced(site, first)
    assert "RuntimeError: as nobody expected" in caplog.text
