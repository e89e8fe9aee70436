"""The process that downloads, as the server runs it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from proxy.config import Config, Listen, UpstreamConfig
from proxy.server.run import running
from tests.fakes.content import Content
from tests.fakes.hub_server import HubServer
from tests.fakes.world import World, lfs

BIG = Content("big", 8 << 20)


@pytest.fixture
async def upstream() -> AsyncGenerator[HubServer]:
    with HubServer(World()) as hub:
        hub.commit("acme/big", {"big.bin": lfs(BIG)})
        yield hub


@pytest.fixture
async def base(tmp_path: Path, upstream: HubServer) -> AsyncGenerator[str]:
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text("allow:\n  - acme/big@main\n")
    cdn = upstream.cdn_url.removeprefix("http://")
    config = Config(
        listen=Listen("127.0.0.1", 0),
        data=tmp_path / "data",
        allowlist=allowlist,
        upstreams=(UpstreamConfig(URL(upstream.url), redirect_hosts=(cdn,)),),
        keep_free=0,
    )
    async with running(config) as (_, address):
        yield f"{address.local_url}/acme/big/resolve/main/big.bin"


def fetchers() -> list[int]:
    """Our children that download."""
    found = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if b"proxy.server.fetcher" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


async def test_a_download_survives_the_death_of_who_does_it(base: str, upstream: HubServer) -> None:
    upstream.hold("big.bin", at=4 << 20)
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        first = asyncio.create_task(_get(session, base, {"Range": "bytes=0-99"}))
        await upstream.until(host="cdn", sent=4 << 20)
        (victim,) = fetchers()
        os.kill(victim, signal.SIGKILL)
        upstream.release()
        status, body = await first
    assert (status, body) == (206, BIG.read(0, 100))
    (successor,) = fetchers()
    assert successor != victim


async def test_it_runs_at_low_priority_and_ends_with_the_server(base: str) -> None:
    async with aiohttp.ClientSession() as session:
        status, body = await _get(session, base, {})
    assert status == 200
    assert hashlib.sha256(body).digest() == hashlib.sha256(BIG.read(0, BIG.size)).digest()
    (pid,) = fetchers()
    assert os.getpriority(os.PRIO_PROCESS, pid) >= 10


async def _get(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> tuple[int, bytes]:
    async with session.get(url, headers=headers) as response:
        return response.status, await response.read()
