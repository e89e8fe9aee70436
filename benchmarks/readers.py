"""Two hundred slow readers: memory for each, a HEAD beside them, and their first byte."""

from __future__ import annotations

import time
from functools import partial

from benchmarks import rig, servers
from benchmarks.client import Order, Running, percentile
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror, Server
from benchmarks.stage import COMMIT, Stage, url

_READERS = 200
_RATE = 100e3  # bytes a second each


def measure(rig_: Rig) -> Table:
    table = Table("readers", f"{_READERS} readers of {_RATE / 1e3:.0f} kB/s each")
    stage = Stage(rig_.room("hub"))
    big = stage.publish("readers", "model.bin", 64 << 20)
    small = stage.publish("readers", "config.json", 700)
    hub = rig_.keep(servers.nginx_hub("upstream", rig_.room("upstream"), stage.root, COMMIT))
    stage.write_lock(rig_.room("mirror"), hub.url)
    mirror = Mirror(rig_.room("mirror"), hub.url, rig_.room("data"))
    subjects = {
        "nginx": rig_.keep(servers.nginx_files("nginx", rig_.room("nginx"), stage.root)),
        "hubpin": rig_.keep(mirror.start()),
        "FileResponse": rig_.keep(
            servers.aiohttp_app("FileResponse", rig_.folder, "file", stage.root)
        ),
    }
    for server in subjects.values():
        for entry in (big, small):
            rig.check(server, entry)
    found = rig.rounds(
        rig_.rounds(3),
        {
            name: partial(_beside, server, url(big), url(small), rig_.pick(4, 2))
            for name, server in subjects.items()
        },
    )
    table.samples["readers"] = found
    # Later rounds find the memory that the first one left.
    memory = max(rig.values(found, "hubpin", "memory")) / 1024
    table.most("memory for each", rig.Spread.of([memory]), 32, unit=" KiB")
    head = rig.spread(found, "hubpin", "head", scale=1e3)
    table.most("HEAD beside them, p99", head, 5, unit=" ms")
    first = rig.spread(found, "hubpin", "first", scale=1e3)
    table.most("first byte, p99", first, 150, unit=" ms")
    for name in ("nginx", "FileResponse"):
        table.note(
            f"{name}: memory; HEAD p99; first byte p99",
            f"{max(rig.values(found, name, 'memory')) / 1024:.1f} KiB; "
            f"{rig.spread(found, name, 'head', scale=1e3).text(' ms')}; "
            f"{rig.spread(found, name, 'first', scale=1e3).text(' ms')}",
        )
    return table


def _beside(server: Server, big: str, small: str, seconds: float) -> Sample:
    idle = server.resident()
    readers = Running(
        Order(server.port, (big,) * _READERS, clients=_READERS, seconds=seconds + 2, rate=_RATE)
    )
    time.sleep(1.0)
    heads = Running(Order(server.port, (small,), method="HEAD", seconds=seconds, pause_s=0.005))
    time.sleep(seconds / 2)
    memory = (server.resident() - idle) / _READERS
    head = percentile(heads.result().whole, 0.99)
    first = percentile(readers.result().first_byte, 0.99)
    return {"memory": memory, "head": head, "first": first}


if __name__ == "__main__":
    rig.main(measure)
