"""U47-U49: what goes upstream, what comes through, and what never does."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.fakes.hub_server import HubServer
from tests.fakes.settings import TOKEN
from tests.faults.bench import FILE, REPO, SMALL, Bench
from tests.faults.client import RIGHT, exchange
from tests.faults.mirror import MirrorProcess


@pytest.mark.row("U47", behaviour="None of it reaches an upstream, a log, a file or a metric.")
def test_u47_a_clients_secrets_stay_here(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """A client sends its own token and a cookie, to a mirror that locks and fetches for it."""
    bench = Bench(own_hub, start(own_hub, locked=False, allow=(f"{REPO}@main",)))
    more = {"X-Forwarded-For": "canary", "Referer": "http://canary/", "Via": "canary"}
    bench.ask(bench.url(SMALL), headers=more)
    assert bench.get(FILE) is RIGHT
    assert own_hub.requests(host="cdn")
    for seen in own_hub.requests():
        assert "canary" not in " ".join(seen.headers.values())
        assert set(seen.headers) <= {
            *("accept", "accept-encoding", "authorization", "host", "range", "user-agent")
        }
        if seen.host == "hub":
            assert seen.headers["authorization"] == f"Bearer {TOKEN}"
    bench.aftermath()


BYPASSES = (
    "/acme/secret/resolve/main/config.json",
    "/acme/model.git/resolve/main/config.json",
    "/acme%2fmodel/resolve/main/config.json",
    "/acme/model/resolve/main%00/config.json",
    "/acme/model/resolve/main%20/config.json",
    "/acme/model/resolve/Main/config.json",
    "/acme/model/resolve/v1.0/config.json",
    "/acme/model/resolve/refs%2Fpr%2F1/config.json",
    "/acme/model/resolve/{short}/config.json",
    "/acme/model/resolve/{other}/config.json",
    "/acme/model/raw/v1.0/config.json",
    "/acme//model/resolve/main/config.json",
    "/acme/model/resolve/main/../v1.0/config.json",
    "/acme/model/../secret/resolve/main/config.json",
    "/acme/model/resolve/main/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret/resolve/main/config.json",
    "/api/resolve-cache/models/acme/model/{other}/config.json",
    "/datasets/acme/model/resolve/main/config.json",
    "/api/models/acme/secret",
    "/api/models/acme/model/revision/v1.0",
    "/api/models/acme/model/tree/{other}",
    "/models/acme/model/resolve/main/config.json",
    "http://{hub}/acme/secret/resolve/main/config.json",
    "/acme/model/resolve/main/no-such-file.json",
)


@pytest.mark.row("U48", behaviour="4xx with X-Error-Code, and not one request goes upstream.")
def test_u48_no_spelling_opens_what_is_not_allowed(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """23 spellings of repositories, revisions and files that are not on the allowlist."""
    own_hub.commit("acme/secret", {})
    locked = own_hub.sha(REPO)
    other = own_hub.commit(REPO, {}, title="another", branch="v1.0", parent="main")
    bench = Bench(own_hub, start(own_hub))
    words = {"short": locked[:7], "other": other, "hub": own_hub.url.partition("//")[2]}
    for spelling in BYPASSES:
        line = f"GET {spelling.format(**words)} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n"
        got = exchange("127.0.0.1", bench.mirror.port, f"{line}\r\n".encode())
        assert 400 <= got.status < 500, spelling
        assert got.header("X-Error-Code"), spelling
    assert own_hub.requests() == []
    bench.aftermath()


@pytest.mark.row("U49", behaviour="No header, hash or link of Xet reaches a client or the lock.")
def test_u49_nobody_is_sent_past_the_mirror(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The Hub advertises Xet in headers, trees and repository info."""
    bench = Bench(own_hub, start(own_hub, locked=False, allow=(f"{REPO}@main",)))
    api = f"/api/models/{REPO}"
    for path in ("", "/revision/main?blobs=true", "/tree/main?recursive=true&expand=true"):
        got = bench.ask(api + path)
        assert got.status == 200
        assert not re.search(rb"xet", bytes(got.body), re.IGNORECASE), path
        assert "xet" not in got.head.lower()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    asked = f"paths={FILE}&paths={SMALL}".encode()
    got = bench.ask(f"{api}/paths-info/main", method="POST", headers=form, body=asked)
    assert got.status == 200
    assert b"xet" not in got.body.lower()
    for method in ("HEAD", "GET"):
        got = bench.ask(bench.url(FILE), method=method)
        assert "xet" not in got.head.lower()
        assert not got.header("Link")
        assert not got.header("Location")
    assert "xet" not in bench.mirror.lock.read_text().lower()
    bench.aftermath()
