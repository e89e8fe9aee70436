"""What a doctor finds on sites with one thing wrong."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from proxy.cli import env
from proxy.config import Config, Listen, UpstreamConfig
from proxy.errors import ConfigError
from proxy.server.run import running
from proxy.tasks import doctor as tasks
from proxy.tasks.doctor import Checked, Finished, Verdict
from tests.fakes.hub_server import HubServer
from tests.fakes.settings import Settings
from tests.fakes.world import World
from tests.tasks.conftest import PAIR, Site, collect

OK, SKIP, WARN, FAIL = Verdict.OK, Verdict.SKIP, Verdict.WARN, Verdict.FAIL


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def config(site: Site) -> Config:
    """Everything is right, and nobody may be asked."""
    await site.run_lock()
    site.config.data.chmod(0o700)
    return replace(site.config, listen=Listen("127.0.0.1", free_port()), offline=True)


def no_device(url: str) -> Mapping[str, str]:
    raise AssertionError("no client is run")


async def examine(config: Config, device: tasks.Device = no_device) -> dict[str, Checked]:
    events = await collect(tasks.doctor(lambda: config, device))
    *checked, finished = events
    verdicts = [one.verdict for one in checked if isinstance(one, Checked)]
    assert finished == Finished(verdicts.count(FAIL), verdicts.count(WARN))
    return {one.what: one for one in checked if isinstance(one, Checked)}


def asking(config: Config, *urls: str) -> Config:
    return replace(config, offline=False, upstreams=tuple(UpstreamConfig(URL(url)) for url in urls))


async def test_a_sound_site_has_nothing_to_complain_about(config: Config) -> None:
    found = await examine(config)
    assert {what: one.verdict for what, one in found.items()} == {
        "configuration": OK, "allowlist": OK, "lock": OK, "data": OK, "disk": OK,
        "upstream": SKIP, "clock": OK, "port": OK, "client": SKIP,
    }  # fmt: skip
    assert "offline" in found["upstream"].found


async def test_a_broken_configuration_is_the_only_thing_said() -> None:
    def load() -> Config:
        raise ConfigError("hubpin.yaml", 7, "unknown key")

    first, last = await collect(tasks.doctor(load, no_device))
    assert isinstance(first, Checked)
    assert (first.verdict, first.found) == (FAIL, "hubpin.yaml:7: unknown key")
    assert last == Finished(1, 0)


async def test_a_broken_allowlist_is_named_with_its_line(config: Config) -> None:
    config.allowlist.write_text("allow:\n  - not a pair\n")
    found = await examine(config)
    assert found["allowlist"].verdict is FAIL
    assert "allowlist.yaml:2" in found["allowlist"].found
    assert found["lock"].verdict is OK


async def test_a_broken_lock_is_a_failure_of_its_own(config: Config) -> None:
    config.lock.write_text("{")
    found = await examine(config)
    assert (found["allowlist"].verdict, found["lock"].verdict) == (OK, FAIL)


async def test_pairs_that_are_not_locked_are_named(config: Config, site: Site) -> None:
    site.allow(f"- {PAIR}", "- acme/new@main")
    one = (await examine(config))["lock"]
    assert (one.verdict, one.advice) == (WARN, "hubpin lock")
    assert "acme/new@main" in one.found
    assert PAIR not in one.found


async def test_a_data_directory_that_does_not_exist_yet_is_fine(config: Config) -> None:
    found = await examine(replace(config, data=config.data.parent / "new" / "data"))
    assert (found["data"].verdict, found["disk"].verdict) == (OK, OK)
    assert not (config.data.parent / "new").exists()


async def test_a_file_where_data_should_be_fails(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for data in (tmp_path / "file", tmp_path / "file" / "below"):
        assert (await examine(replace(config, data=data)))["data"].verdict is FAIL


async def test_data_that_others_may_read_is_a_warning(config: Config) -> None:
    config.data.chmod(0o755)
    one = (await examine(config))["data"]
    assert (one.verdict, one.advice) == (WARN, f"chmod 700 {config.data}")


async def test_looking_leaves_nothing_behind(config: Config) -> None:
    before = sorted(config.data.parent.rglob("*"))
    await examine(config)
    assert sorted(config.data.parent.rglob("*")) == before


async def test_a_disk_below_keep_free_fails(config: Config) -> None:
    one = (await examine(replace(config, keep_free=1 << 60)))["disk"]
    assert one.verdict is FAIL
    assert "nothing is downloaded" in one.found


async def test_a_file_from_the_future_makes_the_clock_doubtful(config: Config) -> None:
    later = time.time() + 3600
    os.utime(config.lock, (later, later))
    one = (await examine(config))["clock"]
    assert one.verdict is WARN
    assert str(config.lock) in one.found


@pytest.mark.parametrize(
    ("ahead", "headers", "verdict", "word"),
    [
        (0, {}, OK, "agrees"),
        (3600, {}, WARN, "behind"),
        (-3600, {}, WARN, "ahead of"),
        (-3600, {"Age": "3600"}, OK, "agrees"),
    ],
    ids=["right", "we are slow", "we are fast", "a cached answer"],
)
async def test_the_clock_is_compared_with_an_upstream(
    config: Config, ahead: int, headers: dict[str, str], verdict: Verdict, word: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        date = formatdate(time.time() + ahead, usegmt=True)
        return web.json_response({}, headers={"Date": date, **headers})

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        found = await examine(asking(config, str(server.make_url("/"))))
    assert found["upstream"].verdict is OK
    assert found["clock"].verdict is verdict
    assert word in found["clock"].found


async def test_an_upstream_is_asked_about_the_first_pair(config: Config) -> None:
    world = World()
    with HubServer(world) as hub:
        one = (await examine(asking(config, hub.url)))["upstream"]
    assert one.verdict is WARN
    assert PAIR in one.found


async def test_an_upstream_nobody_reaches_fails(config: Config) -> None:
    one = (await examine(asking(config, f"http://127.0.0.1:{free_port()}")))["upstream"]
    assert one.verdict is FAIL
    assert "cannot connect" in one.found


async def test_one_of_two_upstreams_may_be_away(config: Config) -> None:
    config.allowlist.write_text("allow: []\n")
    with HubServer(World()) as hub:
        asked = asking(config, f"http://127.0.0.1:{free_port()}", hub.url)
        async with aclosing(tasks.doctor(lambda: asked, no_device)) as events:
            found = [one async for one in events if isinstance(one, Checked)]
    assert [one.verdict for one in found if one.what == "upstream"] == [WARN, OK]


async def test_a_tls_error_is_named(config: Config) -> None:
    with HubServer(World(), Settings(tls="self-signed")) as hub:
        one = (await examine(asking(config, hub.url)))["upstream"]
    assert one.verdict is FAIL
    assert "certificate verification failed" in one.found


async def test_a_web_page_is_no_upstream(config: Config) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<h1>Please log in</h1>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        one = (await examine(asking(config, str(server.make_url("/")))))["upstream"]
    assert one.verdict is FAIL
    assert "captive portal" in one.found


async def test_a_disk_that_is_not_plugged_in_fails(config: Config, tmp_path: Path) -> None:
    one = (await examine(asking(config, (tmp_path / "usb").as_uri())))["upstream"]
    assert one.verdict is FAIL
    assert "plugged in" in one.found


async def test_who_has_the_port_is_named(config: Config) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, config.listen.host, config.listen.port):
        one = (await examine(config))["port"]
    assert one.verdict is FAIL
    assert f"pid {os.getpid()}" in one.found


async def test_the_server_of_another_site_has_the_port(config: Config, tmp_path: Path) -> None:
    async with running(config):
        one = (await examine(replace(config, data=tmp_path / "other")))["port"]
    assert one.verdict is FAIL
    assert str(config.data) in one.found


async def test_a_real_client_makes_a_round_trip(config: Config) -> None:
    pytest.importorskip("huggingface_hub")
    async with running(config):
        found = await examine(config, env.settings)
    assert found["port"].verdict is OK
    assert found["client"].verdict is OK, found["client"].found
    assert "'config.json'" in found["client"].found


async def test_a_client_that_fails_is_a_failure(config: Config) -> None:
    pytest.importorskip("huggingface_hub")
    async with running(config):
        found = await examine(config, lambda url: {**env.settings(url), "HF_HUB_OFFLINE": "1"})
    assert found["client"].verdict is FAIL
    assert "did not get 'config.json'" in found["client"].found


async def test_a_server_that_keeps_its_old_catalog_is_a_warning(config: Config) -> None:
    async with running(config) as (site, _):
        config.allowlist.write_text("allow:\n  - broken\n")
        site.mirror.reloader.reload()
        found = await examine(config)
    assert found["allowlist"].verdict is FAIL
    assert found["port"].verdict is WARN
    assert "allowlist.yaml:2" in found["port"].found
    assert found["client"].verdict is SKIP
