"""Misses: the first client, eight at once, and the first byte; over HTTP and HTTPS."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import client, rig, servers
from benchmarks.client import Order
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror, Server
from benchmarks.stage import COMMIT, Stage, url
from proxy.pins.lock import Entry

_SMALL, _LARGE = 24, 8  # files for the first byte


@dataclass(frozen=True, slots=True)
class _Hub:
    """The upstream stand-in, and how to begin with nothing in front of it."""

    server: Server
    folder: Path
    big: Entry
    small: tuple[Entry, ...]
    large: tuple[Entry, ...]


def measure(rig_: Rig) -> Table:
    size = rig_.pick(1 << 30, 128 << 20)
    table = Table("cold", f"a file of {size >> 20} MB that nobody holds; upstream on this machine")
    stage = Stage(rig_.room("hub", memory=True))
    big = stage.publish("cold", "model.bin", size)
    small = tuple(stage.publish("cold", f"s/{n}.json", 700) for n in range(_SMALL))
    large = tuple(stage.publish("cold", f"l/{n}.bin", 16 << 20) for n in range(_LARGE))
    server = rig_.keep(servers.nginx_hub("upstream", rig_.room("upstream"), stage.root, COMMIT))
    hub = _Hub(server, rig_.room("upstream"), big, small, large)
    stage.write_lock(rig_.room("mirror"), server.url)
    rig.check(server, big)
    mirrors = {
        "hubpin": Mirror(rig_.room("mirror"), server.url, rig_.folder / "data"),
        "hubpin, fetcher: false": Mirror(
            rig_.room("mirror"), server.url, rig_.folder / "data", name="alone", fetcher=False
        ),
    }
    for mirror in mirrors.values():
        _fresh(mirror, lambda server: _checked(server, big))
    count = rig_.rounds(5)
    _one_client(rig_, table, hub, mirrors, count)
    _eight_clients(rig_, table, hub, mirrors, count)
    _first_byte(rig_, table, hub, mirrors["hubpin"], count)
    _https(rig_, table, stage, big, count)
    return table


def _checked(server: Server, entry: Entry) -> Sample:
    rig.check(server, entry)
    return {}


def _fresh(mirror: Mirror, work: Callable[[Server], Sample], **env: str) -> Sample:
    """A mirror that holds nothing, for this long."""
    mirror.wipe()
    server = mirror.start(env=env)
    try:
        time.sleep(0.5)  # its fetcher starts too
        return work(server)
    finally:
        server.stop()
        mirror.wipe()


def _fresh_cache(rig_: Rig, hub: _Hub, work: Callable[[Server], Sample]) -> Sample:
    folder = rig_.room("cache")
    server = servers.nginx_cache("proxy_cache", folder, hub.server.url)
    try:
        return work(server)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _one_client(rig_: Rig, table: Table, hub: _Hub, mirrors: dict[str, Mirror], count: int) -> None:
    work = partial(_download, path=url(hub.big), clients=1)
    subjects: dict[str, Callable[[], Sample]] = {
        "direct": lambda: work(hub.server),
        "twin": lambda: work(hub.server),
        "proxy_cache": lambda: _fresh_cache(rig_, hub, work),
        **{name: partial(_fresh, mirror, work) for name, mirror in mirrors.items()},
    }
    found = rig.rounds(count, subjects)
    table.samples["1"] = found
    twin = rig.ratio(found, "twin", "direct", "rate")
    table.note("direct", rig.spread(found, "direct", "rate", scale=1e-6).text(" MB/s"))
    table.note("A/A, direct twice", twin.text())
    cached = rig.ratio(found, "proxy_cache", "direct", "rate")
    table.note("1 client: nginx proxy_cache ÷ direct", cached.text())
    band = min(1.0, twin.least)
    for name in mirrors:
        beside = rig.ratio(found, name, "direct", "rate")
        if name == "hubpin":
            table.least("1 client ÷ direct", beside, 0.25, band=band)
            against = rig.ratio(found, name, "proxy_cache", "rate")
            table.least("1 client ÷ nginx proxy_cache", against, 1.0, band=band)
        else:
            table.note(f"1 client ÷ direct, {name}", beside.text())


def _eight_clients(
    rig_: Rig, table: Table, hub: _Hub, mirrors: dict[str, Mirror], count: int
) -> None:
    path = url(hub.big)

    def work(server: Server) -> Sample:
        before = servers.upstream_gets(hub.folder, path)
        sample = _download(server, path=path, clients=8)
        return {**sample, "gets": servers.upstream_gets(hub.folder, path) - before}

    direct = partial(_download, hub.server, path=path, clients=1)
    subjects: dict[str, Callable[[], Sample]] = {
        "direct": direct,
        "proxy_cache": lambda: _fresh_cache(rig_, hub, work),
        **{name: partial(_fresh, mirror, work) for name, mirror in mirrors.items()},
    }
    found = rig.rounds(count, subjects)
    table.samples["8"] = found
    table.most("8 clients: upstream GETs", rig.spread(found, "hubpin", "gets"), 1)
    rate = rig.ratio(found, "hubpin", "direct", "rate")
    table.least("8 clients: in all ÷ direct", rate, 0.8)
    first = rig.spread(found, "hubpin", "first", scale=1e3)
    table.most("8 clients: first byte, the last of them", first, 20, unit=" ms")
    for name in ("hubpin, fetcher: false", "proxy_cache"):
        table.note(
            f"8 clients: {name}: in all ÷ direct; first byte",
            f"{rig.ratio(found, name, 'direct', 'rate').text()}; "
            f"{rig.spread(found, name, 'first', scale=1e3).text(' ms')}",
        )


def _download(server: Server, path: str, clients: int) -> Sample:
    seen = client.run(Order(server.port, (path,) * clients, clients=clients))
    return {"rate": seen.throughput, "first": max(seen.first_byte)}


def _first_byte(rig_: Rig, table: Table, hub: _Hub, mirror: Mirror, count: int) -> None:
    def asks(server: Server) -> Sample:
        found: Sample = {}
        for name, entries in (("small", hub.small), ("large", hub.large)):
            paths = tuple(url(entry) for entry in entries)
            seen = client.run(Order(server.port, paths, pause_s=0.03))
            found[name] = statistics.median(seen.first_byte)
        return found

    subjects: dict[str, Callable[[], Sample]] = {
        "direct": lambda: asks(hub.server),
        "hubpin": partial(_fresh, mirror, asks),
        "proxy_cache": lambda: _fresh_cache(rig_, hub, asks),
    }
    found = rig.rounds(count, subjects)
    table.samples["first byte"] = found
    for name, target in (("small", 3.0), ("large", 6.0)):
        for subject in ("hubpin", "proxy_cache"):
            added = rig.Spread.of([
                (one - plain) * 1e3
                for one, plain in zip(
                    rig.values(found, subject, name),
                    rig.values(found, "direct", name), strict=True,
                )
            ])  # fmt: skip
            if subject == "hubpin":
                table.most(f"first byte added, {name} miss", added, target, unit=" ms")
            else:
                table.note(f"first byte added, {name} miss, proxy_cache", added.text(" ms"))


def _https(rig_: Rig, table: Table, stage: Stage, entry: Entry, count: int) -> None:
    folder = rig_.room("tls")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        table.note("HTTPS", "not measured: openssl made no certificate")
        return
    tls = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
    hub = rig_.keep(
        servers.nginx_hub("tls", rig_.room("tls-upstream"), stage.root, COMMIT, tls=tls)
    )
    place = f"https://127.0.0.1:{hub.port}"
    mirror = Mirror(rig_.room("tls-mirror"), place, rig_.folder / "data")
    stage.write_lock(mirror.folder, place)
    cert = str(folder / "cert.pem")

    def curl() -> Sample:
        began = time.perf_counter()
        subprocess.run(
            ["curl", "-sS", "--fail", "--cacert", cert, "-o", "/dev/null", place + url(entry)],
            check=True, timeout=120,
        )  # fmt: skip
        return {"rate": entry.size / (time.perf_counter() - began)}

    work = partial(_download, path=url(entry), clients=1)
    found = rig.rounds(
        min(3, count),
        {"curl": curl, "hubpin": partial(_fresh, mirror, work, SSL_CERT_FILE=cert)},
    )
    table.samples["https"] = found
    table.note("HTTPS: curl, direct", rig.spread(found, "curl", "rate", scale=1e-6).text(" MB/s"))
    table.least("HTTPS: 1 client ÷ curl", rig.ratio(found, "hubpin", "curl", "rate"), 0.5)


if __name__ == "__main__":
    rig.main(measure)
