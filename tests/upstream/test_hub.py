"""HubUpstream against servers on loopback that misbehave on request."""

from __future__ import annotations

import gzip
import socket

import pytest
from yarl import URL

from proxy.config import Timeouts, UpstreamConfig
from proxy.errors import RangeIgnored, UpstreamForbidden, UpstreamMissing, UpstreamUnavailable
from proxy.upstream.base import Upstream
from proxy.upstream.exchange import Limits
from proxy.upstream.hub import HubUpstream
from tests.upstream.contract import MAIN, REPO, UpstreamContract, read, world
from tests.upstream.hubs import (
    COMMIT,
    DATA,
    INFO,
    MODEL,
    REFS,
    RESOLVE,
    TOKEN,
    FakeTime,
    Make,
)
from tests.upstream.origin import Origin, Said, error, of_world, origin


class TestHub(UpstreamContract):
    """The contract, over HTTP."""


class TestCdn:
    """Files that lie behind a redirect."""

    @pytest.fixture(autouse=True)
    def behind(self, hub: Origin, cdn: Origin) -> None:
        hub.say(RESOLVE, Said(302, b"Found", {"Location": f"{cdn.url}/blob?Sig=a%2Bb~c%3D"}))
        cdn.say("/blob", Said(200, DATA))

    async def test_the_token_goes_to_the_hub_and_not_to_the_cdn(
        self, upstream: Upstream, hub: Origin, cdn: Origin
    ) -> None:
        assert await read(upstream, MODEL) == DATA
        assert hub.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in str(cdn.asked)

    async def test_a_signed_query_arrives_as_it_was_written(
        self, upstream: Upstream, cdn: Origin
    ) -> None:
        await read(upstream, MODEL)
        assert cdn.asked[0].query == "Sig=a%2Bb~c%3D"

    async def test_the_range_goes_along(self, upstream: Upstream, cdn: Origin) -> None:
        cdn.say("/blob", Said(206, DATA[5:9], {"Content-Range": f"bytes 5-8/{MODEL.size}"}))
        assert await read(upstream, MODEL, 5, 9) == DATA[5:9]
        assert cdn.asked[0].headers["range"] == "bytes=5-8"

    async def test_an_expired_url_is_resolved_anew_once(
        self, upstream: Upstream, hub: Origin, cdn: Origin
    ) -> None:
        cdn.say("/blob", Said(403), Said(200, DATA))
        assert await read(upstream, MODEL) == DATA
        assert hub.paths == [RESOLVE, RESOLVE]

    async def test_urls_that_expire_at_once_are_not_resolved_for_ever(
        self, upstream: Upstream, hub: Origin, cdn: Origin
    ) -> None:
        cdn.say("/blob", Said(403))
        with pytest.raises(UpstreamUnavailable, match="two signed URLs"):
            await read(upstream, MODEL)
        assert len(hub.asked) == 2

    async def test_a_login_page_is_not_a_file(self, upstream: Upstream, cdn: Origin) -> None:
        cdn.say("/blob", Said(200, b"<html>", {"Content-Type": "text/html; charset=utf-8"}))
        with pytest.raises(UpstreamUnavailable, match="captive portal"):
            await read(upstream, MODEL)

    @pytest.mark.parametrize("kind", ["text/plain; charset*", ";", "*;0-*", ""])
    async def test_a_content_type_that_makes_no_sense_does_not_matter(
        self, upstream: Upstream, cdn: Origin, kind: str
    ) -> None:
        cdn.say("/blob", Said(200, DATA, {"Content-Type": kind}))
        assert await read(upstream, MODEL) == DATA

    @pytest.mark.parametrize("kind", ["Text/HTML", "text/html ;charset*"])
    async def test_a_web_page_is_one_however_that_is_written(
        self, upstream: Upstream, cdn: Origin, kind: str
    ) -> None:
        cdn.say("/blob", Said(200, b"<html>", {"Content-Type": kind}))
        with pytest.raises(UpstreamUnavailable, match="captive portal"):
            await read(upstream, MODEL)

    async def test_a_cdn_that_asks_for_patience_gets_it(
        self, upstream: Upstream, hub: Origin, cdn: Origin, time: FakeTime
    ) -> None:
        cdn.say("/blob", Said(429, headers={"Retry-After": "7"}), Said(200, DATA))
        with pytest.raises(UpstreamUnavailable) as caught:
            await read(upstream, MODEL)
        assert caught.value.retry_after_s == 7
        assert await read(upstream, MODEL) == DATA
        assert time.slept == [7.0]

    async def test_a_hub_that_lies_about_the_commit_is_not_believed(
        self, upstream: Upstream, hub: Origin, cdn: Origin
    ) -> None:
        headers = {"Location": f"{cdn.url}/blob", "X-Repo-Commit": "e" * 40}
        hub.say(RESOLVE, Said(302, headers=headers))
        with pytest.raises(UpstreamUnavailable, match="another commit"):
            await read(upstream, MODEL)


