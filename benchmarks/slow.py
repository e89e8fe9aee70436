"""A slow upstream: 20 MB/s for each connection, 40 ms away."""

from __future__ import annotations

import time
from functools import partial

from benchmarks import client, rig, servers
from benchmarks.client import Order
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror, Server
from benchmarks.stage import Stage, url
from proxy.pins.lock import Entry


def measure(rig_: Rig) -> Table:
    size = rig_.pick(400_000_000, 100_000_000)
    table = Table("slow", f"{size // 1_000_000} MB over 20 MB/s for each connection, 40 ms away")
    stage = Stage(rig_.room("hub", memory=True))
    entry = stage.publish("slow", "model.bin", size)
    hub = rig_.keep(servers.slow_hub(rig_.folder, stage.root, rate=20e6, delay_s=0.04))
    stage.write_lock(rig_.room("mirror"), hub.url)
    subjects = {"direct": partial(_download, hub, entry)}
    for connections in (1, 4, 8):
        mirror = Mirror(
            rig_.room("mirror"), hub.url, rig_.folder / f"data-{connections}",
            name=f"hubpin-{connections}", connections=connections,
        )  # fmt: skip
        subjects[str(connections)] = partial(_cold, mirror, entry)
    found = rig.rounds(rig_.rounds(2), subjects)
    table.samples["slow"] = found
    rate = rig.spread(found, "direct", "rate", scale=1e-6)
    table.note("direct, one connection", rate.text(" MB/s"))
    for allowed, target in (("1", 0.98), ("4", 3.5), ("8", 6.0)):
        beside = rig.ratio(found, allowed, "direct", "rate")
        table.least(f"connections: {allowed}, ÷ direct", beside, target)
    return table


def _cold(mirror: Mirror, entry: Entry) -> Sample:
    mirror.wipe()
    server = mirror.start()
    try:
        time.sleep(1.0)  # its fetcher starts too
        sample = _download(server, entry)
        rig.check(server, entry)
    finally:
        server.stop()
        mirror.wipe()
    return sample


def _download(server: Server, entry: Entry) -> Sample:
    return {"rate": client.run(Order(server.port, (url(entry),))).throughput}


if __name__ == "__main__":
    rig.main(measure)
