"""Each fault of the fake Hub is what it says, as seen by a client that works by hand."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.fakes.acme import WEIGHTS_SIZE, acme_world
from tests.fakes.content import Content
from tests.fakes.control import HubControl
from tests.fakes.faults import LOGIN_PAGE, Fault
from tests.fakes.hub_process import HubProcess
from tests.fakes.hub_server import HubServer
from tests.fakes.rawclient import Raw, exchange, get
from tests.fakes.rows import FAULTS
from tests.fakes.settings import Settings
from tests.fakes.world import lfs

WEIGHTS = "/acme/tiny/resolve/main/model.safetensors"
WEIGHTS_CONTENT = Content("tiny main", WEIGHTS_SIZE)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer(acme_world(many=30)) as hub:
        yield hub


def blob(hub: HubControl, *, start: int = 0, patience_s: float = 5) -> Raw:
    """The weights from the CDN."""
    url = exchange(hub.url + WEIGHTS, method="HEAD").header("Location")
    return exchange(url, start=start, patience_s=patience_s)


RIGHT = WEIGHTS_CONTENT.read(0, WEIGHTS_SIZE)
HALF = WEIGHTS_SIZE // 2


def is_right(raw: Raw) -> bool:
    return (raw.status, raw.body, raw.end) == (200, RIGHT, "fin")


@pytest.mark.parametrize("row", ["U02", "U04", "U30"])
def test_a_refusal_at_the_cdn_passes(server: HubServer, row: str) -> None:
    server.fault(row)
    refused = blob(server)
    assert refused.status == {"U02": 503, "U04": 429, "U30": 403}[row]
    assert refused.header("Retry-After") == ("1" if row == "U04" else "")
    assert is_right(blob(server))


def test_an_expired_url_stays_expired(server: HubServer) -> None:
    server.fault("U30")
    url = exchange(server.url + WEIGHTS, method="HEAD").header("Location")
    assert [exchange(url).status for _ in range(3)] == [403, 403, 403]
    assert is_right(blob(server))


def test_a_fault_lasts_until_it_is_healed(server: HubServer) -> None:
    server.fault("U03")
    assert [blob(server).status for _ in range(3)] == [503, 503, 503]
    server.heal()
    assert is_right(blob(server))


def test_a_fault_meets_the_path_and_the_turn_that_it_names(server: HubServer) -> None:
    server.fault("U05", path="config.*", nth=2, retry_after=3)
    config = f"{server.url}/acme/tiny/resolve/main/config.json"
    assert exchange(f"{server.url}/acme/tiny/resolve/main/README.md").status == 200
    answers = [exchange(config) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 429, 200]
    assert answers[1].header("Retry-After") == "3"
    assert "t=3" in answers[1].header("RateLimit")
    assert server.requests(path="config.json")[1].faults == ["status"]


def test_connections_end_too_early_in_every_way(server: HubServer) -> None:
    server.fault("U07")
    assert blob(server) == Raw(end="reset")
    server.fault("U08")
    assert blob(server).end == "reset"
    server.fault("U09")
    cut = blob(server)
    assert (cut.end, cut.body) == ("fin", RIGHT[:HALF])
    assert cut.header("Content-Length") == str(WEIGHTS_SIZE)
    server.fault("U09", at=1000)
    assert blob(server).body == RIGHT[:1000]
    assert is_right(blob(server))


def test_a_reset_loses_no_byte_before_it(server: HubServer) -> None:
    server.fault("U08", at=100_000)
    got = blob(server)
    assert (got.end, got.body) == ("reset", RIGHT[:100_000])


def test_bodies_stall_drip_and_never_come(server: HubServer) -> None:
    server.fault("U10")
    stalled = blob(server, patience_s=0.3)
    assert (stalled.end, stalled.body) == ("open", RIGHT[:HALF])
    server.fault("U54", times=1)
    dripped = blob(server, patience_s=0.005)
    assert dripped.end == "open"
    assert len(dripped.body) < 500
    server.fault("U40", times=1)
    url = f"{server.url}/api/models/acme/tiny"
    assert exchange(url, patience_s=0.2) == Raw(end="open")
    assert exchange(url).status == 200


def test_lengths_lie(server: HubServer) -> None:
    server.fault("U12")
    short = blob(server)
    assert (short.body, short.header("Content-Length")) == (RIGHT[:HALF], str(HALF))
    server.fault("U13", times=1)
    long = blob(server)
    assert long.header("Content-Length") == str(WEIGHTS_SIZE + 1000)
    assert long.body == RIGHT + b"+" * 1000
    server.fault("U14", times=1)
    overstated = blob(server)
    assert (overstated.end, overstated.body) == ("fin", RIGHT)
    assert overstated.header("Content-Length") == str(WEIGHTS_SIZE + 1000)
    server.fault("U45")
    assert "," in blob(server).header("Content-Length")
    server.fault("U32", times=1)
    chunked = blob(server)
    assert chunked.header("Transfer-Encoding") == "chunked"
    assert chunked.header("Content-Length") == ""
    server.fault("U31", times=1)
    empty = blob(server)
    assert (empty.status, empty.header("Content-Length"), empty.body) == (200, "0", b"")
    assert is_right(blob(server))


def test_bytes_lie(server: HubServer) -> None:
    server.fault("U46")
    for _ in range(3):
        wrong = blob(server)
        assert (wrong.status, len(wrong.body)) == (200, WEIGHTS_SIZE)
        assert sum(a != b for a, b in zip(wrong.body, RIGHT, strict=True)) == 1
    assert is_right(blob(server))
    server.fault("U17", times=1)
    assert blob(server).body[:10] != RIGHT[:10]
    server.fault("U19", times=1)
    assert blob(server).body == LOGIN_PAGE
    server.fault("U18", times=1)
    config = f"{server.url}/acme/tiny/resolve/main/config.json"
    wrong, right = exchange(config), exchange(config)
    assert wrong.header("ETag") == right.header("ETag")
    assert wrong.body != right.body
    server.fault("U44")
    assert blob(server).status == 0


@pytest.mark.parametrize("row", ["U21", "U22", "U23", "U24", "U25"])
def test_the_answer_after_a_cut_misleads(server: HubServer, row: str) -> None:
    server.fault(row)
    cut = blob(server)
    assert (cut.end, cut.body) == ("fin", RIGHT[:HALF])
    rest = blob(server, start=HALF)
    right_range = f"bytes {HALF}-{WEIGHTS_SIZE - 1}/{WEIGHTS_SIZE}"
    if row == "U21":
        assert is_right(rest)
    elif row == "U24":
        assert rest.status == 416
    else:
        assert rest.status == 206
        assert len(rest.body) == WEIGHTS_SIZE - HALF
        assert rest.body != RIGHT[HALF:]
        assert (rest.header("Content-Range") == right_range) == (row != "U23")
        assert (rest.header("ETag") == '"replaced"') == (row == "U25")


def test_redirects_lead_astray(server: HubServer) -> None:
    weights = server.url + WEIGHTS
    for row, target in (
        ("U26", WEIGHTS),
        ("U27", "http://127.0.0.9:9/secret"),
        ("U28", "file:///etc/hostname"),
        ("U29", "/solo/resolve/main/config.json"),
    ):
        server.fault(row, times=1)
        assert exchange(weights).header("Location") == target


def test_headers_bloat_lie_and_are_missing(server: HubServer) -> None:
    server.fault("U34", times=1)
    assert len(blob(server).head) > 5_000_000
    weights = server.url + WEIGHTS
    server.fault("U35", times=1)
    assert exchange(weights).header("X-Repo-Commit") == "0" * 40
    server.fault("U37", times=1)
    assert exchange(weights).header("X-Linked-Etag") == f'"{"0" * 64}"'
    server.fault("U53", times=1)
    bare = exchange(f"{server.url}/acme/tiny/resolve/main/config.json", method="HEAD")
    assert bare.status == 200
    assert not bare.header("ETag") + bare.header("Content-Length")


def test_a_gzip_bomb_is_a_thousand_times_larger_inside(server: HubServer) -> None:
    server.fault("U33", times=1, size=20)
    bomb = blob(server)
    assert bomb.header("Content-Encoding") == "gzip"
    inside = zlib.decompress(bomb.body, wbits=31)
    assert len(inside) == 20 << 20 > 500 * len(bomb.body)


@pytest.mark.parametrize(
    "variant", ["truncated", "deep", "dotdot", "self-link", "endless", "foreign-link", "not-a-list"]
)
def test_trees_are_broken_in_every_way(server: HubServer, variant: str) -> None:
    url = f"{server.url}/api/models/acme/tiny/tree/main?recursive=true"
    right = exchange(url)
    server.fault("U38", variant=variant)
    wrong = exchange(url)
    assert wrong.status == 200
    assert (wrong.body, wrong.header("Link")) != (right.body, "")
    server.heal()
    healed = exchange(url)
    assert (healed.body, healed.header("Link")) == (right.body, "")


def test_ports_refuse_and_answer_again(server: HubServer) -> None:
    server.fault("U39")
    for url in (server.url, server.cdn_url):
        with pytest.raises(ConnectionRefusedError):
            exchange(url)
    server.heal()
    assert is_right(blob(server))
    server.fault("U39", blackhole=True)
    with pytest.raises(TimeoutError):
        exchange(server.url + WEIGHTS, patience_s=0.2)
    server.heal()
    assert is_right(blob(server))


def test_what_happens_to_repositories(server: HubServer) -> None:
    before = server.sha("acme/tiny", "v1.0")
    server.fault("U36")
    assert server.sha("acme/tiny", "v1.0") != before
    weights = server.url + WEIGHTS
    server.fault("U41", path="*/commit-it-lacks/*")
    assert exchange(weights.replace("main", "commit-it-lacks")).status == 404
    server.fault("U51")
    assert exchange(weights).header("X-Error-Code") == "GatedRepo"
    server.fault("U52", how="private")
    assert exchange(weights).header("X-Error-Code") == "RepoNotFound"
    server.fault("U52", how="deleted")
    with pytest.raises(KeyError):
        server.sha("acme/tiny")


def test_every_row_can_be_switched_on(server: HubServer) -> None:
    for row in FAULTS.keys() - {"U39", "U50", "U52"}:
        server.fault(row)
    server.fault(Fault("drip", host="cdn"), rate=100)
    with pytest.raises(KeyError):
        server.fault(Fault("no such thing"))


@pytest.mark.parametrize("kind", ["good", "self-signed", "expired", "wrong-host"])
def test_tls_is_good_or_bad_as_told(server: HubServer, kind: str) -> None:
    server.set(tls=kind)
    context = ssl.create_default_context(cafile=server.addresses.ca_file)
    url = f"{server.url}/api/models/acme/tiny"
    assert url.startswith("https:")
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as reply:
            assert (kind, reply.status) == ("good", 200)
    except urllib.error.URLError as e:
        assert isinstance(e.reason, ssl.SSLCertVerificationError)
        told = {"self-signed": "self", "expired": "expired", "wrong-host": "IP address"}
        assert told[kind] in str(e.reason)


async def test_a_body_is_held_until_it_is_released(server: HubServer) -> None:
    server.hold("model.safetensors", at=65536)
    task = asyncio.create_task(asyncio.to_thread(blob, server))
    await server.until(host="cdn", sent=65536)
    assert server.cdn_bytes == 65536
    server.release()
    assert is_right(await asyncio.wait_for(task, 5))


def test_more_connections_than_allowed_are_reset(server: HubServer) -> None:
    server.set(max_connections=1)
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as one:
        one.sendall(b"HEAD /solo HTTP/1.1\r\n\r\n")
        assert one.recv(1000)
        try:
            end = exchange(server.url).end
        except (ConnectionResetError, BrokenPipeError):  # noticed while still asking
            end = "reset"
        assert end == "reset"


def test_bandwidth_is_kept_by_each_connection(server: HubServer) -> None:
    began = time.monotonic()
    server.set(bandwidth=20e6, latency_s=0.01)
    assert is_right(blob(server))
    assert 0.14 < time.monotonic() - began < 2


def test_a_hub_in_another_process_is_told_and_asked_the_same() -> None:
    with HubProcess(Settings(cdns=2, mirror=True)) as hub:
        assert is_right(blob(hub))
        hub.fault("U09", path="model.safetensors")
        assert blob(hub).body == RIGHT[:HALF]
        content = Content("new", 300_000)
        sha = hub.commit("acme/tiny", {"new.bin": lfs(content), "README.md": None})
        assert hub.sha("acme/tiny") == sha
        answer = get(f"{hub.url}/acme/tiny/resolve/main/new.bin")
        assert answer.body == content.read(0, content.size)
        assert hub.wait(host="cdn", path="new.bin", finished=True)[0].sent == content.size
        assert hub.cdn_gets("model.safetensors") == 2
        hub.reset()
        assert hub.requests() == []
        with pytest.raises(KeyError):
            hub.sha("acme/none")
        with pytest.raises(TimeoutError):
            hub.wait(timeout_s=0.01)
