"""C05, C06: requests that nobody sends by accident."""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.bench import CONFIG, REPO, SMALL, Bench
from tests.faults.client import RIGHT, exchange

FUZZED = int(os.environ.get("FUZZED_REQUESTS", "2000"))  # a campaign runs 10,000
HOST = "Host: mirror\r\n"
END = "Connection: close\r\n\r\n"
GOOD = f"/{REPO}/resolve/main/{SMALL}"

TRAVERSALS = (
    f"/{REPO}/resolve/main/../../../../etc/passwd",
    f"/{REPO}/resolve/main/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    f"/{REPO}/resolve/main/..%2f..%2f..%2fetc%2fpasswd",
    f"/{REPO}/resolve/main/%252e%252e/etc/passwd",
    f"/{REPO}/resolve/main/..%5c..%5cetc%5cpasswd",
    f"/{REPO}/resolve/main/%c0%ae%c0%ae/etc/passwd",
    f"/{REPO}/resolve/main/a%00b",
    f"/{REPO}/resolve/main/%ff%fe",
    f"/{REPO}/resolve/main//etc/passwd",
    f"/{REPO}/resolve/main/{'a' * 10_000}",
    f"/{REPO}/resolve/main{'/x' * 4000}",
    f"/{REPO}/resolve/../main/{SMALL}",
    "/../../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/-/blobs/sha256/../../../etc/passwd",
    "/-/blobs/sha256/..%2f..%2f..%2fetc%2fpasswd",
    "/-/sums/../../../etc/passwd",
    "/-/%2e%2e/etc/passwd",
    "/%2e%2e%2f%2e%2e%2fallowlist.yaml",
    "/static/../../etc/passwd",
    f"/{REPO}/resolve/main/{SMALL}/",
    f"/{REPO}/resolve/main/{SMALL}%0d%0aX-Injected:%201",
)
_GET = f"GET {GOOD} HTTP/1.1\r\n{HOST}"
_POST = f"POST {GOOD} HTTP/1.1\r\n{HOST}"
_CHUNKED = "Transfer-Encoding: chunked\r\n"
SMUGGLED = {
    "two lengths": f"{_POST}Content-Length: 5\r\nContent-Length: 6\r\n{END}hello",
    "length and chunks": f"{_POST}Content-Length: 5\r\n{_CHUNKED}{END}0\r\n\r\n",
    "another coding": f"{_POST}Transfer-Encoding: xchunked\r\n{END}0\r\n\r\n",
    "a length with a sign": f"{_POST}Content-Length: +5\r\n{END}hello",
    "a broken chunk": f"{_POST}{_CHUNKED}{END}zz\r\nhello\r\n",
    "a space before the colon": f"{_GET}X-A : b\r\n{END}",
    "a folded line": f"{_GET}X-A: b\r\n c\r\n{END}",
    "a bare carriage return": f"{_GET}X-A: b\rX-B: c\r\n{END}",
    "a NUL in a header": f"{_GET}X-A: b\0c\r\n{END}",
    "a header of 100 kB": f"{_GET}X-A: {'a' * 100_000}\r\n{END}",
    "ten thousand headers": _GET + "X-A: b\r\n" * 10_000 + END,
    "no version": f"GET {GOOD}\r\n{HOST}{END}",
    "another version": f"GET {GOOD} HTTP/3.7\r\n{HOST}{END}",
    "a space in the target": f"GET {GOOD} x HTTP/1.1\r\n{HOST}{END}",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "x" * 100 + "\r\n\r\n",
}
HOSTS = (
    "",
    "Host: a\r\nHost: b\r\n",
    "Host: user@mirror\r\n",
    "Host: mirror/path\r\n",
    "Host: a, b\r\n",
    "Host: \r\n",
    "Host: mirror:99999999\r\n",
    "Host: m%69rror\r\n",
)


def send(bench: Bench, text: str) -> tuple[int, bytes]:
    got = exchange("127.0.0.1", bench.mirror.port, text.encode("latin-1"))
    assert got.end != "silence", text[:200]
    told = got.head.encode("latin-1") + bytes(got.body)
    assert b"root:" not in told
    assert b"X-Injected" not in got.head.encode("latin-1")
    assert b"Traceback" not in told
    return got.status, bytes(got.body)


@pytest.mark.row("C05", behaviour="4xx, nothing of this machine is told, and nobody is asked.")
def test_c05_no_path_leads_outside(bench: Bench) -> None:
    """22 ways to write `..`, NUL, overlong UTF-8, and names that are too long."""
    for path in TRAVERSALS:
        status, _ = send(bench, f"GET {path} HTTP/1.1\r\n{HOST}{END}")
        assert 400 <= status < 500, path
    assert bench.hub.requests() == []


