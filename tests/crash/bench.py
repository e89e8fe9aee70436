"""What most tests here begin with: a Hub with a few files, and a mirror that holds some."""

from __future__ import annotations

from pathlib import Path

from tests.crash.mirror import Mortal
from tests.crash.zygote import Zygote
from tests.fakes.content import Blob, Content, digest
from tests.fakes.hub_server import HubServer
from tests.fakes.world import World, lfs
from tests.faults.client import RIGHT, Got, Verdict

REPO = "acme/model"
HELD = "held.bin"
MISS = "miss.bin"
FILES: dict[str, Blob] = {
    HELD: Content("held", 3_000_001),
    "little.bin": Content("little", 1_000),
    MISS: Content("miss", 20 << 20),
    "miss-small.bin": Content("miss small", 50_000),
}


def small_world() -> World:
    world = World()
    world.repo(REPO).commit({path: lfs(content) for path, content in FILES.items()})
    return world


class Bench:
    """One mirror that has everything locked."""

    def __init__(
        self, folder: Path, zygote: Zygote, hub: HubServer, data: Path | None = None,
        **settings: str,
    ) -> None:  # fmt: skip
        self.hub = hub
        self.mirror = Mortal(
            folder, zygote, upstream=hub.url, allow=(f"{REPO}@main",), data=data,
            settings={"keep_free": "0", **settings},
        )  # fmt: skip
        status, said = self.mirror.run("lock")
        assert status == 0, said

    def get(self, path: str = HELD) -> tuple[Verdict, Got]:
        got = self.mirror.get(REPO, path)
        return got.verdict(FILES[path].read(0, FILES[path].size)), got

    def right(self, *paths: str) -> None:
        """Every one of these files is answered completely."""
        for path in paths:
            verdict, got = self.get(path)
            assert verdict is RIGHT, f"{path}: {verdict} {got.head}"

    def clean(self, path: str, *statuses: int) -> Got:
        """An error with a sentence, or a body that is cut."""
        verdict, got = self.get(path)
        assert verdict is Verdict.CLEAN, f"{path}: {verdict} {got.head}"
        if statuses:
            assert got.status in statuses, got.head
            assert got.header("X-Error-Message"), got.head
        return got

    def blob(self, path: str = HELD) -> Path:
        return self.mirror.blob(digest(FILES[path]))
