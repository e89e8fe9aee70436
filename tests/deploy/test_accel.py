"""deploy/nginx.conf sends what the mirror holds, and nobody can tell by the answers."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.server import accel
from tests.deploy.conftest import ACCEL, BIG, cold
from tests.deploy.fronts import DEPLOY, INSIDE, OUTSIDE, Answer, Front, Nginx
from tests.e2e import clients
from tests.e2e.device import Device
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.acme import WEIGHTS_SIZE
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60, func_only=True)]

WEIGHTS = "/acme/tiny/resolve/main/model.safetensors"
SMALL = "/acme/tiny/resolve/main/config.json"
_GOES_ON = "hub-0.36.2"  # with what an earlier call left; the others, within one call
_CLIENTS = ("hub-2.4.0", _GOES_ON)
# Of one connection or one moment.
_OWN = {"date", "x-request-id", "server", "connection", "keep-alive"}
_END = WEIGHTS_SIZE - 1
# What nginx sends, and what the mirror does.
_HANDED = ["", f"bytes=0-{_END}", "bytes=0-", "bytes=1000000-", "bytes=70000-1070000"]
_HANDED += [f"bytes=70000-{_END + 9}", "bytes=-1000000", f"bytes=-{WEIGHTS_SIZE + 9}"]
_OURS = [
    "bytes=0-0",
    "bytes=-9",
    f"bytes={_END + 1}-",
    f"bytes={_END + 10}-{_END + 20}",
    "bytes=-0",
]
_OURS += ["bytes=0-600000,700000-1400000", "bytes=9-2", "bytes=\t0-1000000", "items=0-1000000"]
_OURS += ["bytes=0-" + "9" * 30, "bytes=" + "9" * 30 + "-", "bytes=-" + "9" * 30]


@pytest.fixture(scope="module")
def nginx(
    mirror: MirrorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Front, MirrorProcess]]:
    """With the weights held."""
    with Nginx(tmp_path_factory.mktemp("accel"), mirror.url, mirror.data) as front:
        assert bare(mirror, WEIGHTS).status == 200
        yield front, mirror


def bare(
    mirror: MirrorProcess, path: str, *, method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Answer:  # fmt: skip
    """What the mirror itself says."""
    with closing(http.client.HTTPConnection(INSIDE, mirror.port, timeout=20)) as connection:
        connection.request(method, path, headers=dict(headers or {}))
        return _answer(connection)


def through(
    front: Front, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Answer:
    with closing(front.connect()) as connection:
        connection.request(method, path, headers=dict(headers or {}))
        return _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> Answer:
    """With headers that came twice as two."""
    reply = connection.getresponse()
    said: dict[str, str] = {}
    for name, value in reply.getheaders():
        key = name.lower()
        said[key] = f"{said[key]} AND {value}" if key in said else value
    return Answer(reply.status, said, reply.read(), whole=True)


def events(mirror: MirrorProcess) -> list[dict[str, Any]]:
    """The audit log, up to the last whole line."""
    log, _, _ = (mirror.data / "audit.jsonl").read_text().rpartition("\n")
    return [json.loads(line) for line in log.splitlines()]


def handed(mirror: MirrorProcess, answer: Answer) -> bool:
    """Whether the mirror handed over what was answered so."""
    request = answer.headers["x-request-id"]

    def noted() -> list[str]:
        return [line["event"] for line in events(mirror) if line.get("request") == request]

    mirror.wait_until(noted)
    return noted() == ["handed"]


def alike(front: Front, mirror: MirrorProcess, path: str, **request: object) -> Answer:
    """The answer through nginx, which is the mirror's own in every header and byte."""
    method = str(request.get("method", "GET"))
    headers = request.get("headers")
    assert headers is None or isinstance(headers, dict)
    ours = bare(mirror, path, method=method, headers=headers)
    got = through(front, path, method=method, headers=headers)
    shown, own = ({k: v for k, v in a.headers.items() if k not in _OWN} for a in (got, ours))
    assert (got.status, shown) == (ours.status, own)
    assert got.body == ours.body
    assert " AND " not in str(shown)
    return got


