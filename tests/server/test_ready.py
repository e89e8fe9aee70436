"""Answers whose head was put together before are those that aiohttp would give."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest

from proxy.pins.lock import Entry
from proxy.server import ready
from proxy.server.ready import Head, headers_of
from tests.server.world import FILES, ODD_NAME, ODD_URL, Reply, Wire, World


async def kept(world: World, wire: Wire, target: str, method: str = "GET") -> Reply:
    """An answer on a connection that stays open."""
    wire.writer.write(f"{method} {target} HTTP/1.1\r\nHost: m\r\n\r\n".encode())
    head = await wire.read_head()
    size = head.length if method == "GET" else 0
    return Reply(head.raw + await wire.read_exactly(size or 0))


def comparable(reply: Reply) -> dict[str, str]:
    own = {"connection", "date", "x-request-id"}
    found = {k.lower(): v for k, v in reply.headers.items()}
    assert len(found) == len(reply.headers)
    return {k: v for k, v in found.items() if k not in own}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", FILES)
async def test_they_differ_in_nothing_but_the_connection(
    world: World, path: str, method: str
) -> None:
    await world.warm()
    url = world.url(ODD_URL if path == ODD_NAME else path)
    plain = await world.ask(url, method=method)  # with Connection: close, through aiohttp
    assert plain.headers["Connection"] == "close"
    wire = await world.connect()
    for _ in range(2):
        reply = await kept(world, wire, url, method)
        assert (reply.status, reply.body) == (plain.status, plain.body)
        assert comparable(reply) == comparable(plain)
        assert "Connection" not in reply.headers
    await wire.close()


async def test_each_has_its_date_and_its_own_id(world: World) -> None:
    wire = await world.connect()
    one, two = [await kept(world, wire, world.url("config.json")) for _ in range(2)]
    await wire.close()
    assert one.headers["X-Request-Id"] != two.headers["X-Request-Id"]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", one.headers["Date"])
    dates = [parsedate_to_datetime(each.headers["Date"]) for each in (one, two)]
    assert 0 <= (dates[1] - dates[0]).total_seconds() < 5


async def test_a_notice_is_in_the_head_of_its_own_revision_alone(world: World) -> None:
    wire = await world.connect()
    for revision, noticed in (("v1.0", True), ("main", False), ("v1.0", True)):
        reply = await kept(world, wire, world.url("config.json", revision), "HEAD")
        assert ("X-HF-Warning" in reply.headers) is noticed
    await wire.close()


async def test_requests_that_came_together_are_answered_in_turn(world: World) -> None:
    request = f"GET {world.url('config.json')} HTTP/1.1\r\nHost: m\r\n\r\n".encode()
    wire = await world.connect()
    wire.writer.write(request * 3)
    for _ in range(3):
        head = await wire.read_head()
        assert await wire.read_exactly(head.length or 0) == b"{}"
    await wire.close()


async def test_an_old_client_is_told_when_the_connection_stays(world: World) -> None:
    request = f"GET {world.url('config.json')} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    wire = await world.connect()
    for _ in range(2):
        wire.writer.write(request.encode())
        head = await wire.read_head()
        assert head.headers["Connection"] == "keep-alive"
        assert await wire.read_exactly(head.length or 0) == b"{}"
    await wire.close()


async def test_they_are_counted_and_written_down(world: World) -> None:
    wire = await world.connect()
    before = (await world.ask("/metrics")).body
    await kept(world, wire, world.url("config.json"))
    after = (await world.ask("/metrics")).body
    await wire.close()
    found = [re.search(rb'hubpin_requests_total\{status="200"\} ([\d.]+)', one) for one in
             (before, after)]  # fmt: skip
    counts = [float(one[1]) for one in found if one is not None]
    assert counts[-1] - (counts[0] if len(counts) == 2 else 0) == 2  # that one, and /metrics


def test_no_header_can_begin_another_one(world: World) -> None:
    entry: Entry = world.entry("config.json")
    for text in ("a\r\nSet-Cookie: b", "a\nb", "a\0b"):
        with pytest.raises(ValueError, match="line break"):
            Head.of(headers_of(entry, text), entry.size, {})
    assert b"X-HF-Warning: a b\r\n" in Head.of(headers_of(entry, "a b"), entry.size, {}).block


async def test_an_idle_connection_keeps_no_body(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp holds on to an answer until the next one, and that may be for ever."""
    made: list[ready.Ready] = []
    answer = ready.Ready.__init__

    def note(one: ready.Ready, head: Head, request_id: str, body: bytes) -> None:
        made.append(one)
        answer(one, head, request_id, body)

    monkeypatch.setattr(ready.Ready, "__init__", note)
    wire = await world.connect()
    assert (await kept(world, wire, world.url("config.json"))).body == b"{}"
    assert [one._bytes for one in made] == [b""]
    await wire.close()
