"""A large lock and a full store: start-up, memory of the catalog, and long listings."""

from __future__ import annotations

import asyncio
import hashlib
import time
from functools import partial
from pathlib import Path

from benchmarks import rig, servers
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror
from benchmarks.stage import COMMIT, Stage
from proxy.hub.names import Digest
from proxy.store.local import LocalStore


def measure(rig_: Rig) -> Table:
    files, blobs = rig_.pick(100_000, 20_000), rig_.pick(10_000, 1_000)
    table = Table("start", f"a lock of {files:,} files, and {blobs:,} blobs")
    stage = Stage(rig_.room("hub"))
    data = rig_.room("data")
    (data / "blobs-v1" / "sha256").mkdir(parents=True)
    asyncio.run(_fill(stage, data, files=files, blobs=blobs))
    upstream = "http://127.0.0.1:9"  # nobody is asked
    stage.write_lock(rig_.room("full"), upstream)
    Stage(rig_.folder).write_lock(rig_.room("empty"), upstream)
    listing = f"/api/models/bench/start/tree/{COMMIT}?recursive=true"
    found = rig.rounds(
        rig_.rounds(3),
        {
            "full": partial(_start, Mirror(rig_.room("full"), upstream, data), listing),
            "empty": partial(_start, Mirror(rig_.room("empty"), upstream, data), ""),
        },
    )
    table.samples["start"] = found
    table.most("start-up until the first answer", rig.spread(found, "full", "start"), 2, unit=" s")
    table.note("the same with an empty lock", rig.spread(found, "empty", "start").text(" s"))
    memory = rig.Spread.of(
        [
            (full - empty) / 2**20
            for full, empty in zip(
                rig.values(found, "full", "memory"), rig.values(found, "empty", "memory"),
                strict=True,
            )
        ]
    )  # fmt: skip
    table.most("memory of the catalog", memory, 200, unit=" MiB")
    table.note("tree of the repository, first", rig.spread(found, "full", "first").text(" s"))
    table.note("tree of the repository, again", rig.spread(found, "full", "again").text(" s"))
    return table


async def _fill(stage: Stage, data: Path, *, files: int, blobs: int) -> None:
    store = LocalStore(data)
    loose = data / "loose"
    for number in range(files):
        body = f"file {number}".encode()
        sha256 = hashlib.sha256(body).hexdigest()
        stage.list("start", f"folder-{number % 100}/file-{number}.json", len(body), sha256)
        if number < blobs:
            loose.write_bytes(body)
            await store.adopt(Digest.of_hex(sha256), loose)


def _start(mirror: Mirror, listing: str) -> Sample:
    began = time.perf_counter()
    server = mirror.start()
    try:
        servers.fetch(server.url + "/-/healthy")
        found = {"start": time.perf_counter() - began, "memory": float(server.resident())}
        for name in ("first", "again") if listing else ():
            began = time.perf_counter()
            servers.fetch(server.url + listing)
            found[name] = time.perf_counter() - began
    finally:
        server.stop()
    return found


if __name__ == "__main__":
    rig.main(measure)
