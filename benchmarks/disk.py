"""A cold page cache on a disk of 100 MB/s: a HEAD beside eight readers."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from benchmarks import client, rig, servers
from benchmarks.client import Order, Running, percentile
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror, Server
from benchmarks.stage import COMMIT, Stage, url

_READERS = 8
_DISK = 100_000_000  # bytes a second


def measure(rig_: Rig) -> Table:
    table = Table("disk", f"{_READERS} readers of files that are not in the page cache")
    stage = Stage(rig_.room("hub"))
    size = rig_.pick(96 << 20, 32 << 20)
    big = [stage.publish("disk", f"model-{n}.bin", size) for n in range(_READERS)]
    small = stage.publish("disk", "config.json", 700)
    held = stage.publish("disk", "held.bin", 25_000_000)
    hub = rig_.keep(servers.nginx_hub("upstream", rig_.room("upstream"), stage.root, COMMIT))
    stage.write_lock(rig_.room("mirror"), hub.url)
    mirror = Mirror(rig_.room("mirror"), hub.url, rig_.room("data"))
    warm = mirror.start()  # fills the store
    for entry in (*big, small, held):
        rig.check(warm, entry)
    warm.stop()
    group = rig_.cgroup("disk", read_rate=_DISK)
    subjects = {
        "nginx": rig_.keep(
            servers.nginx_files("nginx", rig_.room("nginx"), stage.root, cgroup=group)
        ),
        "hubpin": rig_.keep(mirror.start(cgroup=group)),
        "FileResponse": rig_.keep(
            servers.aiohttp_app("FileResponse", rig_.folder, "file", stage.root, cgroup=group)
        ),
    }
    blobs = [path for path in mirror.data.glob("blobs-v1/**/*") if path.is_file()]
    # Bytes that were never written back cannot be dropped.
    os.sync()
    cold = [stage.file("disk", entry.path) for entry in big]
    cold += [path for path in blobs if path.stat().st_size == size]
    found = rig.rounds(
        rig_.rounds(3),
        {
            name: partial(
                _beside, server, tuple(url(one) for one in (small, held, *big)),
                cold, rig_.pick(4, 2),
            )
            for name, server in subjects.items()
        },
    )  # fmt: skip
    table.samples["disk"] = found
    limited = f"{_DISK // 1_000_000} MB/s (cgroup)" if group else "as it is: no cgroup to slow it"
    table.note("the disk", limited)
    head = rig.spread(found, "hubpin", "head", scale=1e3)
    table.most("HEAD beside them, p99", head, 10, unit=" ms")
    table.note(
        "a file of 25 MB that is in the page cache, beside them",
        rig.spread(found, "hubpin", "held", scale=1e3).text(" ms"),
    )
    table.note("the readers in all", rig.spread(found, "hubpin", "rate", scale=1e-6).text(" MB/s"))
    for name in ("nginx", "FileResponse"):
        table.note(
            f"{name}: HEAD p99; 25 MB; readers in all",
            f"{rig.spread(found, name, 'head', scale=1e3).text(' ms')}; "
            f"{rig.spread(found, name, 'held', scale=1e3).text(' ms')}; "
            f"{rig.spread(found, name, 'rate', scale=1e-6).text(' MB/s')}",
        )
    return table


def _beside(server: Server, paths: tuple[str, ...], cold: list[Path], seconds: float) -> Sample:
    small, held, *big = paths
    client.run(Order(server.port, (held,)))
    for path in cold:
        _evict(path)
    readers = Running(
        Order(server.port, tuple(big), clients=_READERS, seconds=seconds + 1, discard=True)
    )
    time.sleep(0.5)
    heads = Running(Order(server.port, (small,), method="HEAD", seconds=seconds, pause_s=0.005))
    time.sleep(seconds / 4)
    whole = client.run(Order(server.port, (held,))).whole[0]
    head = percentile(heads.result().whole, 0.99)
    return {"head": head, "held": whole, "rate": readers.result().throughput}


def _evict(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


if __name__ == "__main__":
    rig.main(measure)