class TestRedirects:
    async def test_the_hubs_own_cache_keeps_its_query_and_its_token(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        target = f"/api/resolve-cache/models/acme/tiny/{COMMIT}/x"
        hub.say(RESOLVE, Said(307, headers={"Location": f"{target}?x%2Fy=&etag=%22a%22"}))
        hub.say(target, Said(200, DATA))
        assert await read(upstream, MODEL) == DATA
        assert hub.asked[1].query == "x%2Fy=&etag=%22a%22"
        assert hub.asked[1].headers["authorization"] == f"Bearer {TOKEN}"

    async def test_an_absolute_308_to_an_allowed_hub_is_followed_without_the_token(
        self, upstream: Upstream, hub: Origin, cdn: Origin
    ) -> None:
        hub.say(INFO, Said(308, headers={"Location": cdn.url + INFO}))
        hub.say(REFS, Said(308, headers={"Location": cdn.url + REFS}))
        cdn.otherwise = of_world(world())
        assert (await upstream.info(REPO, MAIN)).commit == COMMIT
        assert TOKEN not in str(cdn.asked)

    async def test_another_address_is_never_dialled(self, upstream: Upstream, hub: Origin) -> None:
        async with origin("127.0.0.3") as canary:
            hub.say(RESOLVE, Said(302, headers={"Location": f"{canary.url}/x"}))
            with pytest.raises(UpstreamUnavailable, match="redirect_hosts") as caught:
                await read(upstream, MODEL)
            assert f"127.0.0.3:{canary.port}" in str(caught.value)
            assert not canary.asked

    async def test_a_loop_ends_after_five_hops(self, upstream: Upstream, hub: Origin) -> None:
        hub.say(RESOLVE, Said(302, headers={"Location": RESOLVE}))
        with pytest.raises(UpstreamUnavailable, match="more than 5 times"):
            await read(upstream, MODEL)
        assert len(hub.asked) == 6

    async def test_a_file_of_another_repository_is_not_taken(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(RESOLVE, Said(302, headers={"Location": RESOLVE.replace("tiny", "evil")}))
        with pytest.raises(UpstreamUnavailable, match="another repository, acme/evil"):
            await read(upstream, MODEL)
        assert not [path for path in hub.paths if path.startswith("/acme/evil")]

    async def test_a_renamed_repository_is_found_under_its_new_name(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        moved = world()
        moved.rename("acme/tiny", "acme/new")
        new_world = of_world(moved)

        def answer(asked: object) -> Said:
            last = hub.asked[-1]
            if "/acme/tiny/" in last.path:
                there = last.path.replace("/acme/tiny/", "/acme/new/")
                query = f"?{last.query}" if last.query else ""
                return Said(307, headers={"Location": there + query})
            return new_world(last)

        hub.otherwise = answer
        info = await upstream.info(REPO, MAIN)
        assert info.raw["id"] == "acme/new"
        listed = [entry async for entry in upstream.tree(REPO, COMMIT)]
        assert {entry.repo for entry in listed} == {REPO}
        assert await read(upstream, MODEL) == DATA

    async def test_a_rename_is_learnt_again_after_a_restart(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        moved = world()
        moved.rename("acme/tiny", "acme/new")
        new_world = of_world(moved)

        def answer(asked: object) -> Said:
            last = hub.asked[-1]
            if "/acme/tiny/" in last.path:
                there = last.path.replace("/acme/tiny/", "/acme/new/")
                return Said(307, headers={"Location": there})
            return new_world(last)

        hub.otherwise = answer
        assert await read(upstream, MODEL) == DATA
        hub.asked.clear()
        assert await read(upstream, MODEL) == DATA
        assert hub.paths == [RESOLVE.replace("tiny", "new")]


class TestRanges:
    async def test_a_hub_that_ignores_ranges_says_so(self, upstream: Upstream, hub: Origin) -> None:
        hub.say(RESOLVE, Said(200, DATA))
        with pytest.raises(RangeIgnored):
            await read(upstream, MODEL, 5)

    async def test_the_beginning_of_a_whole_answer_is_cut_to_measure(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(RESOLVE, Said(200, DATA))
        assert await read(upstream, MODEL, 0, 700) == DATA[:700]

    @pytest.mark.parametrize(
        "wrong", ["bytes 6-9/1024000", "bytes 5-9/*", "bytes 5-9/1024001", "", "items 5-9/1024000"]
    )
    async def test_a_206_of_other_bytes_is_refused(
        self, upstream: Upstream, hub: Origin, wrong: str
    ) -> None:
        hub.say(RESOLVE, Said(206, DATA[5:10], {"Content-Range": wrong}))
        with pytest.raises(RangeIgnored, match="it sends"):
            await read(upstream, MODEL, 5, 10)

    async def test_more_bytes_than_asked_for_are_never_handed_on(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(RESOLVE, Said(200, DATA + b"extra"))
        assert await read(upstream, MODEL) == DATA

    async def test_a_body_without_a_length_is_read(self, upstream: Upstream, hub: Origin) -> None:
        hub.say(RESOLVE, Said(200, DATA, length=-1))
        assert await read(upstream, MODEL) == DATA

    async def test_a_silent_end_just_ends(self, upstream: Upstream, hub: Origin) -> None:
        hub.say(RESOLVE, Said(200, DATA[:1000]))
        assert await read(upstream, MODEL) == DATA[:1000]

    async def test_a_promise_that_is_not_kept_is_an_error(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(RESOLVE, Said(200, DATA[:1000], length=len(DATA)))
        with pytest.raises(UpstreamUnavailable, match="broke"):
            await read(upstream, MODEL)

    async def test_a_416_in_the_middle_asks_to_begin_at_the_beginning(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(RESOLVE, Said(416))
        with pytest.raises(RangeIgnored, match="416"):
            await read(upstream, MODEL, 5)

    async def test_a_416_at_the_beginning_is_unavailable(
        self, upstream: Upstream, hub: Origin
    ) -> None:
        hub.say(RESOLVE, Said(416))
        with pytest.raises(UpstreamUnavailable, match="416"):
            await read(upstream, MODEL)


class TestRefusals:
    @pytest.mark.parametrize(
        ("said", "kind", "text"),
        [
            (error(404, "EntryNotFound", "Entry not found"), UpstreamMissing, "Entry not found"),
            (error(401, "RepoNotFound"), UpstreamMissing, "401"),
            (error(401), UpstreamForbidden, "401"),
            (error(403, "GatedRepo", "Ask for access"), UpstreamForbidden, "Ask for access"),
            (error(500), UpstreamUnavailable, "500"),
            (error(418), UpstreamUnavailable, "418"),
        ],
    )
    async def test_a_status_becomes_our_error(
        self, upstream: Upstream, hub: Origin, said: Said, kind: type[Exception], text: str
    ) -> None:
        hub.say(RESOLVE, said)
        with pytest.raises(kind, match=text):
            await read(upstream, MODEL)
        assert len(hub.asked) == 1, "a fetch is never repeated here"

    async def test_compressed_bytes_are_refused(self, upstream: Upstream, hub: Origin) -> None:
        hub.say(RESOLVE, Said(200, gzip.compress(DATA), {"Content-Encoding": "gzip"}))
        with pytest.raises(UpstreamUnavailable, match="identity"):
            await read(upstream, MODEL)
        assert hub.asked[0].headers["accept-encoding"] == "identity"

    @pytest.mark.parametrize(
        "raw",
        [
            b"garbage\r\n\r\n",
            b"",
            b"HTTP/1.1 200 OK\r\n" + b"X-Pad: a\r\n" * 500_000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX-Pad: " + b"a" * 5_000_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        ],
        ids=["garbage", "nothing", "many-headers", "long-header", "two-lengths"],
    )
    async def test_broken_http_is_unavailable(
        self, upstream: Upstream, hub: Origin, raw: bytes
    ) -> None:
        hub.say(RESOLVE, Said(raw=raw))
        with pytest.raises(UpstreamUnavailable):
            await read(upstream, MODEL)

    async def test_an_upstream_that_never_answers_is_given_up(
        self, make: Make, hub: Origin
    ) -> None:
        hub.say(RESOLVE, Said(raw=b"HTTP/1.1 200 OK\r\nX-Slow", hang=True))
        with pytest.raises(UpstreamUnavailable, match="no answer"):
            await read(make(timeouts=Timeouts(0.05, 5.0), limits=Limits(headers_s=0.05)), MODEL)

    async def test_a_body_that_stalls_is_given_up(self, make: Make, hub: Origin) -> None:
        hub.say(RESOLVE, Said(200, DATA[:100], length=len(DATA), hang=True))
        with pytest.raises(UpstreamUnavailable, match="nothing came"):
            await read(make(timeouts=Timeouts(2.0, 0.05)), MODEL)

    async def test_a_refused_connection_is_reported(self, make: Make) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with pytest.raises(UpstreamUnavailable, match="cannot connect"):
                await read(make(f"http://127.0.0.1:{port}"), MODEL)

    async def test_nothing_is_asked_after_closing(self, upstream: Upstream, hub: Origin) -> None:
        await upstream.close()
        with pytest.raises(UpstreamUnavailable, match="closed"):
            await read(upstream, MODEL)
        assert not hub.asked

    async def test_a_body_that_drips_is_too_slow(self, hub: Origin) -> None:
        hub.say(RESOLVE, Said(200, DATA[:50_000], length=len(DATA), hang=True))
        ticks = iter(range(0, 100_000, 100))
        upstream = HubUpstream(
            UpstreamConfig(URL(hub.url)), Timeouts(2.0, 5.0), clock=lambda: float(next(ticks))
        )
        try:
            with pytest.raises(UpstreamUnavailable, match="too slow"):
                await read(upstream, MODEL)
        finally:
            await upstream.close()