@pytest.mark.row("C05", behaviour="4xx (or closed at once), and never two answers.")
def test_c05_no_request_hides_in_another(bench: Bench) -> None:
    """Requests that two parsers would read differently, and ones that none should read."""
    for name, text in SMUGGLED.items():
        status, body = send(bench, text)
        assert status == 0 or 400 <= status < 500, name
        assert b"HTTP/1.1 200" not in body, name


@pytest.mark.row("C05", behaviour="400; the mirror is nobody's forward proxy.")
def test_c05_a_host_is_one_host(bench: Bench) -> None:
    """No Host, two of them, with a user, a path, a list; absolute targets, CONNECT and TRACE."""
    assert bench.get(SMALL) is RIGHT
    for host in HOSTS:
        status, _ = send(bench, f"GET {GOOD} HTTP/1.1\r\n{host}{END}")
        assert status == 400 or (host == "Host: \r\n" and status == 200), host
    for line in (
        f"GET http://evil.example{GOOD} HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        f"TRACE {GOOD} HTTP/1.1",
        f"DELETE {GOOD} HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        f"BREW {GOOD} HTTP/1.1",
    ):
        status, _ = send(bench, f"{line}\r\n{HOST}{END}")
        assert 400 <= status < 500, line
    assert len(bench.hub.requests()) == 1


@pytest.mark.row("C06", behaviour="No 5xx, no traceback, and afterwards everything as before.")
def test_c06_noise_breaks_nothing(bench: Bench) -> None:
    """2,000 requests with random methods, paths, headers and noise in them."""
    assert bench.get(SMALL) is RIGHT
    requests = _noise(random.Random(6), FUZZED)
    with ThreadPoolExecutor(16) as pool:
        found = Counter(pool.map(lambda request: _status(bench, request), requests))
    assert found.total() == FUZZED
    assert not [status for status in found if status >= 500], found
    assert found[200] > FUZZED // 100
    log = bench.mirror.log
    assert "Traceback" not in log
    assert "Error handling request" not in log
    assert "Unhandled exception" not in log
    assert len(bench.hub.requests()) == 1
    assert bench.ask(GOOD).body == CONFIG.read(0, CONFIG.size)


def _noise(dice: random.Random, count: int) -> Iterator[bytes]:
    words = [
        "acme", "model", "resolve", "raw", "main", SMALL, "api", "models", "datasets", "spaces",
        "tree", "revision", "refs", "pr", "1", "paths-info", "commits", "-", "blobs", "sha256",
        "sums", "status", "lock", "metrics", "..", ".", "", "%2e%2e", "%00", "%ff", "%2f", "é",
        "a" * 300, "0" * 40, "0" * 64, "main%20", "auth-check", "whoami-v2", "%F0%9F%98%80",
    ]  # fmt: skip
    names = [
        "Range", "If-Range", "If-Match", "If-None-Match", "Accept-Encoding", "Expect", "Upgrade",
        "Connection", "Content-Type", "Authorization", "Cookie", "X-Forwarded-For", "Accept",
    ]  # fmt: skip
    values = [
        "bytes=0-", "bytes=-5", "bytes=5-1", "bytes=0-0,2-3", '"x"', "*", 'W/"x"', "gzip", "\xff",
        "100-continue", "websocket", "h2c", "keep-alive", "application/json", "é", "a" * 5000, "",
        "bytes=99999999999999999999-", "bytes=١-٢".encode().decode("latin-1"),
    ]  # fmt: skip
    methods = ["GET", "HEAD", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "X"]
    for _ in range(count):
        path = "/" + "/".join(dice.choices(words, k=dice.randrange(0, 9)))
        query = dice.choice(("", "", "?", "?recursive=true", "?%00=%ff", "?limit=-1", "?a=b&a=c&&"))
        head = f"{dice.choice(methods)} {path}{query} HTTP/1.1\r\n{HOST}"
        for _ in range(dice.randrange(4)):
            head += f"{dice.choice(names)}: {dice.choice(values)}\r\n"
        body = dice.choice((b"", b"", b"{", b'{"paths": 5}', b"paths=" + b"%ff" * 9, b"\0" * 100))
        if body:
            head += f"Content-Length: {len(body)}\r\n"
        raw = bytearray(f"{head}\r\n".encode("latin-1", "replace") + body)
        if dice.random() < 0.2:
            for _ in range(dice.randrange(1, 4)):
                raw[dice.randrange(len(raw))] = dice.randrange(256)
        yield bytes(raw)


def _status(bench: Bench, request: bytes) -> int:
    """0: it hung up, or waits for more."""
    with socket.create_connection(("127.0.0.1", bench.mirror.port), timeout=0.3) as client:
        data = b""
        try:
            client.sendall(request)
            while b"\r\n\r\n" not in data:
                piece = client.recv(1 << 16)
                if not piece:
                    return 0
                data += piece
        except OSError:
            return 0
    return int(data.split(b" ", 2)[1])
