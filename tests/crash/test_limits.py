"""P07 and P16: few descriptors, and little memory."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.bench import REPO
from tests.crash.mirror import Mortal
from tests.crash.zygote import Zygote
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.settings import Settings
from tests.fakes.world import lfs
from tests.faults.bench import until
from tests.faults.client import RIGHT, Download, Verdict

COUNT = 24
SOME = {f"{number}.bin": Content(f"some {number}", 400_000) for number in range(COUNT)}
LARGE_SIZE = (20 << 30) if os.environ.get("CRASH") == "long" else (1 << 30)
LARGE = Content("large", LARGE_SIZE)
MEMORY = 300 << 20
READERS = 100


@pytest.fixture(scope="module")
def roomy() -> Iterator[HubProcess]:
    with HubProcess(Settings(world="empty", bandwidth=2e6)) as hub:
        hub.commit(REPO, {path: lfs(content) for path, content in SOME.items()})
        yield hub


@pytest.mark.row(
    "P07",
    "The process may open few files (EMFILE), and many clients come for many files.",
    "It neither crashes nor spins; answers are right or clean, and all is well when they left.",
)
def test_p07_without_descriptors_it_lives_on(
    roomy: HubProcess, zygote: Zygote, tmp_path: Path
) -> None:
    mirror = Mortal(
        tmp_path / "m", zygote, upstream=roomy.url, allow=(f"{REPO}@main",),
        settings={"keep_free": "0"},
    )  # fmt: skip
    assert mirror.run("lock")[0] == 0
    assert mirror.start(most_files=60)
    with ExitStack() as idle, ThreadPoolExecutor(COUNT) as pool:
        for _ in range(6):
            idle.enter_context(socket.create_connection(("127.0.0.1", mirror.port)))
        downloads = [Download(mirror.file_url(REPO, path), SOME[path]) for path in SOME]
        verdicts = list(pool.map(Download.attempt, downloads))
        assert set(verdicts) <= {RIGHT, Verdict.CLEAN, Verdict.RESET}, verdicts
        assert any(one is not RIGHT for one in verdicts), "the limit was not felt"
        before = mirror.cpu_s()
        time.sleep(1.5)
        assert mirror.cpu_s() - before < 1.0, "it spins"
    assert mirror.poll() is None
    for download in downloads:
        until("all is well", lambda one=download: one.complete or one.attempt() is RIGHT, 60)  # type: ignore[misc]  # a default binds it
    assert "Traceback" not in mirror.log
    assert len(mirror.check_blobs()) >= COUNT
    mirror.kill()


@pytest.mark.row(
    "P16",
    "A very large file and a hundred clients, half of them slow.",
    "The process stays below 300 MB of memory.",
)
@pytest.mark.timeout(1800)
def test_p16_memory_stays_flat(zygote: Zygote, tmp_path: Path) -> None:
    with HubProcess(Settings(world="empty")) as hub, ExitStack() as slow:
        hub.commit(REPO, {"large.bin": lfs(LARGE)})
        mirror = Mortal(
            tmp_path / "m", zygote, upstream=hub.url, allow=(f"{REPO}@main",),
            settings={"keep_free": "0"},
        )  # fmt: skip
        assert mirror.run("lock")[0] == 0
        assert mirror.start()
        for _ in range(READERS):
            slow.enter_context(_begun(mirror))
        with _begun(mirror) as fast:
            left = LARGE_SIZE
            while left > 0 and (piece := fast.recv(1 << 20)):
                left -= len(piece)
        assert left <= 0
        assert mirror.memory() < MEMORY, f"{mirror.memory() >> 20} MiB"
        assert sum(seen.sent for seen in hub.requests(host="cdn")) <= 1.01 * LARGE_SIZE
        mirror.kill()
        mirror.blob(lfs(LARGE).digest).unlink()


def _begun(mirror: Mortal) -> socket.socket:
    """A client that has asked and reads nothing yet."""
    client = socket.create_connection(("127.0.0.1", mirror.port), timeout=60)
    client.sendall(f"GET /{REPO}/resolve/main/large.bin HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return client