@pytest.mark.parametrize("range_", _HANDED)
def test_what_is_held_is_sent_by_nginx(nginx: tuple[Front, MirrorProcess], range_: str) -> None:
    front, mirror = nginx
    headers = {"Range": range_} if range_ else {}
    answer = alike(front, mirror, WEIGHTS, headers=headers)
    assert answer.status == (206 if range_ else 200)
    assert len(answer.body) > 256 << 10
    assert handed(mirror, answer)


@pytest.mark.parametrize("range_", _OURS)
def test_ranges_that_nginx_might_read_otherwise_are_answered_by_the_mirror(
    nginx: tuple[Front, MirrorProcess], range_: str
) -> None:
    front, mirror = nginx
    answer = alike(front, mirror, WEIGHTS, headers={"Range": range_})
    assert answer.status == 416 or not handed(mirror, answer)


def test_conditions_are_judged_by_the_mirror(nginx: tuple[Front, MirrorProcess]) -> None:
    front, mirror = nginx
    etag = through(front, WEIGHTS, method="HEAD").headers["etag"]
    past, future = "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    tail = {"Range": "bytes=1000000-"}
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": etag}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Modified-Since": future}, 200),
        ({"If-Unmodified-Since": past}, 200),
        ({**tail, "If-Range": etag}, 206),
        ({**tail, "If-Range": '"other"'}, 200),
        ({**tail, "If-Range": future}, 200),
    ):
        answer = alike(front, mirror, WEIGHTS, headers=headers)
        assert answer.status == status, headers
        assert status in (304, 412) or not handed(mirror, answer)


def test_all_else_is_what_it_was(nginx: tuple[Front, MirrorProcess]) -> None:
    front, mirror = nginx
    assert alike(front, mirror, WEIGHTS, method="HEAD").body == b""
    assert not handed(mirror, alike(front, mirror, SMALL))
    digest = Content("tiny main", WEIGHTS_SIZE).sha256()
    assert handed(mirror, alike(front, mirror, f"/-/blobs/sha256/{digest}"))
    noticed = WEIGHTS.replace("main", "feature%2Fx")
    bare(mirror, noticed)
    answer = alike(front, mirror, noticed)
    assert handed(mirror, answer)
    assert "Only for research." in answer.headers["x-hf-warning"]
    assert answer.headers["access-control-allow-origin"] == "*"
    for path, code in (
        ("/acme/other/resolve/main/x", "RepoNotFound"),
        ("/acme/tiny/resolve/nope/model.safetensors", "RevisionNotFound"),
        ("/acme/tiny/resolve/main/nope", "EntryNotFound"),
    ):
        answer = alike(front, mirror, path)
        assert (answer.status, answer.headers["x-error-code"]) == (404, code)
    assert alike(front, mirror, WEIGHTS, method="PUT").status == 403


def test_a_file_that_is_being_fetched_streams_through(
    nginx: tuple[Front, MirrorProcess], upstream: HubProcess
) -> None:
    front, mirror = nginx
    name, content = cold("handed", front)
    path = f"/{name}/resolve/main/model.safetensors"
    upstream.hold(at=4 << 20)
    try:
        with closing(front.connect()) as connection:
            connection.request("GET", path)
            reply = connection.getresponse()
            assert reply.read(1 << 20) == content.read(0, 1 << 20)
            upstream.release()
            assert reply.read() == content.read(1 << 20, BIG)
    finally:
        upstream.heal()
    assert handed(mirror, alike(front, mirror, path))


def test_nobody_comes_to_the_blobs_by_their_own_path(nginx: tuple[Front, MirrorProcess]) -> None:
    front, _ = nginx
    digest = Content("tiny main", WEIGHTS_SIZE).sha256()
    blob = f"{ACCEL}{digest[:2]}/{digest}"
    for path in (blob, f"/{blob}", f"/x/..{blob}", blob.replace("accel", "%61ccel"), ACCEL):
        for source in (INSIDE, OUTSIDE):
            answer = front.ask(path, source=source)
            assert 400 <= answer.status <= 404, path
            assert len(answer.body) < 2000
    assert front.ask(blob).status == 404


