"""U26-U30, U50: redirects that lead astray, URLs that expire, and certificates that are wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.fakes import tls
from tests.fakes.control import HubControl
from tests.fakes.hub_server import HubServer
from tests.fakes.settings import Settings
from tests.faults.bench import FILE, PARTS, SMALL, Bench, small_world
from tests.faults.client import CLEAN, RIGHT
from tests.faults.mirror import MirrorProcess, Source


class Canary:
    """A port inside that nobody has a reason to call."""

    def __init__(self, host: str) -> None:
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self.calls = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary("127.0.0.9")
    yield canary
    canary.close()


@pytest.mark.row("U26", behaviour="Clean, after at most 5 hops each time.")
def test_u26_a_circle_is_left(bench: Bench) -> None:
    """The Hub redirects to the URL that was asked for."""
    bench.hub.fault("U26")
    assert bench.get() is CLEAN
    assert bench.hub.cdn_gets() == 0
    assert len(bench.hub.requests()) <= 30


INSIDE = (
    "http://127.0.0.9:{port}/secret",
    "http://2130706441:{port}/secret",
    "http://0x7f000009:{port}/secret",
    "http://[::ffff:127.0.0.9]:{port}/secret",
    "http://127.0.0.2@127.0.0.9:{port}/secret",
    "http://localhost:{port}/secret",
    "//127.0.0.9:{port}/secret",
    "gopher://127.0.0.9:{port}/secret",
)


@pytest.mark.row("U27", behaviour="Clean; the address is never called.")
def test_u27_nobody_is_sent_into_the_house(bench: Bench, canary: Canary) -> None:
    """The Hub redirects to an address inside, in eight spellings."""
    for path, target in zip(PARTS, INSIDE, strict=True):
        bench.hub.fault("U27", path=path, to=target.format(port=canary.port))
    assert set(bench.get_each(PARTS)) == {CLEAN}
    assert canary.calls == 0


@pytest.mark.row("U28", behaviour="Clean: only http and https are followed.")
def test_u28_a_file_of_ours_is_not_a_url(bench: Bench) -> None:
    """The Hub redirects to file:///etc/hostname."""
    bench.hub.fault("U28")
    assert bench.get() is CLEAN


@pytest.mark.row("U29", behaviour="Clean: a redirect may change the host, never the repository.")
def test_u29_another_repository_is_another_repository(bench: Bench) -> None:
    """The Hub redirects to a file of another repository."""
    bench.hub.fault("U29", to="/acme/big/resolve/main/big.bin")
    assert bench.get() is CLEAN
    assert not bench.hub.requests(repo="acme/big", route="resolve")


@pytest.mark.row("U30", behaviour="Right: the Hub is asked for a new URL, not the same URL again.")
def test_u30_an_expired_url_is_signed_anew(bench: Bench) -> None:
    """The signed URL expires before it is used."""
    bench.hub.fault("U30")
    assert bench.get() is RIGHT
    first, second = bench.hub.requests(host="cdn")
    assert (first.status, second.status) == (403, 200)
    assert first.target != second.target


@pytest.fixture
def tls_hub() -> Iterator[HubServer]:
    with HubServer(small_world(), Settings(tls="self-signed")) as hub:
        yield hub


@pytest.mark.row("U50", behaviour="Clean, and it is told nothing; right from the next upstream.")
def test_u50_a_wrong_certificate_is_refused(
    tls_hub: HubServer, own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The Hub's certificate is self-signed, expired or another host's."""
    trust = {"SSL_CERT_FILE": str(tls.ca_file())}
    alone = Bench(tls_hub, start(tls_hub, environment=trust))
    for kind in ("self-signed", "expired", "wrong-host"):
        tls_hub.set(tls=kind)
        assert alone.get(SMALL) is CLEAN
    assert alone.mirror.log.count("certificate verification failed") >= 3
    both = Bench(tls_hub, start(tls_hub, own_hub, environment=trust))
    assert both.get(SMALL) is RIGHT
    assert tls_hub.requests() == []
    tls_hub.set(tls="good")
    alone.aftermath()


@pytest.mark.row("U50", behaviour="Clean: from https, nothing is followed to http.")
def test_u50_nothing_goes_on_in_clear_text(
    tls_hub: HubControl, start: Callable[..., MirrorProcess]
) -> None:
    """A Hub with a good certificate redirects to a CDN without any."""
    tls_hub.set(tls="good")
    mirror = start(Source(tls_hub.url), environment={"SSL_CERT_FILE": str(tls.ca_file())})
    bench = Bench(tls_hub, mirror)
    assert bench.get(FILE) is CLEAN
    assert tls_hub.cdn_gets() == 0
    bench.set_aside(FILE)
    bench.aftermath()
