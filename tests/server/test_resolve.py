"""GET and HEAD of a file: the locked bytes, while they arrive too, or a body that is cut."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from proxy.server import site as sites
from tests.fakes.content import Content
from tests.fakes.world import lfs
from tests.mirror.bench import KB, MB, Puppet
from tests.server.world import FILES, MODEL, ODD_NAME, ODD_URL, World, came_true, serving

WHOLE = MODEL.read(0, MODEL.size)
HUB_CLIENT = {"User-Agent": "unknown/None; hf_hub/2.4.0; python/3.11"}


# --- what is held ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES)
async def test_every_file_has_its_locked_bytes(world: World, path: str) -> None:
    url = world.url(ODD_URL if path == ODD_NAME else path)
    for _ in range(2):  # fetched, held
        reply = await world.ask(url)
        assert reply.status == 200
        assert reply.whole
        assert hashlib.sha256(reply.body).hexdigest() == FILES[path].digest.hex


@pytest.mark.parametrize("path", FILES)
async def test_a_head_says_what_a_client_needs_and_touches_nothing(world: World, path: str) -> None:
    world.hub.down = True
    entry = world.entry(path)
    reply = await world.ask(world.url(ODD_URL if path == ODD_NAME else path), method="HEAD")
    assert reply.status == 200
    assert reply.body == b""
    assert reply.length == entry.size
    assert reply.headers["ETag"] == f'"{entry.etag}"' == reply.headers["X-Linked-ETag"]
    assert reply.headers["X-Linked-Size"] == str(entry.size)
    assert reply.headers["X-Repo-Commit"] == entry.commit
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert "Content-Encoding" not in reply.headers
    assert not [name for name in reply.headers if "xet" in name.lower()]


async def test_get_and_head_say_the_same(world: World) -> None:
    url = world.url()
    head, get = await world.ask(url, method="HEAD"), await world.ask(url)
    for one in (head, get):
        for own in ("X-Request-Id", "Date"):
            del one.headers[own]
    assert sorted(head.headers.items()) == sorted(get.headers.items())


async def test_a_held_file_needs_no_upstream(world: World) -> None:
    await world.warm()
    world.hub.down = True
    asked = len(world.hub.fetched)
    assert (await world.ask(world.url())).body == WHOLE
    assert len(world.hub.fetched) == asked


async def test_a_branch_a_tag_and_a_commit_are_the_same_bytes(world: World) -> None:
    commit = world.entry().commit
    for revision in ("main", "v1.0", commit, "HEAD"):
        reply = await world.ask(world.url("config.json", revision))
        assert (reply.status, reply.body) == (200, b"{}"), revision
        assert reply.headers["X-Repo-Commit"] == commit


async def test_a_notice_is_shown(world: World) -> None:
    told = await world.ask(world.url("config.json", "v1.0"), method="HEAD")
    assert "Only for research." in told.headers["X-HF-Warning"]
    assert "X-HF-Warning" not in (await world.ask(world.url("config.json"))).headers


async def test_a_dataset_has_its_own_urls(world: World) -> None:
    assert (await world.ask("/datasets/acme/d/resolve/main/data.csv")).body == b"a,b\n1,2\n"
    assert (await world.ask("/acme/d/resolve/main/data.csv")).status == 404


async def test_leading_slashes_collapse(world: World) -> None:
    assert (await world.ask("//acme/tiny/resolve/main/config.json")).body == b"{}"


async def test_raw_is_what_git_holds(world: World) -> None:
    reply = await world.ask("/acme/tiny/raw/main/model.bin")
    assert reply.body == FILES["model.bin"].pointer
    head = await world.ask("/acme/tiny/raw/main/model.bin", method="HEAD")
    assert head.length == len(reply.body)
    assert head.body == b""
    assert (await world.ask("/acme/tiny/raw/main/config.json")).body == b"{}"
    assert ("model.bin", 0) not in world.hub.fetched


async def test_the_locked_commit_is_served_after_the_upstream_moved(world: World) -> None:
    before = world.entry()
    world.hub.publish("acme/tiny", "model.bin", Content("other", MODEL.size))
    reply = await world.ask(world.url())
    assert reply.body == WHOLE
    assert reply.headers["X-Repo-Commit"] == before.commit


@pytest.mark.parametrize("agent", ["curl/8", "unknown/None; hf_hub/2.4.0"])
async def test_no_file_leaves_compressed(world: World, agent: str) -> None:
    headers = {"Accept-Encoding": "gzip, br", "User-Agent": agent}
    reply = await world.ask(world.url("README.md"), headers=headers)
    assert "Content-Encoding" not in reply.headers
    assert reply.body.startswith(b"---")


# --- ranges and conditions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, MODEL.size),
        ("bytes=-10", MODEL.size - 10, MODEL.size),
        ("bytes=5-99", 5, 100),
        ("bytes=0-9999999999", 0, MODEL.size),
        (f"bytes=1-{400 * KB}", 1, 400 * KB + 1),
    ],
)
@pytest.mark.parametrize("warm", [True, False])
async def test_a_range_is_exactly_that_range(
    world: World, text: str, start: int, stop: int, warm: bool
) -> None:
    if warm:
        await world.warm()
    reply = await world.ask(world.url(), headers={"Range": text})
    assert reply.status == 206
    assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{MODEL.size}"
    assert reply.body == WHOLE[start:stop]
    assert reply.whole


async def test_a_range_beyond_the_end_is_416(world: World) -> None:
    reply = await world.ask(world.url(), headers={"Range": f"bytes={MODEL.size}-"})
    assert reply.status == 416
    assert reply.headers["Content-Range"] == f"bytes */{MODEL.size}"
    assert reply.length == 0


@pytest.mark.parametrize("text", ["bytes=0-1,5-6", "bytes=5-2", "items=0-5", "bytes=x", "bytes="])
async def test_what_is_no_single_range_gets_the_whole_file(world: World, text: str) -> None:
    reply = await world.ask(world.url("README.md"), headers={"Range": text})
    assert reply.status == 200
    assert reply.whole


@pytest.mark.parametrize("text", ["bytes=0-", "bytes=0-0", "bytes=-5"])
async def test_an_empty_file_is_whole_whatever_is_asked_of_it(world: World, text: str) -> None:
    reply = await world.ask(world.url("empty.txt"), headers={"Range": text})
    assert reply.status == 200
    assert reply.length == 0


async def test_who_has_the_file_is_told_so(world: World) -> None:
    reply = await world.ask(world.url(), headers={"If-None-Match": f'W/"{world.entry().etag}"'})
    assert reply.status == 304
    assert reply.body == b""
    assert reply.headers["ETag"] == f'"{world.entry().etag}"'
    assert ("model.bin", 0) not in world.hub.fetched


async def test_who_wants_another_file_gets_none(world: World) -> None:
    reply = await world.ask(world.url(), headers={"If-Match": '"other"'})
    assert reply.status == 412
    assert ("model.bin", 0) not in world.hub.fetched


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("right", 206),
        ("other", 200),
        ("weak", 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
    ],
)
async def test_a_part_of_another_version_is_never_sent(
    world: World, condition: str, status: int
) -> None:
    tag = f'"{world.entry().etag}"'
    value = {"right": tag, "other": '"other"', "weak": f"W/{tag}"}.get(condition, condition)
    reply = await world.ask(world.url(), headers={"Range": "bytes=5-", "If-Range": value})
    assert reply.status == status
    assert reply.body == WHOLE[5 if status == 206 else 0 :]


# --- what is still to come ------------------------------------------------------------------------


async def test_a_body_flows_while_the_rest_is_fetched(world: World) -> None:
    gate = world.hub.hold_at(256 * KB)
    wire = await world.send(world.url())
    assert (await wire.read_head()).length == MODEL.size
    assert await wire.read_exactly(256 * KB) == WHOLE[: 256 * KB]
    gate.open.set()
    rest, _ = await wire.read_rest()
    assert rest == WHOLE[256 * KB :]
    await wire.close()


async def test_many_cold_clients_cause_one_transfer(world: World) -> None:
    before = world.hub.sent
    replies = await asyncio.gather(*(world.ask(world.url()) for _ in range(30)))
    assert all(reply.body == WHOLE for reply in replies)
    assert world.hub.sent - before == MODEL.size


async def test_a_client_that_leaves_stops_nothing_and_leaves_nothing_open(world: World) -> None:
    gate = world.hub.hold_at(256 * KB)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        wire = await world.send(world.url())
        await wire.read_head()
        wire.writer.transport.abort()
    gate.open.set()
    await world.fetched()
    assert (await world.ask(world.url())).body == WHOLE
    await came_true(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_clients_that_leave_while_they_wait_for_the_first_byte_leave_nothing_open(
    world: World,
) -> None:
    gate = world.hub.hold_at(0)
    first = asyncio.create_task(world.ask(world.url()))
    await gate.reached.wait()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        wire = await world.send(world.url())
        await wire.writer.drain()
        await wire.close()
    gate.open.set()
    assert (await first).body == WHOLE
    await came_true(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_file_that_does_not_come_in_time_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = world.hub.hold_at(0)
    monkeypatch.setattr(sites.Call, "__init__", _impatient(sites.Call.__init__))
    for agent, status in (("hf_hub/2.4.0", 429), ("hf_hub/0.36.2", 503), ("curl/8", 503)):
        reply = await world.ask(world.url(), headers={"User-Agent": agent})
        assert (reply.status, reply.code) == (status, "Busy")
        assert int(reply.headers["Retry-After"]) >= 1
    gate.open.set()
    await world.fetched()
    assert (await world.ask(world.url())).body == WHOLE


def _impatient(init: object) -> object:
    assert callable(init)

    def impatient(self: sites.Call, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)
        self.patience_s = 0.05

    return impatient


async def test_a_bounded_range_never_has_unverified_bytes(world: World) -> None:
    world.hub.wrong_times = 1
    reply = await world.ask(world.url(), headers={"Range": f"bytes=0-{MODEL.size - 2}"})
    assert reply.status == 206
    assert reply.body == WHOLE[:-1]


# --- at rest --------------------------------------------------------------------------------------


async def test_a_blob_that_went_bad_is_fetched_again_and_never_served(world: World) -> None:
    await world.warm()
    blob = world.blob()
    blob.chmod(0o644)
    blob.write_bytes(b"x" * MODEL.size)
    assert (await world.ask(world.url())).body == WHOLE


async def test_a_blob_cut_short_while_it_is_sent_ends_in_a_short_body(tmp_path: Path) -> None:
    big = Content("big", 32 * MB)
    hub = Puppet()
    hub.world.repo("acme/tiny").commit({"model.bin": lfs(big)})
    async with serving(tmp_path, hub=hub, allowlist="allow: [acme/tiny@main]") as world:
        await world.lock()
        await world.mirror.cache.hold(world.entry())
        wire = await world.send(world.url())
        await wire.read_head()
        os.truncate(world.blob(), MB)
        body, _ = await wire.read_rest()
        await wire.close()
        assert len(body) < big.size
        await came_true(lambda: not world.blob().exists())  # it was hashed, and put aside
        assert (await world.ask(world.url())).body == big.read(0, big.size)


async def test_several_requests_share_a_connection(world: World) -> None:
    await world.warm()
    wire = await world.connect()
    for path in ("model.bin", "config.json", "empty.txt", "model.bin"):
        wire.writer.write(f"GET {world.url(path)} HTTP/1.1\r\nHost: m\r\n\r\n".encode())
        head = await wire.read_head()
        body = await wire.read_exactly(head.length)
        assert hashlib.sha256(body).hexdigest() == FILES[path].digest.hex
    await wire.close()


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    await world.warm()
    wire = await world.connect()
    paths = ["model.bin", "README.md", "model.bin", "config.json"]
    for path in paths:
        wire.writer.write(f"GET {world.url(path)} HTTP/1.1\r\nHost: m\r\n\r\n".encode())
    for path in paths:
        head = await wire.read_head()
        body = await wire.read_exactly(head.length)
        assert hashlib.sha256(body).hexdigest() == FILES[path].digest.hex
    await wire.close()