@pytest.mark.parametrize("value", [ACCEL, "/etc/", "", f"{ACCEL},{ACCEL}", "/-/accel"])
def test_who_writes_the_header_himself_gets_the_file_or_an_error(
    nginx: tuple[Front, MirrorProcess], value: str
) -> None:
    front, mirror = nginx
    forged = {accel.HEADER: value}
    body = Content("tiny main", WEIGHTS_SIZE).read(0, WEIGHTS_SIZE)
    assert through(front, WEIGHTS, headers=forged).body == body
    direct = bare(mirror, WEIGHTS, headers=forged)
    if value == ACCEL:
        assert (direct.status, direct.headers["x-error-code"]) == (421, "HandedOver")
    else:
        assert (direct.status, direct.body) == (200, body)
        assert "x-accel-redirect" not in direct.headers


def test_what_nginx_cannot_open_the_mirror_sends(
    nginx: tuple[Front, MirrorProcess], tmp_path: Path
) -> None:
    _, mirror = nginx
    with Nginx(tmp_path / "front", mirror.url, tmp_path / "elsewhere") as lost:
        for headers in ({}, {"Range": "bytes=1000000-"}):
            answer = alike(lost, mirror, WEIGHTS, headers=headers)
            assert not handed(mirror, answer)
        assert "No such file" in lost.log


def test_nginx_follows_no_link_either(nginx: tuple[Front, MirrorProcess], tmp_path: Path) -> None:
    _, mirror = nginx
    digest = Content("tiny main", WEIGHTS_SIZE).sha256()
    shelf = tmp_path / "data" / "blobs-v1" / "sha256" / digest[:2]
    shelf.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret" * 100_000)
    (shelf / digest).symlink_to(tmp_path / "secret")
    with Nginx(tmp_path / "front", mirror.url, tmp_path / "data") as front:
        answer = alike(front, mirror, WEIGHTS)
        assert hashlib.sha256(answer.body).hexdigest() == digest


def test_every_header_that_may_be_handed_over_is_named_in_the_sample() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    sent = {name: name for name in accel.PASSED_ON} | accel.RENAMED
    for name, as_ in sent.items():
        variable = "$upstream_http_" + as_.lower().replace("-", "_")
        assert f"add_header {name} {variable};" in text
    assert text.count("add_header ") == len(sent) + 1  # Last-Modified
    assert f"proxy_set_header {accel.HEADER} {ACCEL};" in text
    assert f"location {ACCEL} {{" in text


@pytest.mark.parametrize("client", _CLIENTS)
def test_the_real_client_downloads_and_goes_on_with_a_half(
    nginx: tuple[Front, MirrorProcess], client: str, tmp_path: Path
) -> None:
    clients.ensure(_CLIENTS)
    front, mirror = nginx
    content = Content("tiny main", WEIGHTS_SIZE)
    device = Device(client, front.url, tmp_path)
    if client == _GOES_ON:
        blobs = device.hf_home / "hub" / "models--acme--tiny" / "blobs"
        blobs.mkdir(parents=True)
        (blobs / f"{content.sha256()}.incomplete").write_bytes(content.read(0, 1 << 20))
    got = device.file("model.safetensors")
    assert hashlib.sha256(got.folder.read_bytes()).hexdigest() == content.sha256()
    agent = f"hf_hub/{client.removeprefix('hub-')}"

    def spans() -> list[tuple[int, int]]:
        lines = [line for line in events(mirror) if line["event"] == "handed"]
        return [(line["start"], line["stop"]) for line in lines if agent in line["agent"]]

    mirror.wait_until(spans)
    assert spans() == [(1 << 20 if client == _GOES_ON else 0, WEIGHTS_SIZE)]
