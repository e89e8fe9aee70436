"""Handing over what we hold to the nginx in front. What nginx makes of it: tests/deploy."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from proxy.server import accel
from tests.server.test_audit import take_all, took, written
from tests.server.test_health import metric
from tests.server.test_misleading import WHOLE, mislead
from tests.server.world import FILES, MODEL, Reply, World, serving

LOCATION = "/-/accel/"
NGINX = {accel.HEADER: LOCATION}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    """A front that hands over. LFS files are not held yet, small ones are."""
    async with serving(tmp_path, accel=LOCATION) as made:
        await made.lock()
        yield made


def handed(reply: Reply) -> bool:
    return "X-Accel-Redirect" in reply.headers


async def test_a_held_file_is_handed_over_with_its_head(world: World) -> None:
    await world.warm()
    sent = await metric(world, "hubpin_sent_bytes_total")
    before = await metric(world, "hubpin_handed_bytes_total")
    answers = await metric(world, "hubpin_requests_total", status="206")
    plain = await world.ask(world.url(), method="HEAD")
    reply = await world.ask(world.url(), headers=NGINX)
    hexdigits = world.entry().digest.hex
    assert reply.headers["X-Accel-Redirect"] == f"{LOCATION}{hexdigits[:2]}/{hexdigits}"
    for name in accel.PASSED_ON - {"X-Request-Id"}:
        assert reply.headers.get(name) == plain.headers.get(name), name
    part = await world.ask(world.url(), headers={**NGINX, "Range": "bytes=9-600000"})
    assert handed(part)
    assert "Content-Range" not in part.headers
    assert await metric(world, "hubpin_sent_bytes_total") == sent
    assert await metric(world, "hubpin_handed_bytes_total") == before + MODEL.size + 600_000 - 8
    assert await metric(world, "hubpin_requests_total", status="206") == answers + 1


async def test_without_nginx_it_is_an_error_and_no_empty_file(world: World) -> None:
    await world.warm()
    reply = await world.ask(world.url(), headers=NGINX)
    assert (reply.status, reply.code, reply.body) == (421, "HandedOver", b"")
    assert "nginx" in reply.headers["X-Error-Message"]


@pytest.mark.parametrize("value", ["", "/", "/etc/", "/-/accel", "/-/accel/, /-/accel/", "on"])
async def test_another_value_is_as_good_as_none(world: World, value: str) -> None:
    await world.warm()
    reply = await world.ask(world.url(), headers={accel.HEADER: value})
    assert (reply.status, reply.body) == (200, WHOLE)


@pytest.mark.parametrize("value", ["", LOCATION, "off"])
async def test_unless_it_is_configured_nothing_is_handed_over(tmp_path: Path, value: str) -> None:
    async with serving(tmp_path) as world:
        await world.lock()
        await world.warm()
        reply = await world.ask(world.url(), headers={accel.HEADER: value})
        assert (reply.status, reply.body) == (200, WHOLE)


async def test_small_and_cold_files_are_sent_by_us(world: World) -> None:
    for path in ("model.bin", "config.json", "empty.txt", "sub/deep/small.bin"):
        reply = await world.ask(world.url(path), headers=NGINX)
        assert reply.status == 200
        assert reply.whole
    assert handed(await world.ask(world.url(), headers=NGINX))


async def test_who_holds_a_wrong_beginning_gets_the_whole_file_from_us(world: World) -> None:
    """nginx would send the end that was asked for."""
    shown = len(await mislead(world))
    await world.warm()
    reply = await world.ask(world.url(), headers={**NGINX, "Range": f"bytes={shown}-"})
    assert (reply.status, reply.body) == (200, WHOLE)
    assert handed(await world.ask(world.url(), headers=NGINX))


async def test_an_altered_blob_is_not_handed_over(world: World) -> None:
    await world.warm()
    world.blob().chmod(0o644)
    world.blob().write_bytes(b"x" * MODEL.size)
    reply = await world.ask(world.url(), headers=NGINX)
    assert (reply.status, reply.body) == (200, WHOLE)


async def test_an_answer_with_a_header_that_nginx_does_not_know_is_ours(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.warm()
    monkeypatch.setattr(accel, "_KNOWN", accel._KNOWN - {"X-Linked-Size"})
    assert (await world.ask(world.url(), headers=NGINX)).body == WHOLE


async def test_what_nginx_was_told_to_send_is_not_written_down_as_sent(world: World) -> None:
    await world.warm()
    reply = await world.ask(world.url(), headers=NGINX)
    assert written(world, "served") == []
    (line,) = written(world, "handed")
    assert line["request"] == reply.headers["X-Request-Id"]
    assert (line["start"], line["stop"]) == (0, MODEL.size)
    assert (line["path"], line["digest"]) == ("model.bin", world.entry().digest)
    assert "complete" not in line


async def test_a_device_that_took_a_pair_by_nginx_perhaps_has_all_of_it(world: World) -> None:
    await world.warm()
    for part in ("bytes=0-399999", "bytes=350000-"):
        assert handed(await world.ask(world.url(), headers={**NGINX, "Range": part}))
    for one in await took(world):
        assert (one.handed_files, one.complete) == (1, False)
        assert one.missing == tuple(sorted(FILES.keys() - {"model.bin", "empty.txt"}))
    await take_all(world)  # and all of it from us
    found = await took(world)
    assert {(one.handed_files, one.complete, one.missing) for one in found} == {(0, True, ())}
