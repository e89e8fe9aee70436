"""P01: SIGKILL instead of every call that changes a file, and in the middle of every write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from proxy.pins import lock as locks
from tests.crash.mirror import Mortal
from tests.crash.zygote import Zygote
from tests.fakes.content import Blob, Content
from tests.fakes.hub_server import HubServer
from tests.fakes.settings import Settings
from tests.fakes.world import World, lfs, regular
from tests.faults.bench import until
from tests.faults.client import RIGHT, Download

REPO = "acme/model"
FILES: dict[str, Blob] = {
    "config.json": Content("config", 700),
    "small.bin": Content("small", 5_000),
    "model.bin": Content("model", 900_000),  # streamed while it comes, and synced on the way
}
SYNC_EVERY = 128 << 10
BANDWIDTH = 8e6
# How many runs the ordinary test has; 0 tries every step.
SAMPLE = 0 if os.environ.get("CRASH") == "long" else 10
_WORKERS = 2


@pytest.fixture
def hubs() -> Iterator[list[HubServer]]:
    hubs = []
    try:
        for _ in range(_WORKERS):
            world = World()
            files = {
                path: (regular if path.endswith("json") else lfs)(blob)
                for path, blob in FILES.items()
            }
            world.repo(REPO).commit(files)
            hubs.append(HubServer(world, Settings(bandwidth=BANDWIDTH)).__enter__())
        yield hubs
    finally:
        for hub in hubs:
            hub.close()


def completes(download: Download) -> bool:
    """Whether a client has the file, if need be after another attempt."""
    return download.complete or download.attempt() is RIGHT


class Trial:
    """One life, one death, and what comes after."""

    def __init__(self, folder: Path, zygote: Zygote, hub: HubServer) -> None:
        self.mirror = Mortal(folder, zygote, upstream=hub.url, allow=(f"{REPO}@main",))
        self.hub = hub
        self.downloads = [Download("", content) for content in FILES.values()]

    def live(self, **plan: object) -> int:
        """Clients load until the process dies, or until they have everything; the steps taken."""
        journal = self.mirror.folder.parent / f"{self.mirror.folder.name}.journal"
        journal.unlink(missing_ok=True)
        faults = self.mirror.plan(journal=str(journal), **plan)
        if self.mirror.start(plan=faults, sync_every=SYNC_EVERY):
            with ThreadPoolExecutor(len(FILES)) as clients:
                list(clients.map(Download.attempt, self.aim()))
        return len(journal.read_text().splitlines())

    def aim(self) -> list[Download]:
        for path, download in zip(FILES, self.downloads, strict=True):
            download.url = self.mirror.file_url(REPO, path)
        return self.downloads

    def after(self) -> None:
        mirror, hub = self.mirror, self.hub
        mirror.check_blobs()
        locked = mirror.lock.exists()
        if locked:
            for entry in locks.load(mirror.lock).pins[f"{REPO}@main"].files.values():  # type: ignore[index]  # a Pair is a str
                if not entry.lfs:
                    assert mirror.blob(entry.digest).stat().st_size == entry.size, "I2"
            hub.refuse()
            assert mirror.start(), mirror.log
            once = mirror.tree()
            for path, download in zip(FILES, self.downloads, strict=True):
                if download.complete:
                    got = mirror.get(REPO, path)
                    assert got.verdict(download.want) is RIGHT, f"I9: {path}: {got.head}"
            mirror.kill()
            assert mirror.start(), mirror.log
            assert mirror.tree() == once, "I5"
            mirror.kill()
            hub.listen()
        assert mirror.start(), mirror.log
        for path, download in zip(FILES, self.aim(), strict=True):
            until(f"{path} is complete", partial(completes, download))
            assert mirror.get(REPO, path).verdict(download.want) is RIGHT
        assert mirror.spool() == []
        assert len(mirror.check_blobs()) == len(FILES)
        assert mirror.kill() == -9
        assert "Traceback" not in (mirror.folder / "log").read_text()


@pytest.mark.row(
    "P01",
    "kill -9 at every call that changes a file, and in the middle of every write.",
    "Blobs are what their names say, what was served is served again without an upstream, broken "
    "downloads are completed to the right bytes.",
)
@pytest.mark.timeout(600)
def test_p01_it_may_die_at_any_call(
    zygotes: list[Zygote], hubs: list[HubServer], tmp_path: Path
) -> None:
    steps = Trial(tmp_path / "whole", zygotes[0], hubs[0]).live()
    assert steps > 50
    every = max(1, -(-steps // SAMPLE)) if SAMPLE else 1
    wanted = [*range(1, steps + 5, every)]

    def work(worker: int) -> None:
        for number in wanted[worker::_WORKERS]:
            trial = Trial(tmp_path / f"at-{number}", zygotes[worker], hubs[worker])
            trial.live(kill_at=number, torn=number % 2 == 0)
            trial.mirror.kill()
            try:
                trial.after()
            except BaseException as e:
                e.add_note(f"killed at step {number}")
                raise

    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(work, range(_WORKERS)))
