"""Held blobs, large: throughput, processor time and fairness beside nginx."""

from __future__ import annotations

from functools import partial

from benchmarks import client, rig, servers
from benchmarks.client import Order
from benchmarks.rig import Rig, Sample, Spread, Table
from benchmarks.servers import Mirror, Server
from benchmarks.stage import COMMIT, Stage, url

_ACCEL = "hubpin behind nginx with X-Accel-Redirect"
_THROUGH = "hubpin behind nginx without"
_TARGETS = {1: (1.0, 1.25), 8: (1.0, 1.25), 64: (0.9, 1.6)}  # rate, CPU ÷ nginx


def measure(rig_: Rig) -> Table:
    table = Table("warm", "held blobs of 256 MB ÷ nginx with sendfile, page cache warm")
    stage = Stage(rig_.room("hub"))
    entry = stage.publish("warm", "model.bin", rig_.pick(256 << 20, 64 << 20))
    stage.write_api()
    hub = rig_.keep(servers.nginx_hub("upstream", rig_.room("upstream"), stage.root, COMMIT))
    stage.write_lock(rig_.room("mirror"), hub.url)
    subjects = {
        name: rig_.keep(servers.nginx_files(name, rig_.room(name), stage.root))
        for name in ("nginx", "twin")
    }
    mirror = Mirror(rig_.room("mirror"), hub.url, rig_.room("data"), accel="/-/accel/")
    subjects["hubpin"] = rig_.keep(mirror.start())
    rig.check(subjects["hubpin"], entry)  # from here on it is held
    for name, data in ((_ACCEL, mirror.data), (_THROUGH, None)):
        room = rig_.room(f"front-{len(subjects)}")
        subjects[name] = rig_.keep(servers.nginx_front(room.name, room, subjects["hubpin"], data))
    subjects["FileResponse"] = rig_.keep(
        servers.aiohttp_app("FileResponse", rig_.folder, "file", stage.root)
    )
    problem = ""
    try:
        subjects["olah"] = rig_.keep(servers.olah(rig_.room("olah"), hub.url))
        rig.check(subjects["olah"], entry)
    except (RuntimeError, OSError) as e:
        subjects.pop("olah", None)
        problem = str(e).splitlines()[0]
    for server in subjects.values():
        rig.check(server, entry)
    said = servers.fetch(f"{subjects['hubpin'].url}/metrics").decode().splitlines()
    handed = [line for line in said if line.startswith("hubpin_handed_bytes_total ")]
    if [float(line.split()[1]) for line in handed] != [entry.size]:
        raise RuntimeError("hubpin did not hand the file over to nginx")
    seconds = rig_.pick(15, 8) / 10
    for clients in (1, 8, 64):
        asked = {
            # olah takes seconds to its first byte when several ask.
            name: partial(
                _stream, server, clients, url(entry), seconds * (1 + 2 * (name == "olah"))
            )
            for name, server in subjects.items()
            if name != "olah" or clients < 64
        }
        found = rig.rounds(rig_.rounds(5), asked)
        table.samples[str(clients)] = found
        twin = rig.ratio(found, "twin", "nginx", "rate")
        cpu_twin = rig.ratio(found, "twin", "nginx", "cpu")
        table.note(f"{_many(clients)}: nginx", _absolute(found["nginx"]))
        table.note(f"{_many(clients)}: A/A, twin ÷ nginx", twin.text())
        rate, cpu = _TARGETS[clients]
        table.least(
            f"{_many(clients)}: throughput ÷ nginx",
            rig.ratio(found, "hubpin", "nginx", "rate"), rate, band=min(1.0, twin.least),
        )  # fmt: skip
        table.most(
            f"{_many(clients)}: CPU-s/GB ÷ nginx",
            rig.ratio(found, "hubpin", "nginx", "cpu"), cpu, band=max(1.0, cpu_twin.most),
        )  # fmt: skip
        if clients == 64:
            table.most("64 clients: fastest ÷ slowest", rig.spread(found, "hubpin", "fair"), 2.5)
            table.note(
                "64 clients: fastest ÷ slowest, FileResponse",
                rig.spread(found, "FileResponse", "fair").text(),
            )
        for other in (_ACCEL, _THROUGH):
            table.note(
                f"{_many(clients)}: {other} ÷ hubpin, throughput / CPU-s/GB",
                f"{rig.ratio(found, other, 'hubpin', 'rate').text()} / "
                f"{rig.ratio(found, other, 'hubpin', 'cpu').text()}",
            )
        for other in (_ACCEL, _THROUGH, "FileResponse", "olah"):
            if other in found:
                table.note(
                    f"{_many(clients)}: {other} ÷ nginx, throughput / CPU-s/GB",
                    f"{rig.ratio(found, other, 'nginx', 'rate').text()} / "
                    f"{rig.ratio(found, other, 'nginx', 'cpu').text()}",
                )
    if problem:
        table.note("olah 0.5.4", f"could not do the work: {problem}")
    return table


def _stream(server: Server, clients: int, path: str, seconds: float) -> Sample:
    before = server.cpu_s()
    seen = client.run(
        Order(server.port, (path,) * clients, clients=clients, seconds=seconds, discard=True)
    )
    moved = sum(seen.bytes)
    return {
        "rate": seen.throughput,
        "cpu": (server.cpu_s() - before) / max(1, moved) * 1e9,
        "fair": seen.fairness,
    }


def _many(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"


def _absolute(samples: list[Sample]) -> str:
    rate = Spread.of([one["rate"] / 1e9 for one in samples])
    cpu = Spread.of([one["cpu"] for one in samples])
    return f"{rate.text(' GB/s')}, {cpu.text(' CPU-s/GB')}"


if __name__ == "__main__":
    rig.main(measure)
