"""Small answers: HEAD and a file of 700 bytes, 32 clients at once."""

from __future__ import annotations

from functools import partial

from benchmarks import client, rig, servers
from benchmarks.client import Order
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror, Server
from benchmarks.stage import COMMIT, Stage, url

_CLIENTS = 32


def measure(rig_: Rig) -> Table:
    table = Table("small", f"small answers, {_CLIENTS} clients")
    stage = Stage(rig_.room("hub"))
    entry = stage.publish("small", "config.json", 700)
    stage.write_api()
    hub = rig_.keep(servers.nginx_hub("upstream", rig_.room("upstream"), stage.root, COMMIT))
    stage.write_lock(rig_.room("mirror"), hub.url)
    subjects = {
        name: rig_.keep(servers.nginx_files(name, rig_.room(name), stage.root))
        for name in ("nginx", "twin")
    }
    mirror = Mirror(rig_.room("mirror"), hub.url, rig_.room("data"))
    subjects["hubpin"] = rig_.keep(mirror.start())
    app = servers.aiohttp_app
    subjects["FileResponse"] = rig_.keep(app("FileResponse", rig_.folder, "file", stage.root))
    problem = ""
    try:
        subjects["olah"] = rig_.keep(servers.olah(rig_.room("olah"), hub.url))
        rig.check(subjects["olah"], entry)
    except (RuntimeError, OSError) as e:
        subjects.pop("olah", None)
        problem = str(e).splitlines()[0]
    for server in subjects.values():
        rig.check(server, entry)
    subjects["bare"] = rig_.keep(app("bare", rig_.folder, "bare", stage.root))
    for method in ("HEAD", "GET"):
        asked = {
            # olah takes two seconds for 32 answers.
            name: partial(
                _ask, server, method, url(entry), rig_.pick(2, 1) * (3 if name == "olah" else 1)
            )
            for name, server in subjects.items()
        }
        found = rig.rounds(rig_.rounds(5), asked)
        table.samples[method] = found
        table.note(f"{method}: A/A, twin ÷ nginx", rig.ratio(found, "twin", "nginx", "rate").text())
        for name in subjects:
            if name != "twin":
                table.note(
                    f"{method}: {name}",
                    f"{rig.spread(found, name, 'rate').text('/s')}, "
                    f"{rig.spread(found, name, 'cpu', scale=1e6).text(' µs')} of CPU each",
                )
        twin = min(1.0, rig.ratio(found, "twin", "nginx", "rate").least)
        table.least(f"{method}: rate", rig.spread(found, "hubpin", "rate"), 10_000, unit="/s")
        if method == "HEAD":
            bare = rig.ratio(found, "hubpin", "bare", "rate")
            table.least("HEAD: rate ÷ a bare aiohttp app", bare, 0.7, band=twin)
            if "olah" in found:
                table.least("HEAD: rate ÷ olah", rig.ratio(found, "hubpin", "olah", "rate"), 500)
        else:
            plain = rig.ratio(found, "hubpin", "FileResponse", "rate")
            table.least("GET: rate ÷ FileResponse", plain, 4, band=twin)
    if problem:
        table.note("olah 0.5.4", f"could not do the work: {problem}")
    return table


def _ask(server: Server, method: str, path: str, seconds: float) -> Sample:
    before = server.cpu_s()
    seen = client.run(Order(server.port, (path,), clients=_CLIENTS, method=method, seconds=seconds))
    # Not one answer in that time: it is slower than one.
    rate = max(1, seen.requests) / seen.seconds
    return {"rate": rate, "cpu": (server.cpu_s() - before) / max(1, seen.requests)}


if __name__ == "__main__":
    rig.main(measure)
