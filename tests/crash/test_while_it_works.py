"""P13 and P14: gc, and the end, in the midst of work."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.bench import FILES, HELD, MISS, REPO, Bench
from tests.crash.mirror import Mortal
from tests.crash.zygote import Zygote
from tests.fakes.content import Blob, Content, digest
from tests.fakes.hub_server import HubServer
from tests.fakes.settings import Settings
from tests.fakes.world import World, lfs
from tests.faults.bench import until
from tests.faults.client import RIGHT, Download, Verdict

COUNT = 50
MANY: dict[str, Blob] = {
    f"{kind}-{number}.bin": Content(f"{kind} {number}", 150_000)
    for kind in ("cold", "held")
    for number in range(COUNT)
}


@pytest.fixture
def crowded() -> Iterator[HubServer]:
    world = World()
    world.repo(REPO).commit({path: lfs(content) for path, content in MANY.items()})
    with HubServer(world, Settings(bandwidth=600_000)) as hub:
        yield hub


@pytest.mark.row(
    "P13",
    "gc runs again and again during 50 downloads and 50 reads.",
    "All of them are right; what no pin needs is deleted, and nothing else.",
)
def test_p13_gc_takes_nothing_that_is_needed(
    crowded: HubServer, zygote: Zygote, tmp_path: Path
) -> None:
    mirror = Mortal(tmp_path / "m", zygote, upstream=crowded.url, allow=(f"{REPO}@main",))
    assert mirror.run("lock")[0] == 0
    for path, content in MANY.items():
        if path.startswith("held"):
            _plant(mirror, content.read(0, content.size))
    needless = [_plant(mirror, b"needless %d" % number) for number in range(20)]
    assert mirror.start()
    stop = threading.Event()
    sweeps = 0
    with ThreadPoolExecutor(2 * COUNT) as pool:
        downloads = [
            pool.submit(Download(mirror.file_url(REPO, path), content).attempt)
            for path, content in MANY.items()
        ]
        while not all(one.done() for one in downloads) or sweeps < 2:
            status, said = mirror.run("gc")
            assert status == 0, said
            sweeps += 1
        stop.set()
        assert [one.result() for one in downloads] == [RIGHT] * len(downloads)
    assert not any(blob.exists() for blob in needless)
    held = mirror.check_blobs()
    assert {digest(content).hex for content in MANY.values()} <= held
    crowded.refuse()
    for path, content in MANY.items():
        assert mirror.get(REPO, path).verdict(content.read(0, content.size)) is RIGHT
    mirror.kill()


def _plant(mirror: Mortal, content: bytes) -> Path:
    name = hashlib.sha256(content).hexdigest()
    blob = mirror.data / "blobs-v1" / "sha256" / name[:2] / name
    blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    blob.write_bytes(content)
    return blob


@pytest.mark.row(
    "P14",
    "SIGTERM while clients are served.",
    "Their answers are finished, then it ends with status 0.",
)
def test_p14_it_drains_before_it_ends(bench: Bench) -> None:
    bench.hub.set(bandwidth=20e6)
    download = Download(bench.mirror.file_url(REPO, MISS), FILES[MISS])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(download.attempt)
        bench.hub.wait(host="cdn", path=MISS, sent=1 << 20)
        os.kill(bench.mirror.pid, signal.SIGTERM)
        assert answer.result() is RIGHT
    assert bench.mirror.wait() == 0
    assert bench.mirror.spool() == []


@pytest.mark.row(
    "P14",
    "SIGTERM during a download that nobody waits for any more.",
    "It ends at once with status 0, and later goes on where it stopped.",
)
def test_p14_a_download_goes_on_after_the_end(bench: Bench) -> None:
    size = FILES[MISS].size
    bench.hub.set(bandwidth=8e6)
    bench.mirror.get(REPO, HELD)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(bench.get, MISS)
        bench.hub.wait(host="cdn", path=MISS, sent=size // 4)
        began = time.monotonic()
        os.kill(bench.mirror.pid, signal.SIGTERM)
        time.sleep(0.2)
        os.kill(bench.mirror.pid, signal.SIGINT)  # asked twice: at once
        verdict, _ = answer.result()
        assert verdict in (Verdict.CLEAN, Verdict.RESET)
    bench.mirror.wait()
    assert time.monotonic() - began < 10
    bench.hub.set(bandwidth=None)
    assert bench.mirror.start()
    bench.right(MISS)
    sent = sum(seen.sent for seen in bench.hub.requests(host="cdn", path=MISS))
    assert sent <= size + (6 << 20), f"{sent - size} bytes came twice"


@pytest.mark.row(
    "P14",
    "SIGTERM while the upstream is silent and nobody waits.",
    "It ends with status 0, at once.",
)
def test_p14_an_idle_server_ends_at_once(bench: Bench) -> None:
    bench.hub.hold(MISS, at=3 << 20)
    got = threading.Thread(target=bench.mirror.get, args=(REPO, "miss-small.bin"))
    got.start()
    got.join()
    began = time.monotonic()
    os.kill(bench.mirror.pid, signal.SIGTERM)
    assert bench.mirror.wait() == 0
    assert time.monotonic() - began < 5
    until("nothing is left half done", lambda: bench.mirror.spool() == [])
    bench.hub.release()
    assert bench.mirror.start()
    bench.right(HELD, MISS)
