"""A warm snapshot of 200 tiny files with the stock client, beside the upstream itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import rig, servers
from benchmarks.rig import Rig, Sample, Table
from benchmarks.servers import Mirror, Server
from benchmarks.stage import COMMIT, Stage

_FILES = 200
_SCRIPT = """
import json, sys, time
from huggingface_hub import snapshot_download
began = time.perf_counter()
folder = snapshot_download("bench/tiny", cache_dir=sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - began, "folder": folder}))
"""


def measure(rig_: Rig) -> Table:
    table = Table("snapshot", f"{_FILES} tiny files with huggingface_hub, held by the mirror")
    stage = Stage(rig_.room("hub"))
    for number in range(_FILES):
        stage.publish("tiny", f"part-{number % 8}/file-{number}.json", 300 + number)
    stage.write_api()
    hub = rig_.keep(servers.nginx_hub("upstream", rig_.room("upstream"), stage.root, COMMIT))
    stage.write_lock(rig_.room("mirror"), hub.url)
    mirror = rig_.keep(Mirror(rig_.room("mirror"), hub.url, rig_.room("data")).start())
    _snapshot(mirror, stage)  # fills the store, and shows that it works
    found = rig.rounds(
        rig_.rounds(5),
        {
            "direct": partial(_snapshot, hub, stage),
            "twin": partial(_snapshot, hub, stage),
            "hubpin": partial(_snapshot, mirror, stage),
        },
    )
    table.samples["snapshot"] = found
    twin = rig.ratio(found, "twin", "direct", "seconds")
    table.note("straight from the upstream", rig.spread(found, "direct", "seconds").text(" s"))
    table.note("A/A, straight twice", twin.text())
    table.most(
        "snapshot ÷ straight from the upstream",
        rig.ratio(found, "hubpin", "direct", "seconds"), 1.2, band=max(1.0, twin.most),
    )  # fmt: skip
    return table


def _snapshot(server: Server, stage: Stage) -> Sample:
    with TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, f"{home}/cache"],
            env={
                "HF_ENDPOINT": server.url, "HOME": home, "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": "/usr/bin:/bin",
            },
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the client failed: {done.stderr[-500:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        for path in stage.pins["tiny"]:
            got = (Path(told["folder"]) / path).read_bytes()
            if got != stage.file("tiny", path).read_bytes():
                raise RuntimeError(f"wrong bytes of {path}")
    time.sleep(0.1)
    return {"seconds": told["seconds"]}


if __name__ == "__main__":
    rig.main(measure)
