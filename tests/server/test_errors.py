"""Every refusal and failure, as each client shows it."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy import errors as kinds
from proxy.server import errors
from tests.server.world import Reply, World, serving

CONTACT = "ml-platform, ext. 4711"
HUB_CLIENT = {"User-Agent": "unknown/None; hf_hub/2.4.0; python/3.11"}


def sentence(reply: Reply) -> str:
    body = reply.json
    assert isinstance(body, dict)
    return str(body["error"])


@pytest.mark.parametrize(
    ("target", "status", "code", "says"),
    [
        ("/acme/other/resolve/main/x", 404, "RepoNotFound", "acme/other"),
        ("/api/models/acme/other", 404, "RepoNotFound", "acme/other"),
        ("/api/models/acme/other/tree/main", 404, "RepoNotFound", "acme/other"),
        ("/acme/tiny/resolve/v9/config.json", 404, "RevisionNotFound", "main, v1.0"),
        ("/api/models/acme/tiny/revision/v9", 404, "RevisionNotFound", "main, v1.0"),
        ("/acme/tiny/resolve/main/nothing.bin", 404, "EntryNotFound", "nothing.bin"),
        ("/acme/tiny/resolve/main/sub", 404, "EntryNotFound", "sub"),
        ("/acme/tiny/resolve/main/", 404, "EntryNotFound", ""),
        ("/acme/tiny/resolve/" + "a" * 40 + "/config.json", 404, "RevisionNotFound", "main"),
    ],
)
async def test_a_refusal_says_what_and_why(
    world: World, target: str, status: int, code: str, says: str
) -> None:
    asked = (len(world.hub.asked), len(world.hub.listed), len(world.hub.fetched))
    for method in ("GET", "HEAD"):
        reply = await world.ask(target, method=method)
        assert (reply.status, reply.code) == (status, code)
        assert reply.headers["X-Error-Message"].isascii()
        assert reply.headers["Content-Type"].startswith("application/json")
        if method == "GET":
            assert says in sentence(reply)
            assert reply.whole
        else:
            assert reply.body == b""
    now = (len(world.hub.asked), len(world.hub.listed), len(world.hub.fetched))
    assert now == asked, "nobody upstream hears of it"


@pytest.mark.parametrize(
    "target", ["/acme/other/resolve/main/x", "/acme/tiny/resolve/v9/x", "/api/models/acme/other"]
)
async def test_what_an_admin_can_allow_names_whom_to_ask(world: World, target: str) -> None:
    reply = await world.ask(target)
    assert CONTACT in sentence(reply)
    assert CONTACT in reply.headers["X-Error-Message"]
    topic, _, text = reply.headers["X-HF-Warning"].partition("; ")
    assert topic
    assert CONTACT in text


async def test_warnings_about_different_pairs_have_different_topics(world: World) -> None:
    topics = set()
    for target in ("/acme/a/resolve/main/x", "/acme/b/resolve/main/x", "/acme/tiny/resolve/v9/x"):
        topics.add((await world.ask(target)).headers["X-HF-Warning"].partition(";")[0])
    assert len(topics) == 3


async def test_a_missing_file_names_the_commit_so_that_the_client_remembers(world: World) -> None:
    reply = await world.ask("/acme/tiny/resolve/main/nothing.bin", method="HEAD")
    assert reply.headers["X-Repo-Commit"] == world.entry().commit
    assert "X-HF-Warning" not in reply.headers, "optional files are asked for all the time"


async def test_an_allowed_pair_that_is_not_locked_says_what_the_admin_has_to_do(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as world:
        reply = await world.ask("/acme/tiny/resolve/main/config.json")
        assert (reply.status, reply.code) == (404, "RevisionNotFound")
        assert "hubpin lock" in sentence(reply)


@pytest.mark.parametrize(
    "target",
    [
        "/acme/tiny/resolve/main/%ff",
        "/acme/tiny/resolve/main/%c0%ae%c0%ae/x",
        "/acme%2Ftiny/resolve/x/resolve/main/config.json",
        "/..%2f..%2fetc/passwd/resolve/main/x",
        "/acme/tiny.git/resolve/main/config.json",
        "/acme/ti--ny/resolve/main/config.json",
        "/" + "a" * 7000 + "/b/resolve/main/x",
        "/-/blobs/sha256/xyz",
        "/-/blobs/md5/abc",
        "/-/sums/nothing",
    ],
)
async def test_a_name_that_cannot_be_is_the_clients_mistake(world: World, target: str) -> None:
    reply = await world.ask(target)
    assert reply.status in (400, 404)
    assert reply.code


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd",
        "sub/../config.json", "./config.json", "sub//deep/small.bin", "config.json/",
        "config.json%00",
        "sub%5cdeep%5csmall.bin", "%252e%252e/config.json", "CONFIG.json", "config.json%20",
        "/config.json", "config.json%0d%0aX-Evil:%201", "a" * 5000, "/".join("a" * 3000),
    ],
)  # fmt: skip
async def test_a_path_is_a_key_of_the_lock_and_nothing_else(world: World, path: str) -> None:
    reply = await world.ask(f"/acme/tiny/resolve/main/{path}")
    assert reply.status in (400, 404)
    assert "X-Evil" not in reply.headers
    assert b"root:" not in reply.raw


@pytest.mark.parametrize(
    "target",
    [
        "/acme/tiny/resolve/refs%2Fheads%2Fmain/config.json", "/Acme/tiny/resolve/main/config.json",
        "/acme/tiny/resolve/MAIN/config.json", "/acme/tiny/resolve/main%20/config.json",
        "/models/acme/tiny/resolve/main/config.json",
        "/datasets/acme/tiny/resolve/main/config.json",
        "/acme/tiny%20/resolve/main/config.json", "/acme/tiny%00/resolve/main/config.json",
        "/acme/tiny/resolve/main%00/config.json", "/acme/tiny//resolve/main/config.json",
        "/spaces/acme/tiny/resolve/main/config.json", "/acme/tiny/blob/main/config.json",
        "/acme/d/resolve/main/data.csv", "/api/resolve-cache/models/acme/tiny/x/config.json",
    ],
)  # fmt: skip
async def test_no_other_spelling_opens_anything(world: World, target: str) -> None:
    """But that another case of a name may mean the same where only one can be meant."""
    asked = len(world.hub.asked)
    reply = await world.ask(target)
    assert reply.status in (400, 404) or reply.headers.get("X-Repo-Commit") == world.entry().commit
    assert len(world.hub.asked) == asked


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_writing_is_refused(world: World, method: str) -> None:
    for target in ("/api/models/acme/tiny/commit/main", "/api/repos/create", world.url()):
        reply = await world.ask(target, method=method, body=b"x")
        assert (reply.status, reply.code) == (403, "ReadOnly")
        assert "read-only" in sentence(reply)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
async def test_other_methods_are_not_known(world: World, method: str) -> None:
    reply = await world.ask(world.url(), method=method)
    assert reply.status == 405
    assert "GET" in reply.headers["Allow"]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://evil.example/acme/tiny/resolve/main/config.json HTTP/1.1\r\nHost: m\r\n\r\n",
        b"CONNECT huggingface.co:443 HTTP/1.1\r\nHost: huggingface.co\r\n\r\n",
        b"GET /acme/tiny/resolve/main/config.json HTTP/1.1\r\n\r\n",
        b"GET /acme/tiny/resolve/main/config.json HTTP/1.1\r\nHost: u@h\r\n\r\n",
        b"GET /acme/tiny/resolve/main/config.json HTTP/1.1\r\nHost: a, b\r\n\r\n",
        b"GET /acme/tiny/resolve/main/config.json HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /acme/tiny/resolve/main/config.json HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /acme/tiny/resolve/main/config.json HTTP/9.9\r\nHost: m\r\n\r\n",
        b"GET /acme/tiny/resolve/main/config.json\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: m\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n",
    ],
)  # fmt: skip
async def test_odd_requests_get_an_error_or_nothing(world: World, request_: bytes) -> None:
    reply = await world.ask_raw(request_)
    assert reply.status == 0 or 400 <= reply.status < 500
    assert b"Traceback" not in reply.raw


async def test_an_old_client_without_a_host_is_welcome(world: World) -> None:
    wire = await world.connect()
    wire.writer.write(b"GET /acme/tiny/resolve/main/config.json HTTP/1.0\r\n\r\n")
    raw, _ = await wire.read_rest()
    await wire.close()
    reply = Reply(raw)
    assert reply.body == b"{}"


# --- failures -------------------------------------------------------------------------------------


async def test_a_missing_blob_and_a_dead_upstream_are_504_and_the_head_still_200(
    world: World,
) -> None:
    world.hub.down = True
    reply = await world.ask(world.url())
    assert (reply.status, reply.code) == (504, "UpstreamUnavailable")
    assert (await world.ask(world.url(), method="HEAD")).status == 200
    world.hub.down = False
    assert (await world.ask(world.url())).status == 200


async def test_an_upstream_that_lost_a_locked_file_is_never_404(world: World) -> None:
    """The client would remember that the file does not exist."""
    world.hub.missing = True
    reply = await world.ask(world.url())
    assert (reply.status, reply.code) == (502, "UpstreamMissing")


async def test_an_upstream_that_closed_its_door_is_said_so(world: World) -> None:
    world.hub.forbidden = True
    reply = await world.ask(world.url())
    assert (reply.status, reply.code) == (403, "GatedRepo")


async def test_being_told_to_come_later_is_passed_on(world: World) -> None:
    world.hub.down, world.hub.retry_after_s = True, 90.0
    for agent, status in (("hf_hub/2.4.0", 429), ("hf_hub/0.36.2", 503), ("aria2/1.36", 503)):
        reply = await world.ask(world.url(), headers={"User-Agent": agent})
        assert (reply.status, reply.headers["Retry-After"]) == (status, "90")


async def test_a_disk_that_fails_tells_nothing_about_itself(world: World) -> None:
    (world.config.data / "blobs-v1").rename(world.config.data / "gone")
    (world.config.data / "blobs-v1").write_text("in the way")
    reply = await world.ask(world.url())
    assert (reply.status, reply.code) == (500, "StoreError")
    assert str(world.config.data).encode() not in reply.raw
    assert CONTACT in sentence(reply)


@pytest.mark.parametrize("name", ["Authorization", "Cookie"])
async def test_what_a_client_tells_us_in_confidence_is_repeated_nowhere(
    world: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "hf_canary0123456789"
    replies = [
        await world.ask(target, headers={name: f"Bearer {canary}"})
        for target in (world.url(), "/acme/other/resolve/main/x", "/-/status", "/metrics", "/x")
    ]
    assert all(canary.encode() not in reply.raw for reply in replies)
    assert canary not in caplog.text


async def test_the_log_is_one_line_whatever_the_path(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.ask("/acme/other/resolve/main/%1b%5b31m%0a%0dfake%20line")
    (line,) = [one.getMessage() for one in caplog.records if one.name == "proxy.server.app"]
    assert line.isprintable()
    assert line.isascii()


async def test_every_answer_has_an_id_and_forbids_guessing_its_type(world: World) -> None:
    ids = set()
    targets = [world.url(), world.url("config.json"), "/acme/other/resolve/main/x", "/", "/metrics",
        "/-/status", "/-/healthy", "/nothing"]  # fmt: skip
    for target in targets:
        reply = await world.ask(target)
        ids.add(reply.headers["X-Request-Id"])
        assert reply.headers["X-Content-Type-Options"] == "nosniff", target
        assert "Python" not in reply.headers.get("Server", "")
    assert len(ids) == len(targets)


# --- the table ------------------------------------------------------------------------------------


def leaves(kind: type[kinds.MirrorError]) -> list[type[kinds.MirrorError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in leaves(below))]


@pytest.mark.parametrize(
    "kind",
    [one for one in leaves(kinds.MirrorError) if one.__module__ == "proxy.errors"],
)
def test_every_error_has_an_answer_that_is_no_success(kind: type[kinds.MirrorError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "x\r\nSet-Cookie: é")
    for name in (
        "repo",
        "revision",
        "commit",
        "reason",
        "what",
        "text",
        "kind",
        "upstream",
        "ending",
    ):
        setattr(error, name, "x\ry")
    error.__dict__.update(retry_after_s=3, status=404, allowed=(), problem="x")

    request = make_mocked_request("GET", "/", headers={"User-Agent": "hf_hub/2.4.0"})
    answer = errors.answer(error, request, "me")
    assert 400 <= answer.status < 600
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["error"]
    assert answer.headers["X-Error-Code"]
    text = answer.headers["X-Error-Message"]
    assert text.isascii()
    assert "\r" not in text
    assert "\n" not in text


def test_a_header_is_one_line_of_ascii() -> None:
    assert errors.header_text("a\r\nb\tcé日\x00") == "a?b?c?"
    assert len(errors.header_text("x" * 5000)) <= 1000


async def test_a_hundred_refusals_at_once_are_a_hundred_answers(world: World) -> None:
    replies = await asyncio.gather(
        *(world.ask(f"/acme/other{n}/resolve/main/x", headers=HUB_CLIENT) for n in range(100))
    )
    assert {reply.status for reply in replies} == {404}
