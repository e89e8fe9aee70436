"""Sixteen downloads at once: a HEAD beside them, and the memory of each."""

from __future__ import annotations

import time
from functools import partial

from benchmarks import rig, servers
from benchmarks.client import Order, Running, percentile
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror
from benchmarks.stage import COMMIT, Stage, url
from proxy.pins.lock import Entry

_FILLS = 16


def measure(rig_: Rig) -> Table:
    table = Table("fills", f"{_FILLS} cold files at once")
    stage = Stage(rig_.room("hub", memory=True))
    size = rig_.pick(128 << 20, 16 << 20)
    many = [stage.publish("fills", f"model-{n}.bin", size) for n in range(_FILLS)]
    large = [
        stage.publish("fills", f"large-{n}.bin", rig_.pick(256 << 20, 32 << 20)) for n in range(8)
    ]
    small = stage.publish("fills", "config.json", 700)
    hub = rig_.keep(servers.nginx_hub("upstream", rig_.room("upstream"), stage.root, COMMIT))
    stage.write_lock(rig_.room("mirror"), hub.url)
    mirrors = {
        "hubpin": Mirror(rig_.room("mirror"), hub.url, rig_.folder / "data"),
        "fetcher: false": Mirror(
            rig_.room("mirror"), hub.url, rig_.folder / "data", name="alone", fetcher=False
        ),
    }
    for name, files, count in (("16", many, rig_.rounds(3)), ("8", large, rig_.rounds(2))):
        table.samples[name] = rig.rounds(
            count,
            {one: partial(_at_once, mirror, files, small) for one, mirror in mirrors.items()},
        )
    sixteen, eight = table.samples["16"], table.samples["8"]
    each = 1 / _FILLS / 2**20
    head = rig.spread(sixteen, "hubpin", "head", scale=1e3)
    table.most("HEAD beside sixteen, p99", head, 10, unit=" ms")
    memory = rig.spread(sixteen, "hubpin", "memory", scale=each)
    table.most("memory of each of sixteen", memory, 3, unit=" MiB")
    memory = rig.spread(eight, "hubpin", "memory", scale=1 / 2**20)
    table.most(f"8 × {large[0].size >> 20} MB above idle", memory, 64, unit=" MiB")
    table.note("sixteen in all", rig.spread(sixteen, "hubpin", "rate", scale=1e-6).text(" MB/s"))
    rate = rig.ratio(sixteen, "fetcher: false", "hubpin", "rate")
    head = rig.spread(sixteen, "fetcher: false", "head", scale=1e3)
    memory = rig.spread(sixteen, "fetcher: false", "memory", scale=each)
    table.note("fetcher: false: HEAD beside sixteen, p99", head.text(" ms"))
    table.note("fetcher: false: in all, ÷ with the fetcher", rate.text())
    table.note("fetcher: false: memory of each of sixteen", memory.text(" MiB"))
    return table


def _at_once(mirror: Mirror, files: list[Entry], small: Entry) -> Sample:
    mirror.wipe()
    server = mirror.start()
    try:
        time.sleep(1.0)  # its fetcher starts too
        rig.check(server, small)
        idle = server.resident()
        paths = tuple(url(entry) for entry in files)
        whole = Running(Order(server.port, paths, clients=len(paths), discard=True))
        heads = Running(
            Order(server.port, (url(small),), method="HEAD", seconds=2.0, pause_s=0.004)
        )
        most = idle
        for _ in range(18):
            time.sleep(0.1)
            most = max(most, server.resident())
        head = percentile(heads.result().whole, 0.99)
        seen = whole.result()
        rig.check(server, files[-1])
    finally:
        server.stop()
        mirror.wipe()
    return {"head": head, "memory": most - idle, "rate": seen.throughput}


if __name__ == "__main__":
    rig.main(measure)
