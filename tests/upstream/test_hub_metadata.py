"""Info, refs and trees of a Hub on loopback that misbehaves on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from yarl import URL

from proxy.config import Secret, Timeouts, UpstreamConfig
from proxy.errors import UpstreamMissing, UpstreamUnavailable
from proxy.hub.names import RepoId, Revision
from proxy.hub.wire import RefKind
from proxy.upstream import from_url
from proxy.upstream.base import Upstream
from proxy.upstream.exchange import Limits
from tests.upstream.contract import MAIN, REPO, world
from tests.upstream.hubs import (
    COMMIT,
    DATA,
    INFO,
    MODEL,
    REFS,
    TOKEN,
    TREE,
    FakeTime,
    Make,
)
from tests.upstream.origin import Origin, Said, json, of_world


class TestMetadata:
    async def test_a_tag_is_told_from_a_branch(self, upstream: Upstream, hub: Origin) -> None:
        tagged = world()
        tagged.repo(REPO).tag("v1")
        hub.otherwise = of_world(tagged)
        assert (await upstream.info(REPO, Revision("v1"))).kind is RefKind.TAG
        assert (await upstream.info(REPO, MAIN)).kind is RefKind.BRANCH
        assert (await upstream.info(REPO, Revision(COMMIT[:9]))).kind is RefKind.COMMIT

    async def test_without_refs_a_name_counts_as_a_branch(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(REFS, Said(404))
        assert (await upstream.info(REPO, MAIN)).kind is RefKind.BRANCH

    async def test_a_slash_in_a_revision_is_quoted(self, upstream: Upstream, hub: Origin) -> None:
        with pytest.raises(UpstreamMissing):
            await upstream.info(REPO, Revision("refs/pr/1"))
        assert hub.paths == ["/api/models/acme/tiny/revision/refs%2Fpr%2F1"]

    async def test_a_failure_that_passes_is_tried_again(
        self, upstream: Upstream, hub: Origin, time: FakeTime
    ) -> None:
        good = of_world(world())
        hub.say(INFO, Said(500), Said(raw=b""), Said(429, headers={"Retry-After": "9"}))
        hub.scripts[INFO].append(json({"id": "acme/tiny", "sha": COMMIT}))
        hub.otherwise = good
        assert (await upstream.info(REPO, MAIN)).commit == COMMIT
        assert time.slept[-1] == 9.0
        assert time.slept == sorted(time.slept)

    async def test_a_failure_that_does_not_pass_is_reported(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(INFO, Said(500))
        with pytest.raises(UpstreamUnavailable, match="500"):
            await upstream.info(REPO, MAIN)
        assert len(hub.asked) == 4

    async def test_a_long_wait_is_the_callers(
        self, upstream: Upstream, hub: Origin, time: FakeTime
    ) -> None:
        hub.say(INFO, Said(429, headers={"RateLimit": '"api";r=0;t=300'}))
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable) as caught:
                await upstream.info(REPO, MAIN)
            assert caught.value.retry_after_s == 300
        assert len(hub.asked) == 1
        assert time.slept == []

    @pytest.mark.parametrize(
        "body",
        [
            b'{"id":"acme/tiny"}',
            b'{"id":"acme/tiny","sha":"main"}',
            b"[]",
            b'{"id":7,"sha":"' + b"a" * 40 + b'"}',
            b'{"id":"evil/other","sha":"' + b"a" * 40 + b'"}',
            b'{"id":"acme/tiny","sha":"' + b"a" * 40 + b'","x":' + b"[" * 900 + b"]" * 900 + b"}",
            b"[" * 100_000,
            b'{"id":',
            b"\xff\xfe",
        ],
    )
    async def test_an_info_object_that_makes_no_sense_is_refused(
        self, upstream: Upstream, hub: Origin, body: bytes
    ) -> None:
        hub.say(INFO, Said(200, body))
        with pytest.raises(UpstreamUnavailable):
            await upstream.info(REPO, MAIN)

    async def test_another_commit_than_the_one_asked_for_is_a_lie(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(
            f"/api/models/acme/tiny/revision/{COMMIT}", json({"id": "acme/tiny", "sha": "a" * 40})
        )
        with pytest.raises(UpstreamUnavailable, match="it answers aaaa"):
            await upstream.info(REPO, Revision(COMMIT))

    async def test_a_login_page_is_not_json(self, upstream: Upstream, hub: Origin) -> None:
        hub.say(INFO, Said(200, b"<html>", {"Content-Type": "text/html"}))
        with pytest.raises(UpstreamUnavailable, match="captive portal"):
            await upstream.info(REPO, MAIN)
        assert len(hub.asked) == 1

    async def test_json_without_end_is_cut_off(self, make: Make, hub: Origin) -> None:
        hub.say(INFO, Said(200, b" " * 5000))
        with pytest.raises(UpstreamUnavailable, match="longer than 4,096"):
            await make(limits=Limits(json_size=4096)).info(REPO, MAIN)

    async def test_a_private_repository_that_our_token_opens_is_marked(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(INFO, json({"id": "acme/tiny", "sha": COMMIT, "gated": "auto"}))
        assert (await upstream.info(REPO, MAIN)).restricted == "gated"


def _file(path: str) -> dict[str, object]:
    return {"type": "file", "path": path, "size": 1, "oid": "a" * 40}


async def _paths(upstream: Upstream) -> list[str]:
    return [entry.path async for entry in upstream.tree(REPO, COMMIT)]


class TestTree:
    @pytest.fixture
    def pages(self, hub: Origin) -> Callable[..., None]:
        def say(*pages: list[dict[str, object]], host: str = "", path: str = TREE) -> None:
            links = [
                {"Link": f'<{host}{path}?cursor={n}%3D>; rel="next", <x>; rel="other"'}
                for n in range(1, len(pages))
            ]
            hub.say(
                TREE,
                *(json(page, **link) for page, link in zip(pages, [*links, {}], strict=True)),
            )

        return say

    @pytest.mark.parametrize("host", ["", "https://huggingface.co", "http://evil.example:1"])
    async def test_every_page_is_read_from_the_configured_hub(
        self, upstream: Upstream, hub: Origin, pages: Callable[..., None], host: str
    ) -> None:
        pages([_file("a")], [_file("b")], [_file("c")], host=host)
        assert await _paths(upstream) == ["a", "b", "c"]
        assert [one.query for one in hub.asked] == [
            "recursive=true&expand=false",
            "cursor=1%3D",
            "cursor=2%3D",
        ]

    async def test_a_next_page_of_something_else_is_refused(
        self, upstream: Upstream, pages: Callable[..., None]
    ) -> None:
        pages([_file("a")], [_file("b")], path="/api/models/acme/evil/tree/main")
        with pytest.raises(UpstreamUnavailable, match="next page"):
            await _paths(upstream)

    async def test_pages_that_go_round_are_noticed(self, upstream: Upstream, hub: Origin) -> None:
        for query in ("cursor=1", "recursive=true&expand=false"):
            hub.say(TREE, json([], Link=f'<{TREE}?{query}>; rel="next"'))
            with pytest.raises(UpstreamUnavailable, match="does not end"):
                await _paths(upstream)

    async def test_pages_without_end_are_cut_off(
        self, make: Make, pages: Callable[..., None]
    ) -> None:
        pages(*([_file(str(n))] for n in range(9)))
        with pytest.raises(UpstreamUnavailable, match="does not end"):
            await _paths(make(limits=Limits(pages=5)))

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a\0b", "a//b", "", "a" * 300])
    async def test_one_impossible_name_condemns_the_tree(
        self, upstream: Upstream, pages: Callable[..., None], path: str
    ) -> None:
        pages([_file("good"), _file(path)])
        with pytest.raises(UpstreamUnavailable, match="makes no sense"):
            await _paths(upstream)

    async def test_a_file_listed_twice_condemns_the_tree(
        self, upstream: Upstream, pages: Callable[..., None]
    ) -> None:
        pages([_file("a")], [_file("a")])
        with pytest.raises(UpstreamUnavailable, match="twice"):
            await _paths(upstream)

    async def test_a_page_that_was_cut_is_read_again(self, upstream: Upstream, hub: Origin) -> None:
        hub.say(TREE, Said(200, b'[{"type":"fi'), json([_file("a")]))
        assert await _paths(upstream) == ["a"]


class TestFromUrl:
    @pytest.mark.parametrize("url", ["ftp://x/", "bundle:x", "file://host/path"])
    def test_a_scheme_that_nobody_speaks_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"speaks|slashes"):
            from_url(UpstreamConfig(URL(url)), Timeouts())

    @pytest.mark.parametrize("url", ["https://huggingface.co", "file:///mnt/usb"])
    def test_the_name_is_the_url(self, url: str) -> None:
        assert from_url(UpstreamConfig(URL(url), Secret(TOKEN)), Timeouts()).name == url


async def test_a_slow_reader_is_not_a_slow_upstream(upstream: Upstream, hub: Origin) -> None:
    got = b""
    async for chunk in upstream.fetch(MODEL, 0, MODEL.size):
        got += chunk
        for _ in range(20):
            await asyncio.sleep(0)
    assert got == DATA


async def test_a_dataset_has_its_own_urls(upstream: Upstream, hub: Origin) -> None:
    with pytest.raises(UpstreamMissing):
        await upstream.info(RepoId("datasets/acme/d"), MAIN)
    assert hub.paths == ["/api/datasets/acme/d/revision/main"]
