"""The fakes do what they say: a test that trusts them needs that."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing

import pytest

from proxy.errors import RangeIgnored, UpstreamUnavailable
from proxy.hub.names import RepoId, Revision
from proxy.pins.lock import Entry
from proxy.upstream.base import Upstream
from tests.fakes.content import BLOCK, Content, Twisted
from tests.fakes.memory import FakeHub
from tests.fakes.world import Repo, lfs, regular


async def read(upstream: Upstream, entry: Entry, start: int = 0) -> bytes:
    got = b""
    async with asyncio.timeout(5), aclosing(upstream.fetch(entry, start, entry.size)) as body:
        async for piece in body:
            got += piece
    return got


# --- content -------------------------------------------------------------------------------------


def test_content_is_the_same_every_time_and_at_every_offset() -> None:
    content = Content("weights", 3 * BLOCK + 17)
    whole = content.read(0, content.size)
    assert len(whole) == content.size
    assert hashlib.sha256(whole).hexdigest() == content.sha256()
    for start, stop in ((0, 5), (3, 30), (BLOCK - 4, BLOCK + 40), (2 * BLOCK, content.size + 9)):
        assert content.read(start, stop) == whole[start:stop]


def test_no_two_blocks_of_content_are_alike() -> None:
    content = Content(1, 3 * BLOCK)
    blocks = {content.read(at, at + BLOCK) for at in range(0, content.size, BLOCK)}
    assert len(blocks) == 3
    assert Content(2, 3 * BLOCK).sha256() != content.sha256()


def test_twisted_content_has_one_wrong_byte() -> None:
    right = Content(1, 1000)
    wrong = Twisted(right)
    pairs = zip(right.read(0, 1000), wrong.read(0, 1000), strict=True)
    assert sum(a != b for a, b in pairs) == 1
    assert wrong.read(300, 350) != right.read(300, 350)


# --- world ---------------------------------------------------------------------------------------


def test_a_commit_has_the_id_that_git_gives_it() -> None:
    repo = Repo(RepoId("acme/tiny"))
    first = repo.commit({"a.txt": regular("hello\n")}, title="first")
    # git init; printf 'hello\n' >a.txt; git add; git commit with the same author and date
    assert repo.commits[first].folders[""] == "2e81171448eb9f2ee3821e3d447aa6b2fe3ddba1"
    assert first == "4713dc64ed7f87cce8cd2bbfec4f4ac667c255cf"
    second = repo.commit({"a.txt": None, "b/c.bin": lfs(b"x")})
    assert [commit.sha for commit in repo.history("main")] == [second, first]
    assert repo.at().files.keys() == {"b/c.bin"}


# --- the upstream in memory ----------------------------------------------------------------------

DATA = Content("data", 300_000).read(0, 300_000)


async def test_a_published_file_can_be_fetched_and_listed() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    small = hub.publish("gpt2", "config.json", "{}", lfs=False)
    assert await read(hub, entry) == DATA
    assert await read(hub, small) == b"{}"
    info = await hub.info(RepoId("gpt2"), Revision("main"))
    assert info.commit == small.commit
    listed = {row.path: row async for row in hub.tree(RepoId("gpt2"), info.commit)}
    assert listed[entry.path].lfs == entry.digest
    assert listed[small.path].lfs is None
    assert listed[small.path].git_oid == small.etag


async def test_a_cut_happens_once_and_a_resume_gives_the_rest() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.cut_after = 100 * 1024
    got = b""
    with pytest.raises(UpstreamUnavailable):
        async with aclosing(hub.fetch(entry, 0, entry.size)) as body:
            async for piece in body:
                got += piece
    assert len(got) == 100 * 1024
    assert got + await read(hub, entry, len(got)) == DATA
    assert hub.fetched == [("model.bin", 0), ("model.bin", 100 * 1024)]


async def test_an_upstream_that_ignores_ranges_says_so() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.ignores_range = True
    assert await read(hub, entry) == DATA
    with pytest.raises(RangeIgnored):
        await read(hub, entry, 5)


async def test_lies_have_the_right_length() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.lies = True
    got = await read(hub, entry)
    assert len(got) == len(DATA)
    assert got != DATA


async def test_a_fetch_waits_at_the_gate() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.gate = asyncio.Event()
    task = asyncio.create_task(read(hub, entry))
    await asyncio.wait_for(hub.at_gate.wait(), 5)
    assert hub.sent == 0
    hub.gate.set()
    assert await task == DATA
    assert hub.active == 0
